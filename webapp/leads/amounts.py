"""Amounts of money as people write them: the one reader of budgets, for every door.

``$12,500``, ``1.234,50 €``, ``20 thousand``, ``1,5 triệu``, ``10k-20k``. Where a text leaves open which amount is meant
there is none: a wrong budget is worse than no budget. The currency itself is not read; amounts are in the workspace's.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

#: Longest text that is read, in characters, and the largest amount.
MAX_TEXT, MAX_AMOUNT = 500, 1e15

_TIMES = {
    word: times
    for words, times in (
        ("hundred trăm tram", 1e2),
        ("k thousand thousands grand nghìn nghin ngàn ngan", 1e3),
        ("lakh lakhs", 1e5),
        ("m mn mm mio mil mill million millions tr triệu trieu", 1e6),
        ("crore crores", 1e7),
        ("b bn billion billions mrd milliard tỷ tỉ ty", 1e9),
        ("trillion trillions", 1e12),
    )
    for word in words.split()
}


def _any(words: str) -> str:
    return "|".join(re.escape(word) for word in sorted(words.split(), key=len, reverse=True))


_SIGN = r"(?:[a-z]{1,3}\$|[$€£¥₫₹₽₩฿₱₦₺₴₪])"
_WORD = f"""(?:{
    _any(
        "usd eur gbp vnd vnđ jpy inr cny rmb chf cad aud nzd sgd hkd krw thb myr idr pln sek nok dkk brl mxn zar aed dollar "
        "dollars euro euros pound pounds buck bucks quid yen yuan rupee rupees rs rp baht đồng dong đ"
    )
})"""
_AFTER = rf"(?:{_SIGN}|{_WORD}(?!\w))"
_UNIT = f"(?:{_any(' '.join(_TIMES))})"
# Groups of three that spaces or apostrophes part, or whatever points and commas do; ASCII digits alone.
_DIGITS = r"[0-9]{1,3}(?:[ '][0-9]{3})+(?![0-9])(?:[.,][0-9]+)?|[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+"
_AMOUNT = re.compile(
    rf"(?P<minus>-)? ?(?P<before>(?<!\w)(?:{_SIGN}|{_WORD})\.? ?)?(?P<minus_after>-)?(?P<digits>{_DIGITS})"
    rf"(?: ?(?P<unit>{_UNIT})(?:(?P<rest>[0-9]{{1,3}})(?!\w)|(?: (?P<more>{_UNIT}))?(?!\w)|(?={_AFTER})))?"
    rf"(?P<after> ?{_AFTER})?"
)
_SCIENTIFIC = re.compile(r"[0-9]+(?:\.[0-9]+)?e[+-]?[0-9]{1,3}")
_GROUPED = re.compile(r"[0-9]{1,3}(?:([.,])[0-9]{3})(?:\1[0-9]{3})*|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}")
_DATE = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?![0-9])")
#: Words after a bare number that leave it an amount; any other word is what it counts (``20 licences``).
_ASIDE = frozenset(
    ("a", "an", "and", "at", "before", "by", "for", "from", "gross", "in", "max", "maximum", "min", "minimum", "monthly",
     "net", "on", "or", "per", "total", "until", "yearly")
)  # fmt: skip
_NEXT_WORD = re.compile(r" ([^\W\d_]+)")
_TO = re.compile(r" ?(?:-|–|—|~|to|đến|tới|bis) ?")
_AND = re.compile(r" (?:and|và) ")


@dataclass(frozen=True, slots=True)
class _Found:
    """An amount and where it stands. ``times``: its magnitude; ``sure``: money by its looks."""

    start: int
    end: int
    value: float
    times: float
    sure: bool
    negative: bool


def of(value: Any) -> float | None:
    """The amount that a JSON value tells: a number, or a text as ``read`` takes it. None for all else."""
    if isinstance(value, str):
        return read(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_AMOUNT else None  # also refuses NaN


def read(text: str) -> float | None:
    """The amount in ``text``; of a range the lower end. Of several the one with a currency or a magnitude; None when
    that leaves more than one, or none, or one that is negative or above ``MAX_AMOUNT``. Never raises."""
    if len(text) > MAX_TEXT:
        return None
    plain = unicodedata.normalize("NFC", " ; ".join(text.splitlines())).lower().replace("’", "'").replace("−", "-")
    plain = " ".join(plain.split())
    if _SCIENTIFIC.fullmatch(plain):
        return of(float(plain))
    found = _joined(_DATE.sub(lambda date: "/" * len(date[0]), plain))
    values = {-1.0 if one.negative else one.value for one in [one for one in found if one.sure] or found}
    return of(values.pop()) if len(values) == 1 else None


def _joined(text: str) -> list[_Found]:
    """The amounts, with ``2 million 300 thousand`` and ``10k-20k`` as one each."""
    whole: list[_Found] = []
    for one in _amounts(text):
        before = whole[-1] if whole else None
        both = _both(before, one, text) if before else None
        if both:
            whole[-1] = both
        else:
            whole.append(one)
    return whole


def _both(first: _Found, second: _Found, text: str) -> _Found | None:
    """Two neighbours as one amount: the sum of ``2 million 300 thousand``, the lower end of ``10k-20k`` or ``10-20k``.
    None when they stand apart."""
    gap, sure = text[first.end : second.start], first.sure or second.sure
    if not gap.strip() and 1 < second.times < first.times and second.value < first.times:
        return replace(first, end=second.end, value=first.value + second.value, times=second.times, sure=sure)
    if not _TO.fullmatch(gap) and not (_AND.fullmatch(gap) and "between " in text[: first.start]):
        return None
    if first.times == 1 and first.value * second.times <= second.value:
        first = replace(first, value=first.value * second.times, times=second.times)
    return replace(first, end=second.end, sure=sure) if first.value <= second.value else None


def _amounts(text: str) -> Iterator[_Found]:
    """Numbers that can be amounts: not part of a word (``Q3``, ``5th``), no percentage, time or date."""
    for match in _AMOUNT.finditer(text):
        at, end = match.start("digits"), match.end()
        number = _number(match["digits"])
        if number is None or (not match["before"] and _is_glued(text, at)) or _goes_on(text, end):
            continue
        times = _TIMES[match["unit"]] if match["unit"] else 1.0
        times *= _TIMES[match["more"]] if match["more"] else 1.0
        if match["rest"]:  # 1tr5 is a million and a half
            number += float(f"0.{match['rest']}")
        negative = bool(match["minus_after"]) or (bool(match["minus"]) and _is_minus(text, match.start()))
        sure = bool(match["unit"] or match["before"] or match["after"])
        counted = _NEXT_WORD.match(text, end)
        if counted and not sure and counted[1] not in _ASIDE and not _TO.match(text, end):
            continue
        yield _Found(match.start("before") if match["before"] else at, end, number * times, times, sure, negative)


def _is_glued(text: str, at: int) -> bool:
    return at > 0 and (text[at - 1].isalnum() or text[at - 1] in "_/:.,'")


def _goes_on(text: str, end: int) -> bool:
    after = text[end : end + 2]
    return (
        after[:1].isalnum()
        or after[:1] in ("_", "%")
        or after == " %"
        or (after[:1] in "/:.,'" and after[1:].isdigit())
    )


def _is_minus(text: str, at: int) -> bool:
    """Is the dash there a minus? A hyphen and a dash between words have a letter, a digit or a space beside them."""
    return at == 0 or (text[at - 1] in " ([:" and text[at + 1] != " ")


def _number(digits: str) -> float | None:
    """``1,234.50``, ``1.234,50``, ``12 500``; a separator before three digits groups them, unless the part before is
    0. None for what is a number to nobody (``1.2.3``, ``1,2,3``)."""
    digits = digits.replace(" ", "").replace("'", "")
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0:
        return float(digits)
    if _GROUPED.fullmatch(digits) and int(re.split("[.,]", digits)[0]):
        return float(re.sub("[.,]", "", digits))
    whole, fraction = digits[:last] or "0", digits[last + 1 :]
    if whole.isdigit():
        return float(f"{whole}.{fraction}")
    other = digits[last] not in whole
    return float(re.sub("[.,]", "", whole) + "." + fraction) if other and _GROUPED.fullmatch(whole) else None
