"""A per-channel factor or term moves in front of what only moves elements, up to the layer it belongs to.

    c = Conv(x, w)                                  c = Conv(x, w)
    s = Squeeze(c, {2})                 =>          m = Add(c, b')          b' as [C,1,1]
    y = Add(s, b)                                   y = Squeeze(m, {2})

Convolutions of sequences (Conv1D) and matrices over sequences (Dense on [n, L, K]) compute between such moves, with bias and
batch norm behind them: in front they can be folded. Reshape, Flatten, Squeeze, Unsqueeze and Transpose; several in a row.
Exact: elements only move, and each meets the same number as before.

    in row-major order the channel of an element is (index // elements behind the axis) % channels; a reshape keeps it
    where it keeps an axis of that length with as many elements behind it

Refused: a value in between with other readers or that is a graph output, an axis that a reshape breaks up, no layer with
constant weights at the top.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import constant, name_of, only_consumer, static_shape
from .affine_chain import data_position, place_behind
from .fold_batch_norm import batch_norm_affine
from .layers import affine_of
from .rewriting import is_op, operand_pair, refuse, set_constant
from .sink_transposes import perm_of

logger = logging.getLogger(__name__)

_SMALL = ("Add", "Sub", "Mul", "Div")
_MOVERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")


@dataclass(frozen=True)
class HoistAffines:
    """Moves batch norms and per-channel constants in front of reshapes and transposes behind a layer."""

    name: ClassVar[str] = "hoist-affines"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred.

        Raises:
            UnsupportedError: a BatchNormalization in training mode.
        """
        modified = False
        for node in list(model.graph):
            if is_op(node, "BatchNormalization", *_SMALL):
                modified |= _hoist(model.graph, node)
        return modified


def _hoist(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    norm = is_op(node, "BatchNormalization")
    if norm and (len(node.outputs) != 1 or batch_norm_affine(node) is None):
        return False
    if not norm and operand_pair(node) is None:
        return False
    position = data_position(node)
    source = node.inputs[position]
    movers = _movers(source)
    if source is None or not movers:
        return False
    top = movers[0].inputs[0]
    channels_axis = _channel_axis(node, source, position)
    if top is None or channels_axis is None or not _belongs_to_layer(top, movers[0]):
        return refuse(logger, node, "it is not per channel, or there is no layer in front of what moves")
    axis: int | None = channels_axis
    if not _is_scalar(node, position):
        for mover in reversed(movers):
            axis = None if axis is None else _axis_before(mover, axis)
    if axis is None or (norm and axis != 1):
        return refuse(logger, node, "what moves breaks up the channels")
    _move(graph, node, position, movers, top, axis)
    return True


def _movers(value: onnx_ir.Value | None) -> list[onnx_ir.Node]:
    """The nodes that only move elements behind each other and give `value`, in order; each is read by the next one only."""
    found: list[onnx_ir.Node] = []
    while value is not None and only_consumer(value) is not None:
        node = value.producer()
        if node is None or not is_op(node, *_MOVERS) or any(constant(operand) is None for operand in node.inputs[1:]):
            break
        found.append(node)
        value = node.inputs[0]
    return found[::-1]


def _belongs_to_layer(value: onnx_ir.Value, reader: onnx_ir.Node) -> bool:
    """Whether a layer gives `value`, itself or through factors and terms of its own, and nobody else sees it."""
    while only_consumer(value) is reader:
        if place_behind(value) is not None:
            return True
        node = value.producer()
        if node is None or not is_op(node, "BatchNormalization", *_SMALL):
            return False
        before = node.inputs[data_position(node)]
        if before is None or (operand_pair(node) is None and not is_op(node, "BatchNormalization")):
            return False
        value, reader = before, node
    return False


def _is_scalar(node: onnx_ir.Node, position: int) -> bool:
    array = None if is_op(node, "BatchNormalization") else constant(node.inputs[1 - position])
    return array is not None and array.size == 1


def _channel_axis(node: onnx_ir.Node, source: onnx_ir.Value, position: int) -> int | None:
    """The axis along which the constants of the node lie; any axis for scalars."""
    shape = static_shape(source)
    if shape is None:
        return None
    if is_op(node, "BatchNormalization"):
        return 1
    array = constant(node.inputs[1 - position])
    long = [] if array is None else [axis - array.ndim for axis, size in enumerate(array.shape) if size != 1]
    axis = long[0] + len(shape) if len(long) == 1 else len(shape) - 1 if array is not None and not long else None
    channels = None if axis is None or axis < 0 else shape[axis]
    if axis is None or channels is None or affine_of(node, len(shape), axis, channels) is None:
        return None
    return axis


def _axis_before(mover: onnx_ir.Node, axis: int) -> int | None:
    """The axis of the mover's input that holds what `axis` of its output holds."""
    before = None if mover.inputs[0] is None else static_shape(mover.inputs[0])
    after = static_shape(mover.outputs[0])
    if before is None or after is None:
        return None
    if is_op(mover, "Transpose"):
        perm = perm_of(mover)
        return None if perm is None else perm[axis]
    behind = _elements(after[axis + 1 :])
    for candidate, size in enumerate(before):
        if size is not None and size == after[axis] and behind is not None and _elements(before[candidate + 1 :]) == behind:
            return candidate
    return None


def _elements(shape: tuple[int | None, ...]) -> int | None:
    return None if None in shape else math.prod(dim for dim in shape if dim is not None)


def _move(
    graph: onnx_ir.Graph, node: onnx_ir.Node, position: int, movers: list[onnx_ir.Node], top: onnx_ir.Value, axis: int
) -> None:
    """Puts the node behind `top`; the last mover gives what the node gave, under its name (O3)."""
    moved, result = movers[-1].outputs[0], node.outputs[0]
    for index, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[index] = moved
    result.replace_all_uses_with(moved)
    node.replace_input_with(position, top)
    movers[0].replace_input_with(0, result)
    graph.remove(node)
    graph.insert_before(movers[0], node)
    moved_name, result_name = name_of(moved), name_of(result)
    result.name = f"{result_name}__hoisted"  # a name must be free before another value takes it
    moved.name, result.name = result_name, moved_name
    moved.shape, moved.type = result.shape, result.type  # what an output declares is the user's (O3)
    result.shape, result.type = top.shape, top.type
    if not is_op(node, "BatchNormalization"):
        operand = node.inputs[1 - position]
        array = constant(operand)
        assert array is not None and top.shape is not None
        if array.size != 1 or array.ndim > len(top.shape):
            ones = (1,) * (len(top.shape) - axis - 1) if array.size != 1 else ()
            set_constant(graph, node, 1 - position, np.ascontiguousarray(array.reshape(-1, *ones)), operand)
