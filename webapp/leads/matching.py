"""Which phrases of the rules a message holds: the token trie is walked from each token, the longest match wins; phrases
with gaps are put together from their parts; negations undo cues within their reach.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Set

from webapp.leads.ruleset import Ruleset
from webapp.leads.ruleset_trie import JOINS, Cue, Node, Step
from webapp.leads.words import Words

#: Token ranges.
Parts = tuple[tuple[int, int], ...]
#: A cue found: at the tokens ``start`` to ``end``, or of a phrase with gaps at its ``parts``, of which that is the first;
#: (start, end, cue, parts). Plain tuples, since a message has many and few are ever told of.
Hit = tuple[int, int, Cue, Parts]

_NONE: frozenset[int] = frozenset()
#: After these a negation goes on ("no demo or quote").
_OR = frozenset({"or", "nor", "hay", "hoặc", "hoac"})


def met(words: Words, rules: Ruleset) -> tuple[list[Hit], list[Hit], Set[int]]:
    """The cues from the left, the flags, and which of the cues a negation undoes, by index."""
    root = rules.english if words.lang == "en" else rules.bare if words.bare else rules.marked
    hits, flags = _scan(words, root, rules.gap)
    for hit in hits:
        if hit[2].kind == "negation":
            return hits, flags, _negated(hits, words, rules)
    return hits, flags, _NONE


def _scan(words: Words, root: Node, gap: int) -> tuple[list[Hit], list[Hit]]:
    """All cues and flags found, longest match first from the left; phrases with gaps on top of those."""
    keys = words.keys
    size = len(keys)
    hits: list[Hit] = []
    flags: list[Hit] = []
    gapped: list[Hit] = []
    chains: dict[int, Parts] = {}  # the phrases with gaps that have begun
    free = flag_free = 0
    for i, node in enumerate(map(root.next.get, keys)):
        if node is None:
            continue
        j = i + 1
        if not node.ends and j < size and keys[j] not in node.next:
            continue  # most go no further
        best = best_flags = None
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
                                if found:
                                    (flags if found[2].kind == "flag" else gapped).append(found)
                    for chain in node.opens:
                        chains[chain] = ((i, j),)
            if j == size:
                break
            node = node.next.get(keys[j])
            if node is None:
                break
            j += 1
        if best is not None:
            # "^" only anchors a cue: what begins at the word after it is as far left and must not be hidden.
            free = end if keys[i] != "^" else i
            for cue in best:
                hits.append((i, end, cue, ()))
        if best_flags is not None:
            flag_free = flag_end
            for cue in best_flags:
                flags.append((i, flag_end, cue, ()))
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
    return None if cue is None else (*parts[0], cue, parts)


def parts_of(hit: Hit) -> Parts:
    return hit[3] or ((hit[0], hit[1]),)


def _settle(hits: list[Hit], gapped: list[Hit]) -> list[Hit]:
    """Let each phrase with gaps replace the weaker cues whose words it uses, or give way to a stronger one."""
    owner: dict[int, list[Hit]] = {}
    for hit in hits:
        for i in range(hit[0], hit[1]):
            owner.setdefault(i, []).append(hit)
    dropped: set[int] = set()
    kept: list[Hit] = []
    for hit in sorted(gapped, key=lambda hit: -hit[2].weight):
        used = [i for part in hit[3] for i in range(*part)]
        rivals = [rival for i in used for rival in owner.get(i, ()) if id(rival) not in dropped]
        if any(_outranks(rival, hit) for rival in rivals):
            continue
        dropped.update(id(rival) for rival in rivals)
        kept.append(hit)
        for i in used:
            owner.setdefault(i, []).append(hit)
    return sorted((*(hit for hit in hits if id(hit) not in dropped), *kept), key=lambda hit: hit[:2])


def _outranks(rival: Hit, hit: Hit) -> bool:
    """Whether the phrase with gaps ``hit`` gives way: words that stand together are the better evidence."""
    theirs, own = rival[2], hit[2]
    if theirs.kind != "intent" or rival[3] or theirs.weight > own.weight:
        return True
    return theirs.weight == own.weight and theirs.label == own.label


def _negated(hits: list[Hit], words: Words, rules: Ruleset) -> Set[int]:
    """Which cues stand within reach of a negation in the same clause, and those joined to them."""
    found: set[int] = set()
    until = negation = -1
    keys = words.keys
    negations = [hit[0] for hit in hits if hit[2].kind == "negation"]
    for n, hit in enumerate(hits):
        start, end, cue, _ = hit
        if cue.kind == "negation":
            until, negation = end + cue.reach, start
            continue
        if cue.intent not in rules.negatable:
            continue
        last_start, last = parts_of(hit)[-1]
        within = bisect_right(negations, start) < bisect_left(negations, last_start)  # inside the gap
        if within or (start <= until and words.same_clause(negation, start)):
            found.add(n)
            if last < len(keys) and keys[last] in _OR:
                until = max(until, last + 3)
    return found
