"""What can be found of a lead, and how a person's words become a query.

The ``leads.search`` column is a tsvector made of tokens that we choose ourselves: PostgreSQL's parser would keep
``ana@acme.example`` as one word, and has no unaccent without contrib. Folding is the same on both sides.
"""

import re

from webapp.leads.textnorm import fold_search

_WORD = re.compile(r"[^\W_]+")
#: For ``bytes.translate``: ASCII with white space for what is in no word.
_WORDS_ONLY = bytes(code if chr(code).isalnum() else ord(" ") for code in range(128)) + bytes(128)
_NOT_DIGITS = bytes(code for code in range(128) if not chr(code).isdigit())
#: A token longer than this is nobody's search word (tsvector takes 2,046 bytes at most).
_LONGEST = 64
_MOST_TOKENS = 4_000


def search_tokens(*texts: str | None, phone: str | None = None) -> list[str]:
    """Distinct folded words of ``texts``, and the digits of ``phone`` with and without country code."""
    folded = fold_search(" ".join(filter(None, texts)))
    tokens = dict.fromkeys(_words(folded))
    if max(map(len, tokens), default=0) > _LONGEST:
        tokens = dict.fromkeys(word[:_LONGEST] for word in tokens)
    # What cannot be a number is kept as sent, words and all.
    digits = (phone or "").encode("ascii", "ignore").translate(None, _NOT_DIGITS).decode()[:_LONGEST]
    if digits:
        for start in range(min(4, max(len(digits) - 6, 1))):
            tokens[digits[start:]] = None
    return list(tokens)[:_MOST_TOKENS]


def _words(folded: str) -> list[str]:
    if folded.isascii():  # nearly always, and in less than half the time
        return folded.encode().translate(_WORDS_ONLY).decode().split()
    return _WORD.findall(folded)


def tsquery(text: str) -> str | None:
    """A person's words → ``'word':* & …`` for ``to_tsquery('simple', …)``: all of them, each as a prefix. None when
    there is no word in it. A phone written with spaces or dashes is looked for as one number."""
    digits = re.sub(r"[\s().+-]", "", text)
    if digits.isdigit() and len(digits) >= 5:
        return f"'{digits.lstrip('0') or digits}':*"
    words = [word[:_LONGEST] for word in _words(fold_search(text))][:12]
    return " & ".join(f"'{word}':*" for word in words) or None
