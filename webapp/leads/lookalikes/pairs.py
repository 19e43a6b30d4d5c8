"""A whole set compared with itself: which records are held to be the same person."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from webapp.leads.lookalikes import weights
from webapp.leads.lookalikes.blocking import candidate_pairs
from webapp.leads.lookalikes.records import FIELDS, Record
from webapp.leads.lookalikes.scoring import Comparison, Scorer, bits_of, live_together, probability
from webapp.leads.lookalikes.statistics import Homes, Statistics
from webapp.leads.lookalikes.weights import Level


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions (a < b) in the set, and the probability that they are one person."""

    a: int
    b: int
    score: float


#: Bits from which a pair is certain enough, without a field, to learn from it how reliable that field is.
_SURE_BITS = 5.0
#: The second round learns from pairs that the first one's figures are right about; a third changes nothing to speak of.
_LEARN_ROUNDS = 2
#: Records whose pairs are learned from; of a larger set, each n-th.
_LEARN_RECORDS = 5_000
#: Bits that name and address must say before two records count as one household's or one person's.
_HOME_BITS = 15.0
#: A pair with at least ``_BRIDGED_FROM`` bits is held the same if each has ``_BRIDGE_BITS`` with a third record.
_BRIDGE_BITS, _BRIDGED_FROM = 5.0, -3.0


def learn(records: Sequence[Record], candidates: Sequence[tuple[int, int]]) -> Statistics:
    """The figures of a set. Each round takes the pairs that are sure without a field and counts how that field agrees,
    and the pairs that share a home and counts how many differ in what a family differs in."""
    statistics = Statistics(records)
    step = max(1, len(records) // _LEARN_RECORDS)
    sampled = [pair for pair in candidates if pair[0] % step == 0]
    for _ in range(_LEARN_ROUNDS):
        scorer = Scorer(statistics)
        seen = {field: [0] * 5 for field in FIELDS}
        homes: Homes = {}
        sure = 0
        for i, j in sampled:
            a, b = records[i], records[j]
            found = scorer.compare(a, b)
            if found.strangers > 0:
                _count_home(found, homes)
            sure += found.bits >= _SURE_BITS
            if found.strangers < -10:
                continue
            for field, (level, _) in found.found.items():
                rest = {name: value for name, value in found.found.items() if name != field}
                if scorer.total(a, rest) >= _SURE_BITS:
                    seen[field][level] += 1
        statistics.learn_agreement(seen)
        statistics.learn_households(homes)
        statistics.learn_matches(sure * step)
    return statistics


def _count_home(found: Comparison, homes: Homes) -> None:
    told = tuple(field for field in ("first", "birth") if field in found.found)
    if not told or not live_together(found.found):
        return
    if sum(bits for field, (_, bits) in found.found.items() if field not in told) < _HOME_BITS:
        return
    counts = homes.setdefault(told, [0, 0])
    counts[0] += 1
    counts[1] += all(found.found[field][0] is Level.DIFFERENT for field in told)


def scored(
    records: Sequence[Record], candidates: Sequence[tuple[int, int]], statistics: Statistics
) -> Iterator[tuple[int, int, float]]:
    """(a, b, bits) of the candidates that are not far from being one person."""
    scorer = Scorer(statistics)
    for i, j in candidates:
        bits = scorer.compare(records[i], records[j]).bits
        if bits >= _BRIDGED_FROM:
            yield i, j, bits


def same_people(records: Sequence[Record]) -> list[Pair]:
    """The pairs held to be one person, in order: probable enough by themselves, or nearly so and both surely the same
    as a third record (two bad copies of one good one)."""
    candidates = list(candidate_pairs(records))
    near = list(scored(records, candidates, learn(records, candidates)))
    least = bits_of(weights.SAME_FROM)
    surely: dict[int, set[int]] = defaultdict(set)
    for a, b, bits in near:
        if bits >= _BRIDGE_BITS:
            surely[a].add(b)
            surely[b].add(a)
    found = []
    for a, b, bits in near:
        if bits >= least:
            found.append(Pair(a, b, probability(bits)))
        elif not surely[a].isdisjoint(surely[b]):
            found.append(Pair(a, b, weights.SAME_FROM))
    return sorted(found, key=lambda pair: (pair.a, pair.b))
