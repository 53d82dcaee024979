"""Calls of functions -> their bodies, and so an If whose predicate is constant -> the branch that is taken.

    If(False, x; f, g)   ->   PartitionedCall(x; g)   ->   body of g

TensorFlow 2 writes `tf.cond` as an If. One whose predicate is computed from the data stays and is refused by name.
"""

from __future__ import annotations

from typing import Any, Final

from ...ir import UnsupportedError
from ..inline_calls import inline_calls
from ..nodes import data_inputs, node_of, readers_of
from .read_frozen import read_frozen
from .static_values import static_values
from .surgery import Surgery

_BRANCHES: Final = frozenset({"If", "StatelessIf"})
_CALL: Final = "PartitionedCall"
_MAX_DEPTH: Final = 64
"""Branches inside branches; more than any network nests."""


def inline_functions(surgery: Surgery) -> bool:
    """Inlines until no call is left and no If that can be decided."""
    changed = False
    for _ in range(_MAX_DEPTH):
        decided = _decide(surgery)
        graph_def, became = inline_calls(surgery.result(), surgery.where)
        if not decided and not became:
            return changed
        changed = True
        read = readers_of(surgery.nodes)
        ends = {node_of(now) for tensor, now in became.items() if node_of(tensor) in surgery.nodes and node_of(tensor) not in read}
        surgery.bypassed |= {node_of(now) for now in became.values()} - ends  # results that nobody reads are no ends
        surgery.take_over(graph_def, became)
        read_frozen(surgery)  # the next predicate may be a variable
    raise UnsupportedError(f"{surgery.where}: conditionals inside conditionals without end. Received: more than {_MAX_DEPTH}")


def _decide(surgery: Surgery) -> bool:
    """Makes calls of those Ifs whose predicate is known."""
    surgery.close()
    branching = {name: node for name, node in surgery.nodes.items() if node.op in _BRANCHES and name not in surgery.inputs}
    values = static_values(surgery.nodes, [data_inputs(node)[0] for node in branching.values()], surgery.inputs)
    found = False
    for node in branching.values():
        value = values.get(data_inputs(node)[0])
        if value is not None:
            taken = bool(value) if value.ndim == 0 else value.size > 0
            _call(node, "then_branch" if taken else "else_branch")
            found = True
    return found


def _call(node: Any, branch: str) -> None:
    function = type(node.attr[branch].func)()
    function.CopyFrom(node.attr[branch].func)
    kept = {key: type(node.attr[key])() for key in ("Tin", "Tout")}
    for key, attr in kept.items():
        attr.CopyFrom(node.attr[key])
    reads = data_inputs(node)[1:]
    node.attr.clear()
    node.op = _CALL
    node.attr["f"].func.CopyFrom(function)
    for key, attr in kept.items():
        node.attr[key].CopyFrom(attr)
    del node.input[:]
    node.input.extend(reads)
