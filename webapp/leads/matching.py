"""Which phrases of the rules a message holds: the token trie is walked from each token, the longest match wins; phrases
with gaps are put together from their parts; negations undo cues within their reach.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Set
from typing import Final

from webapp.leads.ruleset import Ruleset
from webapp.leads.ruleset_trie import JOINS, Cue, Node, Step
from webapp.leads.words import Words

#: Token ranges.
Parts = tuple[tuple[int, int], ...]


class Hit:
    """A cue found: at the tokens ``start`` to ``end``, or of a phrase with gaps at its ``parts``, of which that is the
    first. ``dropped``: another hit has taken its words."""

    __slots__ = ("cue", "dropped", "end", "parts", "start")

    def __init__(self, start: int, end: int, cue: Cue, parts: Parts = ()) -> None:
        self.start = start
        self.end = end
        self.cue = cue
        self.parts = parts
        self.dropped = False


_NONE: Final[frozenset[int]] = frozenset()
#: After these a negation goes on ("no demo or quote").
_OR: Final = frozenset({"or", "nor", "hay", "hoặc", "hoac"})


def met(words: Words, rules: Ruleset) -> tuple[list[Hit], list[Hit], Set[int]]:
    """The cues from the left, the flags, and which of the cues a negation undoes, by index."""
    root = rules.english if words.lang == "en" else rules.bare if words.bare else rules.marked
    hits, flags = _scan(words, root, rules.gap)
    for hit in hits:
        if hit.cue.kind == "negation":
            return hits, flags, _negated(hits, words, rules)
    return hits, flags, _NONE


def _scan(words: Words, root: Node, gap: int) -> tuple[list[Hit], list[Hit]]:
    """All cues and flags found, longest match first from the left; phrases with gaps on top of those."""
    keys = [word.key for word in words.tokens]
    size = len(keys)
    hits: list[Hit] = []
    flags: list[Hit] = []
    gapped: list[Hit] = []
    chains: dict[int, Parts] = {}  # the phrases with gaps that have begun
    free = flag_free = end = flag_end = 0
    for i in range(size):
        node = root.next.get(keys[i])
        if node is None:
            continue
        j = i + 1
        best: tuple[Cue, ...] = ()
        best_flags: tuple[Cue, ...] = ()
        while True:
            ends = node.ends
            if ends:
                if ends != JOINS:
                    if node.cues and i >= free:
                        best, end = node.cues, j
                    if node.flags and i >= flag_free:
                        best_flags, flag_end = node.flags, j
                if ends >= JOINS:
                    if chains:
                        for step in node.steps:
                            if step[0] in chains:
                                found = _go_on(step, (i, j), chains, words, gap)
                                if found is not None:
                                    (flags if found.cue.kind == "flag" else gapped).append(found)
                    for chain in node.opens:
                        chains[chain] = ((i, j),)
            if j == size:
                break
            node = node.next.get(keys[j])
            if node is None:
                break
            j += 1
        if best:
            # "^" only anchors a cue: what begins at the word after it is as far left and must not be hidden.
            free = end if keys[i] != "^" else i
            for cue in best:
                hits.append(Hit(i, end, cue))
        if best_flags:
            flag_free = flag_end
            for cue in best_flags:
                flags.append(Hit(i, flag_end, cue))
    return (_settle(hits, gapped) if gapped else hits), flags


def _go_on(step: Step, part: tuple[int, int], chains: dict[int, Parts], words: Words, gap: int) -> Hit | None:
    """Lengthen a phrase with gaps by ``part``, if that is near enough; it is found when that was its last."""
    before, after, cue = step
    parts = chains[before]
    last = parts[-1][1]
    if not last <= part[0] <= last + gap or not words.same_sentence(last - 1, part[0]):
        return None
    parts = (*parts, part)
    if after is not None:
        chains[after] = parts
    return None if cue is None else Hit(parts[0][0], parts[0][1], cue, parts)


def parts_of(hit: Hit) -> Parts:
    return hit.parts or ((hit.start, hit.end),)


def _weight(hit: Hit) -> float:
    return hit.cue.weight


def place(hit: Hit) -> tuple[int, int]:
    return hit.start, hit.end


def _settle(hits: list[Hit], gapped: list[Hit]) -> list[Hit]:
    """Let each phrase with gaps replace the weaker cues whose words it uses, or give way to a stronger one."""
    owner: dict[int, list[Hit]] = {}
    for hit in hits:
        for i in range(hit.start, hit.end):
            owner.setdefault(i, []).append(hit)
    kept: list[Hit] = []
    for hit in sorted(gapped, key=_weight, reverse=True):
        used = [i for first, after in hit.parts for i in range(first, after)]
        rivals = [rival for i in used if i in owner for rival in owner[i] if not rival.dropped]
        if any(_outranks(rival, hit) for rival in rivals):
            continue
        for rival in rivals:
            rival.dropped = True
        kept.append(hit)
        for i in used:
            owner.setdefault(i, []).append(hit)
    return sorted([hit for hit in hits if not hit.dropped] + kept, key=place)


def _outranks(rival: Hit, hit: Hit) -> bool:
    """Whether the phrase with gaps ``hit`` gives way: words that stand together are the better evidence."""
    theirs, own = rival.cue, hit.cue
    if theirs.kind != "intent" or rival.parts or theirs.weight > own.weight:
        return True
    return theirs.weight == own.weight and theirs.label == own.label


def _negated(hits: list[Hit], words: Words, rules: Ruleset) -> Set[int]:
    """Which cues stand within reach of a negation in the same clause, and those joined to them."""
    found: set[int] = set()
    until = negation = -1
    tokens = words.tokens
    negations = [hit.start for hit in hits if hit.cue.kind == "negation"]
    for n, hit in enumerate(hits):
        start, end, cue = hit.start, hit.end, hit.cue
        if cue.kind == "negation":
            until, negation = end + cue.reach, start
            continue
        if cue.intent not in rules.negatable:
            continue
        last_start, last = parts_of(hit)[-1]
        within = bisect_right(negations, start) < bisect_left(negations, last_start)  # inside the gap
        if within or (start <= until and words.same_clause(negation, start)):
            found.add(n)
            if last < len(tokens) and tokens[last].key in _OR:
                until = max(until, last + 3)
    return found
