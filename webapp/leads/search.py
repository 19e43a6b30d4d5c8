"""What can be found of a lead, and how a person's words become a query.

The ``leads.search`` column is a tsvector made of tokens that we choose ourselves: PostgreSQL's parser would keep
``ana@acme.example`` as one word, and has no unaccent without contrib. Folding is the same on both sides.
"""

import re

from webapp.leads.textnorm import fold_search

_WORD = re.compile(r"[^\W_]+")
_NOT_DIGITS = re.compile(r"[^0-9]")
#: A token longer than this is nobody's search word (tsvector takes 2,046 bytes at most).
_LONGEST = 64
_MOST_TOKENS = 4_000


def search_tokens(*texts: str | None, phone: str | None = None) -> list[str]:
    """Distinct folded words of ``texts``, and the digits of ``phone`` with and without country code."""
    tokens = dict.fromkeys(_WORD.findall(fold_search(" ".join([text for text in texts if text]))))
    if max(map(len, tokens), default=0) > _LONGEST:
        tokens = dict.fromkeys(word[:_LONGEST] for word in tokens)
    digits = _NOT_DIGITS.sub("", phone or "")[:_LONGEST]  # what cannot be a number is kept as sent, words and all
    if digits:
        for start in range(min(4, max(len(digits) - 6, 1))):
            tokens[digits[start:]] = None
    return list(tokens)[:_MOST_TOKENS]


def tsquery(text: str) -> str | None:
    """A person's words → ``'word':* & …`` for ``to_tsquery('simple', …)``: all of them, each as a prefix. None when
    there is no word in it. A phone written with spaces or dashes is looked for as one number."""
    digits = re.sub(r"[\s().+-]", "", text)
    if digits.isdigit() and len(digits) >= 5:
        return f"'{digits.lstrip('0') or digits}':*"
    words = [word[:_LONGEST] for word in _WORD.findall(fold_search(text))][:12]
    return " & ".join(f"'{word}':*" for word in words) or None
