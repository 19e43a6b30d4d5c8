"""Two records in, evidence out: how many bits speak for one person, field by field, and the probability of it.

The evidence for one person is weighed against each way in which two people come to be alike: as strangers, as a
household (family at one address: name, address and phone are shared anyway, first name and date of birth must tell),
as colleagues (company, its address, switchboard and mail domain are shared). The weakest of these comparisons counts.
"""

import math
from dataclasses import dataclass

from webapp.leads.lookalikes import weights
from webapp.leads.lookalikes.records import FIELDS, Record
from webapp.leads.lookalikes.similarity import COMPARE
from webapp.leads.lookalikes.statistics import Statistics
from webapp.leads.lookalikes.weights import Level

#: Per field, the level and the bits that speak for one person rather than strangers.
_Found = dict[str, tuple[Level, float]]

#: Comparisons of values that a scorer remembers: names and towns come again and again.
_REMEMBERED = 300_000

_SWAP_BITS = math.log2(weights.SWAPPED)
#: A name of one word may be either.
_SINGLE_BITS = -1.0
_NAMED_EMAIL_BITS = 1.0
#: At most so much for a name, where all else that is there differs.
_NAME_ALONE_BITS = -1.0
_STRAIGHT = tuple(field for field in FIELDS if field not in ("first", "last", "street", "extra", "city"))
#: Shared by people of one address, whoever they are.
_OF_HOUSEHOLD = ("last", "number", "street", "extra", "city", "postcode", "state", "country", "phone", "company")
_OF_COMPANY = ("company", "number", "street", "extra", "city", "postcode", "state", "country", "phone")
_ADDRESS = ("number", "street", "extra", "city", "postcode", "state", "country")
_NO_WITNESS = ("first", "last", "middle", "state", "country")
_MOVED_BITS = math.log2(weights.MOVED)
_AGREES = (Level.EXACT, Level.CLOSE)


@dataclass(slots=True)
class Comparison:
    """``bits``: log2 of the odds for one person. ``strangers``: the same with strangers as the only alternative.
    ``found``: per field the level and its bits. ``swapped``: pairs of fields that were compared crosswise."""

    bits: float
    strangers: float
    found: _Found
    swapped: tuple[tuple[str, str], ...] = ()

    @property
    def probability(self) -> float:
        return probability(self.bits)


def probability(bits: float) -> float:
    """Odds of ``2 ** bits`` as a probability."""
    return 1.0 / (1.0 + math.exp2(-max(-60.0, min(60.0, bits))))


def bits_of(chance: float) -> float:
    """A probability as odds in bits."""
    return math.log2(chance / (1.0 - chance))


class Scorer:
    """Compares records under the figures of one set."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self._known: dict[tuple[str, str, str], tuple[Level, float]] = {}

    def compare(self, a: Record, b: Record) -> Comparison:
        found: _Found = {}
        for field in _STRAIGHT:
            left, right = getattr(a, field), getattr(b, field)
            if left and right:
                found[field] = self._weigh(field, left, right)
        swapped = self._names(a, b, found) + self._address(a, b, found)
        self._same_place(a, b, found)
        _moved(found)
        if "email" in found:
            _of_name(a, b, found)
        strangers = sum(bits for _, bits in found.values()) + self.statistics.prior
        return Comparison(self.total(a, found), strangers, found, swapped)

    def total(self, a: Record, found: _Found) -> float:
        """The odds in bits, against the likeliest explanation of how two people could be so alike."""
        bits = sum(weight for _, weight in found.values()) + self.statistics.prior
        if live_together(found):
            bits = min(bits, self._against_household(found))
        if _level(found, "company") in _AGREES:
            bits = min(bits, self._against_colleagues(a, found))
        return bits if _witnessed(found) else min(bits, _NAME_ALONE_BITS)

    def _against_household(self, found: _Found) -> float:
        m = self.statistics.m
        bits = -math.log2(self.statistics.household_odds)
        for field, (level, weight) in found.items():
            if field in _OF_HOUSEHOLD:
                bits += min(weight, 0.0)
            elif field == "first":
                bits += _tell_apart(level, m["first"], weights.HOUSEHOLD_SAME_FIRST)
            elif field == "birth":
                bits += _tell_apart(level, m["birth"], weights.HOUSEHOLD_SAME_BIRTH)
            elif field == "email" and level in _AGREES:
                bits += min(weight, -math.log2(weights.SHARED_EMAIL))
            else:
                bits += weight
        return bits

    def _against_colleagues(self, a: Record, found: _Found) -> float:
        statistics = self.statistics
        people = max(statistics.frequency("company", a.company) * statistics.size, 1.0)
        bits = -math.log2(people)
        for field, (level, weight) in found.items():
            if field in _OF_COMPANY:
                bits += min(weight, 0.0)
            elif field == "email" and level in _AGREES:
                bits += min(weight, -math.log2(weights.SHARED_EMAIL))
            else:
                bits += weight
        return bits

    def _weigh(self, field: str, left: str, right: str) -> tuple[Level, float]:
        """(level, bits) of two values that are there."""
        key = (field, left, right)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            level = COMPARE[field](left, right)
            known = self._known[key] = (level, self._bits(field, level, left, right))
        return known

    def _bits(self, field: str, level: Level, left: str, right: str) -> float:
        statistics = self.statistics
        if level is Level.EXACT:
            chance = statistics.frequency(field, left)
        elif level is Level.CLOSE:
            # Whoever mistypes a common name comes close to many.
            chance = statistics.u[field][level] + max(
                statistics.frequency(field, left), statistics.frequency(field, right)
            )
        else:
            chance = statistics.u[field][level]
        return math.log2(max(statistics.m[field][level], 1e-6) / max(chance, 1e-7))

    def _names(self, a: Record, b: Record, found: _Found) -> tuple[tuple[str, str], ...]:
        return self._either_way(("first", "last"), a, b, found)

    def _address(self, a: Record, b: Record, found: _Found) -> tuple[tuple[str, str], ...]:
        swapped = self._either_way(("street", "extra"), a, b, found)
        if a.city and b.city:
            found["city"] = self._weigh("city", a.city, b.city)
        return swapped

    def _either_way(self, fields: tuple[str, str], a: Record, b: Record, found: _Found) -> tuple[tuple[str, str], ...]:
        """Two fields that may have changed places: as they stand, or crosswise if that explains more."""
        one, two = fields
        a_one, a_two, b_one, b_two = getattr(a, one), getattr(a, two), getattr(b, one), getattr(b, two)
        straight = [
            (field, *self._weigh(field, left, right))
            for field, left, right in ((one, a_one, b_one), (two, a_two, b_two))
            if left and right
        ]
        if straight and all(level in _AGREES for _, level, _ in straight):
            across = []
        else:
            across = [self._weigh_across(fields, left, right) for left, right in ((a_one, b_two), (a_two, b_one))
                      if left and right]  # fmt: skip
        whole = all((a_one, a_two, b_one, b_two))
        cost = _SWAP_BITS if whole else _SINGLE_BITS
        if not across or sum(bits for _, bits in across) + cost <= sum(bits for *_, bits in straight):
            for field, level, bits in straight:
                found[field] = (level, bits)
            return ()
        # Which of the two a family has in common is not known: the one that agrees better is taken for it.
        across.sort(key=lambda pair: pair[0])
        level, bits = across[0]
        found[two] = (level, bits + cost)
        if len(across) > 1:
            found[one] = across[1]
        return (fields,) if whole else ()

    def _weigh_across(self, fields: tuple[str, str], left: str, right: str) -> tuple[Level, float]:
        """Like ``_weigh`` for one value of each field: the chance is that of the field where the value is at home."""
        key = ("/".join(fields), left, right)
        known = self._known.get(key)
        if known is None:
            level = COMPARE[fields[0]](left, right)
            known = (level, min(self._bits(field, level, left, right) for field in fields))
            self._known[key] = known
        return known

    def _same_place(self, a: Record, b: Record, found: _Found) -> None:
        """A town, its postcode and its state are one piece of evidence, not three."""
        city, postcode = _level(found, "city"), _level(found, "postcode")
        if city is Level.EXACT and postcode is Level.EXACT:
            m = self.statistics.m
            chance = self.statistics.place_frequency(a.city, a.postcode)
            joint = math.log2(m["city"][Level.EXACT] * m["postcode"][Level.EXACT] / max(chance, 1e-7))
            found["postcode"] = (Level.EXACT, joint - found["city"][1])
        if _level(found, "state") is Level.EXACT and Level.EXACT in (city, postcode):
            found["state"] = (Level.EXACT, 0.0)
        if _level(found, "country") is Level.EXACT and (city or postcode or "state" in found):
            found["country"] = (Level.EXACT, 0.0)


def _level(found: _Found, field: str) -> Level:
    return found[field][0] if field in found else Level.MISSING


def live_together(found: _Found) -> bool:
    """Whether they may share a home: the house is the same as far as it is known, or nothing says that it is another
    one and they share a phone or a mailbox."""
    street, number = _level(found, "street"), _level(found, "number")
    if street is Level.DIFFERENT:
        return False
    if street in _AGREES:
        return number is not Level.DIFFERENT or _level(found, "last") in _AGREES
    if number in _AGREES and (_level(found, "city") in _AGREES or _level(found, "postcode") in _AGREES):
        return True
    return _level(found, "phone") in _AGREES or _level(found, "email") in _AGREES


def _witnessed(found: _Found) -> bool:
    """Whether anything but the name speaks for one person, where there is anything else: people bear one name."""
    others = [bits for field, (_, bits) in found.items() if field not in _NO_WITNESS]
    return not others or any(bits > 0.0 for bits in others)


def _moved(found: _Found) -> None:
    """Who moves changes street, town and postcode at once: all that speaks against it together is one event."""
    parts = [field for field in _ADDRESS if field in found]
    total = sum(found[field][1] for field in parts)
    if total < _MOVED_BITS:
        for field in parts:
            level, bits = found[field]
            found[field] = (level, bits * _MOVED_BITS / total)


def _of_name(a: Record, b: Record, found: _Found) -> None:
    """``mary.bates@`` at two providers says no more than the name does, and less when another number follows it."""
    level, bits = found["email"]
    if level is not Level.SIMILAR or bits <= _NAMED_EMAIL_BITS:
        return
    local, other = a.email.partition("@")[0], b.email.partition("@")[0]
    named = any(len(name) >= 3 and name in local for name in (a.first, a.last, b.first, b.last))
    if named and (local != other or sum(c.isdecimal() for c in local) < 2):
        found["email"] = (level, _NAMED_EMAIL_BITS if local == other else 0.0)


def _tell_apart(level: Level, m: list[float], shared: float) -> float:
    """Bits of an agreement that people of one household have with the chance ``shared``."""
    if level is Level.DIFFERENT or level is Level.SIMILAR:
        return math.log2(m[level] / ((1 - shared) * (0.9 if level is Level.DIFFERENT else 0.1)))
    return math.log2(m[level] / (shared * (0.9 if level is Level.EXACT else 0.3)))
