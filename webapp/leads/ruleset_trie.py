"""The trie over tokens that a ruleset is compiled into: what :mod:`webapp.leads.verdict` walks."""

from dataclasses import dataclass, field
from typing import Final

from webapp.leads.states import Intent

_INTENTS = {intent.value: intent for intent in Intent}


@dataclass(frozen=True, slots=True)
class Cue:
    """One phrase of the ruleset. ``kind``: ``intent`` | ``mask`` | ``negation`` | ``flag``."""

    kind: str
    label: str
    phrase: str
    weight: float = 0.0
    reach: int = 0
    narrowable: bool = False
    # What follows from these, worked out once instead of in each message.
    intent: Intent | None = field(init=False, compare=False, repr=False)
    said: str = field(init=False, compare=False, repr=False)  # the same phrase for the same thing
    literal: bool = field(init=False, compare=False, repr=False)  # the phrase is the words that it meets

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "intent", _INTENTS.get(self.label) if self.kind == "intent" else None)
        put(self, "said", f"{self.label}\n{self.phrase}")
        put(self, "literal", self.phrase.isalpha())


#: Of a phrase with gaps: its chain so far, the next or None, the cue that is finished.
Step = tuple[int, int | None, Cue | None]
#: What ends at a node, added up.
WHOLE: Final = 1
JOINS: Final = 2


@dataclass(slots=True)
class Node:
    """A state of the token trie. ``opens`` and ``steps`` belong to phrases with gaps.

    ``opens``: chains whose first part ends here. ``steps``: (chain so far, next chain or None, finished cue).
    ``ends``: what may end here: ``WHOLE`` phrases, parts of such with gaps (``JOINS``), both or, in most of the trie, 0.
    """

    next: dict[str, "Node"] = field(default_factory=dict)
    cues: tuple[Cue, ...] = ()
    flags: tuple[Cue, ...] = ()
    opens: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    ends: int = 0


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
