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

from ..ir import constant, only_consumer, static_shape
from .affine_chain import place_behind
from .fold_batch_norm import batch_norm_affine
from .hoisting import hoist
from .layers import affine_of
from .rewriting import is_op, operand_pair, refuse, set_constant
from .sink_transposes import perm_of

logger = logging.getLogger(__name__)

_SMALL = ("Add", "Sub", "Mul", "Div")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
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
        layers = [node for node in model.graph if is_op(node, *_LAYERS) and place_behind(node.outputs[0]) is not None]
        return any([_hoist(model.graph, node.outputs[0]) for node in layers])  # noqa: C419 - each layer has its turn


def _hoist(graph: onnx_ir.Graph, value: onnx_ir.Value) -> bool:
    """One walk down the chain of factors, terms and movers behind a layer: what stands behind a mover goes up.

    The axes of the layer's output are followed on the way down, so that a chain costs as much as it is long.
    """
    top = value
    chain: list[tuple[onnx_ir.Node, bool, int]] = []
    places: list[int] = []
    axes: dict[int, int] = {}
    while (node := only_consumer(value)) is not None:
        if is_op(node, *_MOVERS) and node.inputs[0] is value and all(constant(operand) is not None for operand in node.inputs[1:]):
            if not chain:
                axes = {axis: axis for axis in range(len(top.shape or ()))}
            axes = _axes_behind(node, axes)
            chain.append((node, False, 0))
        elif is_op(node, "BatchNormalization", *_SMALL) and (position := _data(node, value)) is not None:
            if chain:
                axis = _place(node, value, position, axes)
                if axis is None or top.shape is None:
                    refuse(logger, node, "it is not per channel, or what moves breaks up the channels")
                    break
                places.append(axis)
                chain.append((node, True, position))
            else:
                top = node.outputs[0]
        else:
            break
        value = node.outputs[0]
    while chain and not chain[-1][1]:
        chain.pop()
    if not chain:
        return False
    hoist(graph, top, chain)
    for (node, _, position), axis in zip([entry for entry in chain if entry[1]], places, strict=True):
        _turn_constant(graph, node, position, len(top.shape or ()), axis)
    return True


def _data(node: onnx_ir.Node, value: onnx_ir.Value) -> int | None:
    """At which input a batch norm, factor or term reads `value`; None where it is something else."""
    if is_op(node, "BatchNormalization"):
        usable = node.inputs[0] is value and len(node.outputs) == 1 and batch_norm_affine(node) is not None
        return 0 if usable else None
    pair = operand_pair(node)
    return None if pair is None or node.inputs[pair[0]] is not value else pair[0]


def _place(node: onnx_ir.Node, source: onnx_ir.Value, position: int, axes: dict[int, int]) -> int | None:
    """The axis of the layer's output along which the constants of the node lie; any for scalars, None where there is none."""
    axis = _channel_axis(node, source, position)
    if axis is None or _is_scalar(node, position):
        return axis
    axis = axes.get(axis)
    return None if is_op(node, "BatchNormalization") and axis != 1 else axis


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


def _axes_behind(mover: onnx_ir.Node, axes: dict[int, int]) -> dict[int, int]:
    """Axis of the mover's output -> axis of the layer's output with the same channels, given that for its input."""
    before = None if mover.inputs[0] is None else static_shape(mover.inputs[0])
    after = static_shape(mover.outputs[0])
    if before is None or after is None:
        return {}
    found = {axis: _axis_before(mover, axis, before, after) for axis in range(len(after))}
    return {axis: axes[origin] for axis, origin in found.items() if origin is not None and origin in axes}


def _axis_before(mover: onnx_ir.Node, axis: int, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> int | None:
    """The axis of the mover's input that holds what `axis` of its output holds."""
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


def _turn_constant(graph: onnx_ir.Graph, node: onnx_ir.Node, position: int, rank: int, axis: int) -> None:
    """The constant of a factor or term, to broadcast along that axis of a tensor of that rank."""
    if is_op(node, "BatchNormalization"):
        return
    operand = node.inputs[1 - position]
    array = constant(operand)
    assert array is not None
    if array.size != 1 or array.ndim > rank:
        ones = (1,) * (rank - axis - 1) if array.size != 1 else ()
        set_constant(graph, node, 1 - position, np.ascontiguousarray(array.reshape(-1, *ones)), operand)
