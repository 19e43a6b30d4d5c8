"""How closely two values of a field agree: pure functions to a :class:`Level`, by edit distance (rapidfuzz)."""

from collections.abc import Callable

from rapidfuzz.distance import OSA

from webapp.leads.lookalikes.weights import Level

distance = OSA.distance  # optimal string alignment: insert, delete, replace, and swap of neighbours, at 1 each


def text(a: str, b: str) -> Level:
    """Names, streets, towns. One slip in four letters or more, two in six, three in twelve: CLOSE. Two slips in four
    or more, a quarter more than that in longer ones, or one begins with the other: SIMILAR."""
    if a == b:
        return Level.EXACT
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    size = len(long)
    allowed = 1 if size < 6 else 2 if size < 12 else 3
    slips = distance(a, b, score_cutoff=allowed * 2)
    if slips <= allowed:
        return Level.CLOSE if size >= 4 else Level.SIMILAR
    if slips <= allowed * 2 and slips * 5 <= size * 2:
        return Level.SIMILAR
    if long.startswith(short):  # an initial, a short form
        return Level.SIMILAR
    return Level.DIFFERENT


def number(a: str, b: str) -> Level:
    """House numbers: one slip, or with and without a letter, is CLOSE."""
    if a == b:
        return Level.EXACT
    return Level.CLOSE if distance(a, b, score_cutoff=1) <= 1 and max(len(a), len(b)) > 1 else Level.DIFFERENT


def code(a: str, b: str) -> Level:
    """Postcodes: one slip (or swap of digits) is CLOSE, two are SIMILAR."""
    if a == b:
        return Level.EXACT
    slips = distance(a, b, score_cutoff=2)
    if slips <= 1:
        return Level.CLOSE
    return Level.SIMILAR if slips == 2 and len(a) >= 5 else Level.DIFFERENT


def state(a: str, b: str) -> Level:
    """Abbreviations are too short for a slip to be told from another state."""
    if a == b:
        return Level.EXACT
    return Level.CLOSE if min(len(a), len(b)) >= 4 and distance(a, b, score_cutoff=2) <= 2 else Level.DIFFERENT


def birth(a: str, b: str) -> Level:
    """Dates: one slip or swap of digits, or day and month changed over, is CLOSE; two of year, month, day: SIMILAR."""
    if a == b:
        return Level.EXACT
    if distance(a, b, score_cutoff=1) <= 1 or (a[:4] == b[:4] and a[4:6] == b[6:] and a[6:] == b[4:6]):
        return Level.CLOSE
    same = (a[:4] == b[:4]) + (a[4:6] == b[4:6]) + (a[6:] == b[6:])
    return Level.SIMILAR if same == 2 else Level.DIFFERENT


def email(a: str, b: str) -> Level:
    """One or two slips: CLOSE, unless they only change a digit (``an.1@`` and ``an.2@`` are two people). The same
    long name at another provider: SIMILAR."""
    if a == b:
        return Level.EXACT
    local_a, _, domain_a = a.partition("@")
    local_b, _, domain_b = b.partition("@")
    if local_a == local_b:
        if distance(domain_a, domain_b, score_cutoff=2) <= 2:
            return Level.CLOSE
        return Level.SIMILAR if len(local_a) >= 6 else Level.DIFFERENT
    plain_a, plain_b = (local.translate(_MARKS) for local in (local_a, local_b))
    slips = distance(plain_a, plain_b, score_cutoff=2)
    if slips > 2 or distance(domain_a, domain_b, score_cutoff=2) > 2:
        return Level.DIFFERENT
    letters_a, letters_b = (local.translate(_DIGITS) for local in (plain_a, plain_b))
    if letters_a == letters_b and slips:  # only digits differ
        return Level.SIMILAR
    size = max(len(plain_a), len(plain_b))
    return Level.CLOSE if slips * 4 <= size else Level.DIFFERENT


def phone(a: str, b: str) -> Level:
    """One slip or swap of digits in numbers of eight digits or more is CLOSE."""
    if a == b:
        return Level.EXACT
    return Level.CLOSE if min(len(a), len(b)) >= 8 and distance(a, b, score_cutoff=1) <= 1 else Level.DIFFERENT


_MARKS = str.maketrans("", "", "._-")
_DIGITS = str.maketrans("", "", "0123456789")

#: The comparison of each field of a record.
COMPARE: dict[str, Callable[[str, str], Level]] = {
    "first": text, "last": text, "middle": text, "company": text, "number": number, "street": text, "extra": text,
    "city": text, "postcode": code, "state": state, "country": state, "birth": birth, "email": email, "phone": phone,
}  # fmt: skip
