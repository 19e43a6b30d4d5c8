"""The shipped ruleset's tries as they come out of compiling, kept as a file: reading it takes a twentieth of compiling, and
every process that judges does it at its start.

``rulesets/default.trie.json`` belongs to exactly one ``default.json``, whose digest it names; where the two do not fit, the
ruleset is compiled as any other. ``script/flask pack-rules`` writes it anew, and a test compares it with what compiling
gives.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from webapp.leads.ruleset_trie import JOINS, WHOLE, Cue, Node

PATH = Path(__file__).with_name("rulesets") / "default.trie.json"


#: What follows a node at which every phrase ends: nobody changes a node that was read (see ``ruleset_changes``).
_NOTHING: dict[str, Node] = {}


def digest(source: bytes) -> str:
    """Of a ruleset's JSON as it is written."""
    return hashlib.sha256(source).hexdigest()


def dump(roots: Sequence[Node], of: str) -> str:
    """The file's text. Nodes come after those that they lead to, each as
    ``[key, node, key, node, …], cues, flags, opens, steps`` by number."""
    nodes: list[list[Any]] = []
    numbers: dict[int, int] = {}
    cues: dict[Cue, int] = {}
    keys: dict[str, int] = {}

    def number(node: Node) -> int:
        if (known := numbers.get(id(node))) is not None:
            return known
        edges = [(keys.setdefault(key, len(keys)), number(following)) for key, following in node.next.items()]
        shape = [
            [one for edge in edges for one in edge],
            [cues.setdefault(cue, len(cues)) for cue in node.cues],
            [cues.setdefault(cue, len(cues)) for cue in node.flags],
            list(node.opens),
            [[before, after, cue and cues.setdefault(cue, len(cues))] for before, after, cue in node.steps],
        ]
        while shape and not shape[-1]:
            shape.pop()
        nodes.append(shape)
        numbers[id(node)] = len(nodes) - 1
        return len(nodes) - 1

    tops = [number(root) for root in roots]
    parts = {
        "of": of,
        "keys": list(keys),
        "cues": [[cue.kind, cue.label, cue.phrase, cue.weight, cue.reach, cue.narrowable] for cue in cues],
        "nodes": nodes,
        "roots": tops,
    }
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")) + "\n"


def load(of: str, path: Path = PATH) -> list[Node] | None:
    """The roots; None when the file is missing or belongs to another ruleset."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if parts["of"] != of:
        return None
    keys = [sys.intern(key) for key in parts["keys"]]
    cues = [Cue(*cue) for cue in parts["cues"]]
    nodes: list[Node] = []
    for edges, *rest in (shape or [[]] for shape in parts["nodes"]):
        own, flags, opens, steps = (*rest, (), (), (), ())[:4]
        numbers = iter(edges)
        nodes.append(
            Node(
                {keys[key]: nodes[following] for key, following in zip(numbers, numbers, strict=True)}
                if edges
                else _NOTHING,
                tuple(cues[i] for i in own),
                tuple(cues[i] for i in flags),
                tuple(opens),
                tuple((before, after, None if cue is None else cues[cue]) for before, after, cue in steps),
                (WHOLE if own or flags else 0) + (JOINS if opens or steps else 0),
            )
        )
    return [nodes[top] for top in parts["roots"]]
