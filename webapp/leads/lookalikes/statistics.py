"""What a set of records tells of itself: how often each value occurs, how often strangers agree, how often one
person's records don't."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from webapp.leads.lookalikes import similarity, weights
from webapp.leads.lookalikes.records import FIELDS, Record
from webapp.leads.lookalikes.weights import EXPECTED_DUPLICATES, LEVELS, WEIGHTS, Level

#: Observations that the table's own figures count for, beside what the set says.
FREQUENCY_PRIOR = 100
STRANGER_PRIOR = 2_000
AGREEMENT_PRIOR = 50
PRIOR_RECORDS = 100
#: Random pairs looked at for how often strangers agree.
STRANGER_PAIRS = 20_000
#: A first name may be wrong that many times as often as the other names, and dates are.
FIRST_TO_OTHERS = 1.5

#: Frequencies remembered.
REMEMBERED = 300_000

_Shares = list[float]


class Statistics:
    """The model's figures for one set of ``size`` records; ``size`` may be larger than the sample it was learned from.

    ``m`` and ``u`` are lists by :class:`Level` (index 0, MISSING, unused).
    """

    def __init__(self, sample: Sequence[Record] = (), *, size: int | None = None) -> None:
        self.size = max(len(sample) if size is None else size, 2)
        self.sampled = len(sample)
        self.counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
        self.m: dict[str, _Shares] = {field: [1.0, *WEIGHTS[field].m] for field in FIELDS}
        self.u: dict[str, _Shares] = {field: [1.0, *WEIGHTS[field].u] for field in FIELDS}
        self.present = Counter[str]()
        households: dict[tuple[str, str], set[str]] = defaultdict(set)
        for record in sample:
            for field in FIELDS:
                if value := getattr(record, field):
                    self.counts[field][value] += 1
            if record.city and record.postcode:
                households[record.city, record.postcode].add(record.last[:4] or record.first[:4])
        for field in FIELDS:
            self.present[field] = self.counts[field].total()
        self.together = {place: len(names) for place, names in households.items() if len(names) > 1}
        self.prior = math.log2(EXPECTED_DUPLICATES / self.size)
        if self.sampled > 1:
            self._learn_strangers(sample)
        self.household_odds = weights.HOUSEHOLD_ODDS
        self._frequencies: dict[tuple[str, str], float] = {}

    def frequency(self, field: str, value: str) -> float:
        """The chance that a stranger has this value."""
        known = self._frequencies.get((field, value))
        if known is None:
            others = max(self.counts[field][value] - 1, 0)
            base = WEIGHTS[field].u[0]
            known = (others + FREQUENCY_PRIOR * base) / (self.present[field] + FREQUENCY_PRIOR)
            if len(self._frequencies) >= REMEMBERED:
                self._frequencies.clear()
            self._frequencies[field, value] = known
        return known

    def place_frequency(self, city: str, postcode: str) -> float:
        """The chance that a stranger has both, which is far more than the product: one follows from the other."""
        apart = self.frequency("city", city) * self.frequency("postcode", postcode)
        neighbours = self.together.get((city, postcode), 1) - 1
        return max(apart, neighbours / (self.sampled or 1))

    def _learn_strangers(self, sample: Sequence[Record]) -> None:
        """How often two records picked at random come CLOSE or SIMILAR on each field."""
        pick = random.Random(20)
        seen: dict[str, list[int]] = {field: [0] * 5 for field in FIELDS}
        for _ in range(min(STRANGER_PAIRS, len(sample) * 10)):
            a, b = pick.choice(sample), pick.choice(sample)
            if a is b:
                continue
            for field in FIELDS:
                left, right = getattr(a, field), getattr(b, field)
                if left and right:
                    seen[field][similarity.COMPARE[field](left, right)] += 1
        for field, counts in seen.items():
            self.u[field] = _blend(counts, WEIGHTS[field].u, STRANGER_PRIOR)

    def learn_agreement(self, seen: Mapping[str, Sequence[int]]) -> None:
        """``seen``: per field, how many pairs that the other fields show to be one person's are at each level."""
        for field, counts in seen.items():
            self.m[field] = _blend(counts, WEIGHTS[field].m, AGREEMENT_PRIOR)
        # Siblings born on one day share all but the first name. So how often a first name is plainly wrong is taken
        # from the set only as far as its other fields are as unreliable.
        others = [self.m[field][Level.DIFFERENT] for field in ("last", "birth") if self.present[field]]
        most = max(WEIGHTS["first"].m[3], FIRST_TO_OTHERS * sum(others) / len(others) if others else 0.0)
        first = self.m["first"]
        first[Level.DIFFERENT] = min(first[Level.DIFFERENT], most)

    def learn_matches(self, pairs: int) -> None:
        """``pairs``: how many pairs are sure, from which the prior follows."""
        known = PRIOR_RECORDS
        each = (2 * pairs + known * EXPECTED_DUPLICATES) / (self.sampled + known)
        self.prior = math.log2(each / self.size)

    def learn_households(self, homes: "Homes") -> None:
        """What exceeds the errors of one person's records are households."""
        households = total = 0.0
        for fields, (pairs, differ) in homes.items():
            error = math.prod(self.m[field][Level.DIFFERENT] for field in fields)
            households += max(differ - error * pairs, 0.0) / (1 - error)
            total += pairs
        known = weights.HOUSEHOLD_PRIOR
        self.household_odds = (households + known * weights.HOUSEHOLD_ODDS) / (total - households + known)


#: Pairs that share a home, by which of first name and date of birth both have: (all, those that differ in all of them).
Homes = dict[tuple[str, ...], list[int]]


def _blend(counts: Sequence[int], base: Sequence[float], strength: int) -> _Shares:
    """Shares by level: what was counted, with ``base`` counting as ``strength`` observations."""
    total = sum(counts[level] for level in LEVELS) + strength
    return [1.0, *((counts[level] + strength * base[level - 1]) / total for level in LEVELS)]
