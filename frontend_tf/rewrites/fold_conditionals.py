"""Switch and Merge with a constant predicate -> the branch that is taken.

    Switch(x, False) -> f -> Merge        ->   x -> f'
                     -> t ->

TensorFlow 1 writes `tf.cond` like this: a Switch sends its tensor to one of its two outputs, the other one is dead, and so is
every node that reads a dead tensor *or waits for a dead node by a control edge*; a Merge hands on what is alive. This is the
one case in which a control edge means more than the order of side effects. What is dead goes. A Switch whose predicate
depends on the data stays and is refused by name.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..nodes import data_inputs, index_of, make_constant, node_of, readers_of
from .static_values import static_values
from .surgery import Surgery

_SWITCHES: Final = frozenset({"Switch", "RefSwitch"})
_MERGES: Final = frozenset({"Merge", "RefMerge"})


def fold_conditionals(surgery: Surgery) -> bool:
    """Removes dead nodes; each folded Switch and Merge hands on the tensor that is alive."""
    changed = False
    while True:  # the predicate of one conditional may come out of another
        surgery.close()
        predicates = {
            name: data_inputs(node)[1]
            for name, node in surgery.nodes.items()
            if node.op in _SWITCHES and name not in surgery.inputs and len(data_inputs(node)) == 2
        }
        values = static_values(surgery.nodes, predicates.values(), surgery.inputs)
        taken = {name: bool(np.all(values[tensor])) for name, tensor in predicates.items() if tensor in values}
        if not taken:
            return changed
        _fold(surgery, taken)
        changed = True


def _fold(surgery: Surgery, taken: dict[str, bool]) -> None:
    nodes = surgery.nodes
    dead = _dead(surgery, taken)
    for name, readers in readers_of(nodes).items():
        if all(reader in dead.nodes for reader in readers):
            surgery.bypassed.add(name)  # nobody reads it now, but it is no end of the network
    for name in taken:
        if name not in dead.nodes:
            surgery.bypassed.add(name)
            surgery.become(name, [data_inputs(nodes[name])[0]] * 2)
    for name, node in list(nodes.items()):
        if node.op not in _MERGES or name in dead.nodes:
            continue
        alive = [(index, tensor) for index, tensor in enumerate(data_inputs(node)) if not dead.has(tensor)]
        if len(alive) == 1 and len(alive) < len(data_inputs(node)):
            index, tensor = alive[0]
            which = make_constant(surgery.fresh(f"{name}/value_index"), np.int32(index))
            surgery.put(which)
            surgery.become(name, [tensor, which.name])
        elif len(alive) < len(data_inputs(node)):  # a data-dependent choice remains, which is refused later
            del node.input[:]
            node.input.extend(tensor for _, tensor in alive)
            node.attr["N"].i = len(alive)
    for name in dead.nodes:
        del nodes[name]
    for node in nodes.values():  # what waits for a dead node is dead, but for a Merge, which is none any more
        kept = [name for name in node.input if not (name.startswith("^") and node_of(name) in dead.nodes)]
        if len(kept) != len(node.input):
            del node.input[:]
            node.input.extend(kept)


class _Dead:
    """Nodes that are never run, and the dead outputs of switches that are."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.outputs: set[tuple[str, int]] = set()

    def has(self, tensor: str) -> bool:
        return node_of(tensor) in self.nodes or (node_of(tensor), index_of(tensor)) in self.outputs

    def kills(self, node: Any) -> bool:
        reads = data_inputs(node)
        if any(name.startswith("^") and node_of(name) in self.nodes for name in node.input):
            return True
        if node.op in _MERGES:
            return bool(reads) and all(self.has(tensor) for tensor in reads)
        return any(self.has(tensor) for tensor in reads)


def _dead(surgery: Surgery, taken: dict[str, bool]) -> _Dead:
    """Spreads from the outputs of the switches that are not taken; the user's inputs are alive whatever is behind them."""
    readers: dict[str, list[str]] = {}
    for name, node in surgery.nodes.items():
        for read in {node_of(tensor) for tensor in node.input}:
            readers.setdefault(read, []).append(name)
    dead = _Dead()
    dead.outputs = {(name, 0 if value else 1) for name, value in taken.items()}
    pending = [reader for name in taken for reader in readers.get(name, ())]
    while pending:
        name = pending.pop()
        if name not in dead.nodes and name not in surgery.inputs and dead.kills(surgery.nodes[name]):
            dead.nodes.add(name)
            pending.extend(readers.get(name, ()))
    return dead
