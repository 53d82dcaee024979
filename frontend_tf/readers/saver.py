"""What a graph's own Saver would put into which variable, read off its restore nodes; they are never run.

RestoreV2(file, names, slices) -> [Identity] -> Assign(variable) | AssignVariableOp(handle)

The name in the checkpoint is usually the variable's, but not always: a Saver for moving averages restores
`w/ExponentialMovingAverage` into `w`, parts of a partitioned variable are slices of one array, and TensorFlow 2 saves by
attribute paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..frozen import GraphDef
from ..nodes import Nodes, array_of, data_inputs, node_of

_RESTORES: Final = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
_CARRIERS: Final = frozenset({"Identity", "Reshape", "Cast"})
_ASSIGNS: Final = frozenset({"Assign", "AssignVariableOp"})
PASSING: Final = frozenset({"Identity", "Switch", "Enter"})
"""Operators through which a handle reaches its reader."""


@dataclass(frozen=True)
class Key:
    """Where a variable lies in a checkpoint.

    Attributes:
        name: of the array.
        part: the slice of it, as TensorFlow writes it (`10 4 0,5:0,4`: the array's shape, then start and length of each
            dimension, `-` for all of it); empty for all of the array.
    """

    name: str
    part: str = ""

    def cut(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The variable's part of the array.

        Raises:
            ValueError: `part` is not such a text.
        """
        if not self.part:
            return array
        bounds = self.part.split(" ")[-1].split(":")
        if len(bounds) != array.ndim:
            raise ValueError(f"slice {self.part!r}")
        slices = []
        for bound in bounds:
            start, _, length = bound.partition(",")
            slices.append(slice(None) if bound == "-" else slice(int(start), int(start) + int(length)))
        part: npt.NDArray[Any] = array[tuple(slices)]
        return part


def restore_keys(graph_def: GraphDef) -> dict[str, list[Key]]:
    """Variable node -> its places in a checkpoint, in the order of the restore nodes (a graph may have several Savers)."""
    nodes: Nodes = {node.name: node for node in graph_def.node}
    readers: dict[str, list[Any]] = {}
    for node in graph_def.node:
        for read in data_inputs(node):
            readers.setdefault(read.removesuffix(":0"), []).append(node)
    keys: dict[str, list[Key]] = {}
    for node in graph_def.node:
        if node.op in _RESTORES and len(node.input) >= 2:
            names, parts = _texts(nodes, node.input[1]), _texts(nodes, node.input[2]) if len(node.input) > 2 else []
            for index, name in enumerate(names):
                key = Key(name, parts[index] if index < len(parts) else "")
                for variable in _assigned(nodes, readers, node.name if index == 0 else f"{node.name}:{index}"):
                    keys.setdefault(variable, []).append(key)
    return keys


def _assigned(nodes: Nodes, readers: Mapping[str, list[Any]], tensor: str) -> Iterator[str]:
    """The variables that a restored tensor is assigned to."""
    pending = [tensor]
    while pending:
        value = pending.pop()
        for reader in readers.get(value, ()):
            if reader.op in _ASSIGNS and reader.input[1].removesuffix(":0") == value:
                yield variable_of(nodes, reader.input[0])
            elif reader.op in _CARRIERS and reader.input[0].removesuffix(":0") == value:
                pending.append(reader.name)


def without_restoring(graph_def: GraphDef) -> GraphDef:
    """The graph without what its Savers read from files: to whoever looks for the ends of a network they are dead ends like them.

    Returns:
        A copy without the restore nodes and all that is computed from them, and without control edges from those.
    """
    nodes: Nodes = {node.name: node for node in graph_def.node}
    readers: dict[str, list[str]] = {}
    for node in graph_def.node:
        for read in data_inputs(node):
            readers.setdefault(node_of(read), []).append(node.name)
    gone: set[str] = set()
    pending = [name for name, node in nodes.items() if node.op in _RESTORES]
    while pending:
        name = pending.pop()
        if name not in gone:
            gone.add(name)
            pending.extend(readers.get(name, ()))
    result = type(graph_def)()
    result.versions.CopyFrom(graph_def.versions)
    result.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name not in gone:
            copy = result.node.add()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(read for read in node.input if node_of(read) not in gone)
    return result


def variable_of(nodes: Nodes, tensor: str) -> str:
    """The node that a variable or a handle comes from, through `PASSING` operators."""
    name = node_of(tensor)
    for _ in range(len(nodes)):
        node = nodes.get(name)
        if node is None or node.op not in PASSING:
            break
        name = node_of(node.input[0])
    return name


def _texts(nodes: Nodes, tensor: str) -> list[str]:
    node = nodes.get(variable_of(nodes, tensor))
    if node is None or node.op != "Const":
        return []
    return [str(text, "utf-8", "replace") for text in np.ravel(array_of(node))]
