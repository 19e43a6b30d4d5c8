"""The trie over tokens that a ruleset is compiled into: what :mod:`webapp.leads.verdict` walks."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cue:
    """One phrase of the ruleset. ``kind``: ``intent`` | ``mask`` | ``negation`` | ``flag``."""

    kind: str
    label: str
    phrase: str
    weight: float = 0.0
    reach: int = 0
    narrowable: bool = False


@dataclass(slots=True)
class Node:
    """A state of the token trie. ``opens`` and ``steps`` belong to phrases with gaps.

    ``opens``: chains whose first part ends here. ``steps``: (chain so far, next chain or None, finished cue).
    ``ends``: something may end here; False where phrases only go on, which is most of the trie.
    """

    next: dict[str, "Node"] = field(default_factory=dict)
    cues: tuple[Cue, ...] = ()
    flags: tuple[Cue, ...] = ()
    opens: tuple[int, ...] = ()
    steps: tuple[tuple[int, int | None, Cue | None], ...] = ()
    ends: bool = False


def shared(*roots: Node) -> list[Node]:
    """The same tries, in which what goes on alike is one node: most spellings of a phrase end alike, so this leaves a
    small part of the nodes."""
    known: dict[object, Node] = {}

    def one(node: Node) -> Node:
        following = {key: one(child) for key, child in node.next.items()}
        shape = (
            frozenset((key, id(child)) for key, child in following.items()),
            tuple(map(id, node.cues)),
            tuple(map(id, node.flags)),
            node.opens,
            node.steps,
        )
        same = known.get(shape)
        if same is None:
            same = known[shape] = Node(following, node.cues, node.flags, node.opens, node.steps, node.ends)
        return same

    return [one(root) for root in roots]
