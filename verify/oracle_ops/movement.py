"""Operators that only move elements: they act alike on integers and on floats, and never round (L7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import DataError, ModelError, UnsupportedError, attribute, constant
from ..fixed_tensor import FixedPoint, aligned
from .operands import Op, Operand, optional
from .selection import beside

Array = npt.NDArray[Any]


def moving(move: Callable[[onnx_ir.Node, Array, Sequence[Operand | None]], Array]) -> Op:
    """The operator that applies `move(node, array, all inputs)` to the first input, keeping its exponent."""

    def op(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> Operand:
        x = inputs[0]
        if isinstance(x, FixedPoint):
            return FixedPoint(move(node, x.integers, inputs), x.exponent)
        assert x is not None
        return move(node, x, inputs)

    return op


def _numbers(operand: Operand | None, default: Sequence[int]) -> list[int]:
    """A constant list of ints (a shape, axes, pads)."""
    if operand is None or isinstance(operand, FixedPoint):
        return list(default)
    return [int(number) for number in operand.ravel()]


def _identity(_node: onnx_ir.Node, x: Array, _inputs: Sequence[Operand | None]) -> Array:
    return x


def _transpose(node: onnx_ir.Node, x: Array, _inputs: Sequence[Operand | None]) -> Array:
    return np.ascontiguousarray(x.transpose(attribute(node, "perm", tuple(reversed(range(x.ndim))))))


def _reshape(node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    wanted = _numbers(inputs[1], ())
    if not attribute(node, "allowzero", 0):
        wanted = [x.shape[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    if x.size == 0 and -1 in wanted:  # an empty batch, which leaves NumPy without a clue
        free = wanted.index(-1)
        known = [length for axis, length in enumerate(wanted) if axis not in {0, free}]
        wanted[free] = math.prod(x.shape[1:]) // math.prod(known) if free else 0
    try:
        return x.reshape(wanted)
    except ValueError:
        raise DataError(
            f"Reshape {node.name!r}: {list(x.shape)} cannot become {wanted}; a batch as large as the model was made for is expected"
        ) from None


def _flatten(node: onnx_ir.Node, x: Array, _inputs: Sequence[Operand | None]) -> Array:
    axis = attribute(node, "axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(_node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    axes = optional(inputs, 1)
    return np.squeeze(x) if axes is None else np.squeeze(x, tuple(_numbers(axes, ())))


def _unsqueeze(_node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    return np.expand_dims(x, tuple(_numbers(inputs[1], ())))


PAD_MODES = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}
"""Modes of Pad, and what NumPy calls them."""


def pad(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> Operand:
    """What surrounds the input: zeros, a number (on a grid that holds it and the input), or elements of the input itself."""
    x, mode = inputs[0], PAD_MODES[attribute(node, "mode", "constant")]
    number = optional(inputs, 2)
    fill = np.zeros(()) if number is None or isinstance(number, FixedPoint) or mode != "constant" else number.reshape(())
    if not isinstance(x, FixedPoint):
        assert x is not None
        return _padded(x, inputs, mode, fill.astype(x.dtype))
    if fill.dtype.kind in "iu" or not fill:  # integers: those of a tensor between its Q and DQ
        return FixedPoint(_padded(x.integers, inputs, mode, fill.astype(np.int64)), x.exponent)
    (integers, edge), exponent = beside(node, x, fill)
    return FixedPoint(_padded(integers, inputs, mode, edge), exponent)


def _padded(x: Array, inputs: Sequence[Operand | None], mode: str, fill: Array) -> Array:
    pads = _numbers(inputs[1], ())
    axes = [axis % x.ndim for axis in _numbers(optional(inputs, 3), range(x.ndim))]
    widths = {axis: (pads[index], pads[index + len(axes)]) for index, axis in enumerate(axes)}
    both = [widths.get(axis, (0, 0)) for axis in range(x.ndim)]
    cropped = x[tuple(slice(-min(a, 0), x.shape[axis] + min(b, 0)) for axis, (a, b) in enumerate(both))]  # negative pads crop
    amounts = [(max(a, 0), max(b, 0)) for a, b in both]
    if mode == "constant":
        return np.pad(cropped, amounts, constant_values=fill)
    if 0 in cropped.shape:  # an empty batch has no elements to repeat
        return np.zeros([length + a + b for length, (a, b) in zip(cropped.shape, amounts, strict=True)], cropped.dtype)
    return np.asarray(np.pad(cropped, amounts, mode=mode))  # type: ignore[call-overload]


MOST_ELEMENTS = 1 << 28
"""Elements of the largest tensor that is repeated: two gigabytes of int64."""


def _check_size(node: onnx_ir.Node, x: Array, repeats: Sequence[int]) -> None:
    """Refuses what memory would not hold, before any is asked for."""
    if x.size * math.prod(repeats) > MOST_ELEMENTS:
        raise UnsupportedError(
            f"{node.op_type} {node.name!r}: a tensor of at most {MOST_ELEMENTS:,} elements is expected. "
            f"Received: {list(x.shape)} repeated {list(repeats)} times"
        )


def _tile(node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    repeats = _numbers(inputs[1], ())
    _check_size(node, x, repeats)
    return np.tile(x, repeats)


def _resize(node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    """Every element a whole number of times, one after the other."""
    scales = inputs[2]
    assert isinstance(scales, np.ndarray)
    _check_size(node, x, [int(times) for times in scales])
    for axis, times in enumerate(scales):
        x = x.repeat(int(times), axis)
    return x


def repeats_whole(node: onnx_ir.Node) -> bool:
    """Whether a Resize repeats every element a whole number of times: TensorFlow's `i // factor`, without interpolation."""
    scales = constant(node.inputs[2]) if len(node.inputs) == 3 else None
    form = [attribute(node, name, default) for name, default in _RESIZE_FORM]
    if form != ["nearest", "asymmetric", "floor", None] or scales is None or not scales.size:
        return False
    return bool((scales >= 1).all() and (scales == np.floor(scales)).all())


_RESIZE_FORM = (
    ("mode", "nearest"),
    ("coordinate_transformation_mode", "half_pixel"),
    ("nearest_mode", "round_prefer_floor"),
    ("axes", None),
)


def _slice(_node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    """ONNX clamps starts and ends as Python does, but for a start in front of the axis and a negative step: it is the first."""
    starts, ends = _numbers(inputs[1], ()), _numbers(inputs[2], ())
    axes = _numbers(optional(inputs, 3), range(len(starts)))
    steps = _numbers(optional(inputs, 4), (1,) * len(starts))
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(max(start, -x.shape[axis]) if step < 0 else start, end, step)
    return np.ascontiguousarray(x[tuple(index)])


def _gather(node: onnx_ir.Node, x: Array, inputs: Sequence[Operand | None]) -> Array:
    indices = inputs[1]
    assert isinstance(indices, np.ndarray)
    try:
        return np.take(x, indices, attribute(node, "axis", 0))
    except IndexError as error:
        raise ModelError(f"Gather {node.name!r}: {error}") from None


def _space_to_depth(node: onnx_ir.Node, x: Array, _inputs: Sequence[Operand | None]) -> Array:
    """`y[n, (i b + j) C + c, h, w] = x[n, c, h b + i, w b + j]`."""
    block = attribute(node, "blocksize", 1)
    images, channels, height, width = x.shape
    blocks = x.reshape(images, channels, height // block, block, width // block, block)
    moved = blocks.transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(moved).reshape(images, channels * block * block, height // block, width // block)


def _depth_to_space(node: onnx_ir.Node, x: Array, _inputs: Sequence[Operand | None]) -> Array:
    """The inverse; in mode CRD the channel counts slower than the position in the block."""
    block = attribute(node, "blocksize", 1)
    images, depth, height, width = x.shape
    channels = depth // block**2
    if attribute(node, "mode", "DCR") == "DCR":
        moved = x.reshape(images, block, block, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(images, channels, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return np.ascontiguousarray(moved).reshape(images, channels, height * block, width * block)


def concat(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> Operand:
    """Concatenation; inputs of several scales (none in our models, L5) meet on the finest."""
    axis = attribute(node, "axis", 0)
    fixed = [x for x in inputs if isinstance(x, FixedPoint)]
    if len(fixed) == len(inputs):
        integers, exponent = aligned(fixed, f"Concat {node.name!r}")
        return FixedPoint(np.concatenate(integers, axis), exponent)
    return np.concatenate([x.real() if isinstance(x, FixedPoint) else x for x in inputs if x is not None], axis)


MOVEMENT: dict[str, Op] = {
    "Concat": concat,
    "DepthToSpace": moving(_depth_to_space),
    "Flatten": moving(_flatten),
    "Gather": moving(_gather),
    "Identity": moving(_identity),
    "Pad": pad,
    "Reshape": moving(_reshape),
    "Resize": moving(_resize),
    "Slice": moving(_slice),
    "SpaceToDepth": moving(_space_to_depth),
    "Squeeze": moving(_squeeze),
    "Tile": moving(_tile),
    "Transpose": moving(_transpose),
    "Unsqueeze": moving(_unsqueeze),
}
