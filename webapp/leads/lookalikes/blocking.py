"""Block keys: two records are compared only when they share one, which keeps a large set cheap.

Each key joins two weak marks (or is one strong one), so that no single error hides a pair: a record with a mistyped
surname still meets its twin under its date of birth, its house, its first name with the postcode, its phone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from webapp.leads.lookalikes.records import FIELDS, Record

#: Blocks up to this size are compared in full; in larger ones, each record with its neighbours in order of name.
FULL_BLOCK = 30
WINDOW = 4
#: Kinds of key of which one alone makes a pair worth comparing; of the others it takes two,
#: unless the set is so small that looking closer costs little.
STRONG = frozenset("elpwnsdh")
SMALL_SET = 6_000
#: Bits of what two records have exactly in common below which they are not compared (about 3 in a smaller set).
LARGE_SET_BITS = 7.0

#: What counts as the same value wherever it stands.
_KINDS = {field: field for field in FIELDS if field not in ("state", "country")} | {
    "first": "name", "last": "name", "middle": "name", "street": "place", "extra": "place", "city": "place",
}  # fmt: skip

_SOUNDS = str.maketrans(
    {**dict.fromkeys("bfpv", "1"), **dict.fromkeys("cgjkqsxz", "2"), **dict.fromkeys("dt", "3"), "l": "4",
     **dict.fromkeys("mn", "5"), "r": "6", **dict.fromkeys("aeiouyhw", "0")}
)  # fmt: skip


@lru_cache(maxsize=200_000)
def sound(text: str) -> str:
    """Soundex with at most three digits (Russell's American Soundex; h and w count as vowels): ``smith`` = ``smyth``."""
    if not text:
        return ""
    digits = text.translate(_SOUNDS)
    kept = [text[0]]
    previous = digits[0]
    for digit in digits[1:]:
        if digit not in ("0", previous):
            kept.append(digit)
            if len(kept) == 4:
                break
        previous = digit
    return "".join(kept)


def keys(record: Record) -> list[str]:
    """The block keys of a record, without repeats, each with the kind of key before a colon."""
    found: dict[str, None] = {}

    def add(kind: str, *parts: str) -> None:
        if all(parts):
            found[f"{kind}:{'|'.join(parts)}"] = None

    names = [name for name in (record.first, record.last) if name]
    sounds = sorted({sound(name) for name in names})
    _contact_keys(record, sounds, add)
    if len(names) == 2:
        add("n", *sorted(names))
        add("s", *(sounds if len(sounds) == 2 else sounds * 2))
    birth = record.birth
    if birth:
        add("d", birth[:4], *sorted((birth[4:6], birth[6:])))
    street = record.street[:5]
    for mark in sounds:
        add("z", mark, record.postcode)
        add("c", mark, record.city[:5])
        add("y", mark, birth[:4])
        add("m", mark, birth[4:])
        add("o", mark, record.company[:6])
        add("a", mark, street)
        add("b", mark, record.extra[:5])
    add("h", record.number, street)
    add("h", record.number, record.extra[:5])
    add("t", street, record.postcode)
    add("t", street, record.city[:5])
    add("t", record.extra[:5], record.postcode)
    add("g", birth[:4], record.postcode)
    return list(found)


def _contact_keys(record: Record, sounds: Sequence[str], add: object) -> None:
    assert callable(add)
    email, phone = record.email, record.phone
    if email:
        local, _, domain = email.partition("@")
        plain = "".join(c for c in local if c.isalnum())
        add("e", email)
        if len(plain) >= 5:
            add("l", plain)
        add("k", plain[:4], domain[:6])
        for mark in sounds:
            add("v", mark, domain)
    if phone:
        add("p", phone)
        for mark in sounds:
            add("q", mark, phone[:5])
            add("r", mark, phone[-4:])
            add("w", mark, "".join(sorted(phone)))


def candidate_pairs(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    """Positions (a < b) of records worth comparing, each pair once, in order of a: they share a strong key or two
    others, and what they have exactly in common is rare enough. Memory grows with the records, not with the pairs."""
    blocks, places = _blocks(records)
    values, rarity = _values(records)
    small = len(records) <= SMALL_SET
    needed, least = (1, math.log2(max(len(records), 1)) / 4) if small else (2, LARGE_SET_BITS)
    for position, mine in enumerate(places):
        met: Counter[int] = Counter()
        for block, at, strong in mine:
            members = blocks[block]
            if len(members) > FULL_BLOCK:
                members = members[max(at - WINDOW, 0) : at + WINDOW + 1]
            met.update(members)
            if strong:
                met.update(members)
        own = values[position]
        for other, shared in met.items():
            if shared >= needed and other > position and sum([rarity[value] for value in own & values[other]]) >= least:
                yield position, other


def _values(records: Sequence[Record]) -> tuple[list[frozenset[int]], list[float]]:
    """Per record its values as numbers (names and address lines wherever they stand), and how many bits each number
    is worth: log2 of how rarely it occurs."""
    numbers: dict[tuple[str, str], int] = {}
    counts: list[int] = []
    values = []
    for record in records:
        own = set()
        for field, kind in _KINDS.items():
            if value := getattr(record, field):
                number = numbers.setdefault((kind, value), len(numbers))
                if number == len(counts):
                    counts.append(0)
                own.add(number)
        for number in own:
            counts[number] += 1
        values.append(frozenset(own))
    return values, [math.log2(len(records) / count) for count in counts]


_Places = list[list[tuple[int, int, bool]]]


def _blocks(records: Sequence[Record]) -> tuple[list[list[int]], _Places]:
    """Blocks of two and more, large ones in order of name; per record its blocks, its place in each, and whether the
    block's key is a strong one."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for position, record in enumerate(records):
        for key in keys(record):
            by_key[key].append(position)
    places: _Places = [[] for _ in records]
    blocks: list[list[int]] = []
    while by_key:
        key, members = by_key.popitem()
        if len(members) < 2:
            continue
        if len(members) > FULL_BLOCK:
            members.sort(key=lambda i: (records[i].last, records[i].first, records[i].birth, i))
        strong = key[0] in STRONG
        for at, position in enumerate(members):
            places[position].append((len(blocks), at, strong))
        blocks.append(members)
    return blocks, places
