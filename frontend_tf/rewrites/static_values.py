"""Tensors that do not depend on any input, computed by TensorFlow.

One level of operators at a time, each on the values of the level before it, so that the size of every result is known before
it is computed: a file of a few hundred bytes can ask for `Cast(Fill([60000, 100000]))`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import ModelError
from ..nodes import (
    Nodes,
    array_of,
    data_inputs,
    index_of,
    make_constant,
    make_node,
    node_of,
    output_types,
    tensor_name,
    tensor_shape,
)
from ..quiet import quiet
from .pure_ops import PURE

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

SMALLEST_BUDGET: Final = 64 * 2**20
"""Bytes that may be computed from any file, however small."""

_GROWTH: Final = 8
"""Weights stored with 8 bits take four times as much as float32, twice that with a step in between."""

_DEEPEST: Final = 256
"""Levels; what lies deeper is left alone. Predicates and decoders of weights have a handful."""

_SHAPE_LIKE: Final = 4096
"""Elements: smaller operands are written into the graph, where shape inference sees their values."""


def static_values(nodes: Nodes, tensors: Iterable[str], skip: Iterable[str] = ()) -> dict[str, Array]:
    """Values of those `tensors` that are computed from constants alone, by pure operators, and that are not too large.

    Args:
        nodes: the graph.
        tensors: names; each is computed once.
        skip: nodes that are fed from outside.
    """
    wanted = list(dict.fromkeys(tensors))
    evaluation = Evaluation(nodes, wanted, skip)
    found = {tensor: evaluation.value(tensor) for tensor in wanted}
    return {tensor: value for tensor, value in found.items() if value is not None}


def byte_budget(nodes: Nodes, names: Iterable[str]) -> int:
    """How much may be computed from the constants among `names`: in proportion to what the file holds."""
    held: int = sum(nodes[name].ByteSize() for name in names if nodes[name].op == "Const")
    return max(SMALLEST_BUDGET, _GROWTH * held)


def declared_bytes(node: Any) -> int:
    """Size of a Const once it is unpacked: a file can store one number for an array of any size."""
    proto = node.attr["value"].tensor
    shape = tensor_shape(proto.tensor_shape)
    count: int = math.prod(dim or 0 for dim in shape or ())
    return count * _item_size(proto.dtype)


def _item_size(kind: int) -> int:
    try:
        size = tf.dtypes.as_dtype(kind).size
    except TypeError:  # no such type
        return 1
    return int(size) if size else 1


class Evaluation:
    """What can be computed of a graph without running anything but `PURE` operators.

    Attributes:
        too_large: nodes that were not computed because of the size of their result -> that size in bytes.
    """

    def __init__(self, nodes: Nodes, tensors: Iterable[str], skip: Iterable[str] = ()) -> None:
        self.too_large: dict[str, int] = {}
        self._nodes = nodes
        self._values: dict[str, Array] = {}
        levels = _levels(nodes, tensors, set(skip))
        self._left = byte_budget(nodes, levels)
        by_level: dict[int, list[str]] = {}
        for name, level in levels.items():
            if level is not None and level > 0 and nodes[name].op != "Identity":
                by_level.setdefault(level, []).append(name)
        for level in sorted(by_level)[:_DEEPEST]:
            self._evaluate([name for name in by_level[level] if self._knows_operands(name)])
        self._levels = levels

    def value(self, tensor: str) -> Array | None:
        """The value of a tensor, where it was computed or is a Const."""
        tensor = self._past_identities(tensor)
        if self._levels.get(node_of(tensor)) is None:
            return None
        return self._known(tensor)

    def _known(self, tensor: str) -> Array | None:
        if tensor not in self._values and self._nodes[node_of(tensor)].op == "Const":
            node = self._nodes[node_of(tensor)]
            if declared_bytes(node) > max(self._left, SMALLEST_BUDGET):
                self.too_large[node.name] = declared_bytes(node)
                return None
            try:
                self._values[tensor] = array_of(node)
            except ModelError:  # the import of the whole says so by name, if it matters
                return None
        return self._values.get(tensor)

    def _past_identities(self, tensor: str) -> str:
        while self._nodes[node_of(tensor)].op == "Identity":
            tensor = data_inputs(self._nodes[node_of(tensor)])[0]
        return tensor_name(tensor)

    def _operands(self, name: str) -> list[str]:
        return [self._past_identities(tensor) for tensor in data_inputs(self._nodes[name])]

    def _knows_operands(self, name: str) -> bool:
        return all(self._known(tensor) is not None for tensor in self._operands(name))

    def _evaluate(self, names: Sequence[str]) -> None:
        """All together; one by one where that fails, so that one bad node harms itself alone."""
        if not names:
            return
        try:
            self._run(names)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            if len(names) == 1:
                logger.debug("%s is not computed: %s", names[0], error)
            else:
                for name in names:
                    self._evaluate([name])

    def _run(self, names: Sequence[str]) -> None:
        graph_def, feeds, places = tf.compat.v1.GraphDef(), {}, {}
        for index, tensor in enumerate(dict.fromkeys(tensor for name in names for tensor in self._operands(name))):
            value, place = self._values[tensor], f"operand_{index}"
            places[tensor] = place
            kind = (output_types(self._nodes[node_of(tensor)]) or [])[index_of(tensor)]
            if value.size <= _SHAPE_LIKE and not kind.is_quantized:  # those are plain integers in NumPy
                graph_def.node.append(make_constant(place, value))
            else:
                stand_in = make_node(place, "Placeholder", [], dtype=kind)
                stand_in.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
                graph_def.node.append(stand_in)
                feeds[f"{place}:0"] = value
        for index, name in enumerate(names):
            copy = graph_def.node.add()
            copy.CopyFrom(self._nodes[name])
            copy.name, copy.device = f"node_{index}", ""
            for key in [key for key in copy.attr if key.startswith("_")]:
                del copy.attr[key]
            del copy.input[:]
            copy.input.extend(places[tensor] for tensor in self._operands(name))
        graph = tf.Graph()
        with quiet(), graph.as_default():
            tf.import_graph_def(graph_def, name="")
            wanted: dict[str, Any] = {}
            for index, name in enumerate(names):
                outputs = graph.get_operation_by_name(f"node_{index}").outputs
                if self._affordable(name, outputs):
                    wanted.update((f"{name}:{position}", output) for position, output in enumerate(outputs))
            if wanted:
                with tf.compat.v1.Session(graph=graph) as session:
                    results = session.run(wanted, feed_dict=feeds)
                self._values.update((tensor, np.asarray(value)) for tensor, value in results.items())

    def _affordable(self, name: str, outputs: Sequence[Any]) -> bool:
        if any(not output.shape.is_fully_defined() or output.dtype == tf.string for output in outputs):
            return False
        size = sum(output.shape.num_elements() * output.dtype.size for output in outputs)
        if size > self._left:
            self.too_large[name] = size
            return False
        self._left -= size
        return True


def _levels(nodes: Nodes, tensors: Iterable[str], outside: set[str]) -> dict[str, int | None]:
    """For each node behind `tensors` how many pure operators lie behind it, 0 for a Const; None where something else does."""
    levels: dict[str, int | None] = {}
    begun: set[str] = set()
    pending = [node_of(tensor) for tensor in tensors]
    while pending:
        name = pending[-1]
        if name in levels:
            pending.pop()
            continue
        reads = [node_of(read) for read in data_inputs(nodes[name])]
        if not _is_pure(nodes[name]) or name in outside:
            levels[name] = None
            continue
        open_reads = [read for read in reads if read not in levels]
        if open_reads and name not in begun:
            begun.add(name)
            pending.extend(open_reads)
            continue
        below = [levels.get(read) for read in reads]  # what is still open here is a circle
        step = 0 if nodes[name].op in ("Const", "Identity") else 1
        levels[name] = None if None in below else step + max((level for level in below if level is not None), default=0)
        pending.pop()
    return levels


def _is_pure(node: Any) -> bool:
    if node.op == "Const":
        return not data_inputs(node)
    return node.op in PURE and bool(data_inputs(node))
