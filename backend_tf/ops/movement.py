"""Operators that only move elements: they work on the layout where they can, on the data where they must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..layout import NHWC, Laid
from ..program import Step
from ..trace import Trace
from .elementwise import aligned


def identity(trace: Trace, step: Step) -> Laid:
    """The value itself, under another name."""
    return trace.input(step, 0)


def transpose(trace: Trace, step: Step) -> Laid:
    """Changes the permutation, moves no data."""
    x = trace.input(step, 0)
    return x.transposed(step.get("perm", tuple(reversed(range(x.rank)))))


def reshape(trace: Trace, step: Step) -> Laid:
    """Reshape to a constant shape; 0 keeps a dimension unless `allowzero`."""
    x = trace.input(step, 0).onnx
    shape = [int(length) for length in trace.constant(step, 1)]
    if not step.get("allowzero", 0) and 0 in shape:
        known, dynamic = x.shape.as_list(), tf.shape(x)
        lengths = [_kept(known[axis], dynamic[axis]) if length == 0 else length for axis, length in enumerate(shape)]
        return Laid.plain(tf.reshape(x, lengths))
    return Laid.plain(tf.reshape(x, shape))


def flatten(trace: Trace, step: Step) -> Laid:
    """Two dimensions: those before `axis` and the rest."""
    x = trace.input(step, 0).onnx
    axis = step.get("axis", 1) % (x.shape.rank + 1)
    known = x.shape.as_list()
    rest = known[axis:]
    return Laid.plain(
        tf.reshape(
            x, [-1, int(np.prod(rest))] if None not in rest and axis else [1, -1] if not axis else [int(np.prod(known[:axis])), -1]
        )
    )


def squeeze(trace: Trace, step: Step) -> Laid:
    """Drops axes of length one; the layout of the others stays."""
    x = trace.input(step, 0)
    lengths = x.tensor.shape.as_list()
    if step.given(1):
        axes = {int(axis) % x.rank for axis in trace.constant(step, 1)}
    else:
        axes = {x.perm[axis] for axis, length in enumerate(lengths) if length == 1}
    kept = [axis for axis in x.perm if axis not in axes]
    tensor = tf.squeeze(x.tensor, [x.axis(axis) for axis in axes]) if axes else x.tensor
    return Laid(tensor, tuple(sorted(kept).index(axis) for axis in kept))


def unsqueeze(trace: Trace, step: Step) -> Laid:
    """New axes of length one, in front of the tensor; the layout of the others stays."""
    x = trace.input(step, 0)
    added = trace.constant(step, 1)
    rank = x.rank + added.size
    axes = sorted(int(axis) % rank for axis in added)
    old = [axis for axis in range(rank) if axis not in axes]
    tensor = x.tensor
    for _ in axes:
        tensor = tf.expand_dims(tensor, 0)
    return Laid(tensor, (*axes, *(old[axis] for axis in x.perm)))


def pad(trace: Trace, step: Step) -> Laid:
    """A number, or elements of the value itself, around it; negative pads crop it first.

    Raises:
        UnsupportedError: an unknown mode, or elements around an axis of open length.
    """
    x = trace.input(step, 0)
    mode = step.get("mode", "constant")
    pads = [int(length) for length in trace.constant(step, 1)]
    if mode not in _BORDERS and mode != "constant":
        raise step.refuse(f"one of the modes constant, {', '.join(_BORDERS)} is expected", mode)
    value = float(trace.constant(step, 2)) if step.given(2) else 0.0
    axes = [int(axis) % x.rank for axis in trace.constant(step, 3)] if step.given(3) else list(range(x.rank))
    amounts = [(0, 0)] * x.rank
    for index, axis in enumerate(axes):
        amounts[x.axis(axis)] = (pads[index], pads[index + len(axes)])
    if min(pads, default=0) < 0:
        x = x.like(x.tensor[tuple(slice(max(-before, 0), min(behind, 0) or None) for before, behind in amounts)])
        amounts = [(max(before, 0), max(behind, 0)) for before, behind in amounts]
    if mode == "constant":
        return x.like(tf.pad(x.tensor, amounts, constant_values=tf.constant(value, x.tensor.dtype)))
    lengths = x.tensor.shape.as_list()
    if any(length is None for length, both in zip(lengths, amounts, strict=True) if any(both)):
        raise step.refuse("axes of known length are expected where elements surround them", lengths)
    if mode == "reflect" and all(max(both) < (length or 1) for length, both in zip(lengths, amounts, strict=True) if any(both)):
        return x.like(tf.pad(x.tensor, amounts, "REFLECT"))
    if mode == "edge" and all(max(both) <= min(length or 1, 1) for length, both in zip(lengths, amounts, strict=True)):
        return x.like(tf.pad(x.tensor, amounts, "SYMMETRIC"))  # of one element
    tensor = x.tensor
    for position, (before, after) in enumerate(amounts):
        if before or after:
            tensor = tf.gather(
                tensor, _BORDERS[mode](np.arange(-before, lengths[position] + after), lengths[position]), axis=position
            )
    return x.like(tensor)


def _reflected(positions: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """To and fro between the first and the last element."""
    period = max(2 * (length - 1), 1)
    turned = positions % period
    return np.minimum(turned, period - turned) if length > 1 else np.zeros_like(positions)


_BORDERS: dict[str, Callable[[npt.NDArray[np.int64], int], npt.NDArray[np.int64]]] = {
    "edge": lambda positions, length: np.clip(positions, 0, length - 1),
    "reflect": _reflected,
    "wrap": lambda positions, length: positions % length,
}
"""Which element stands at a position outside."""


def _interpolation(step: Step) -> dict[str, bool] | None:
    """What TensorFlow calls the coordinates of an interpolation; None where it has no such one."""
    coordinates = step.get("coordinate_transformation_mode", "half_pixel")
    known = {"half_pixel": {"half_pixel_centers": True}, "align_corners": {"align_corners": True}, "asymmetric": {}}
    if step.get("antialias", 0):
        return None
    if step.get("mode", "nearest") == "linear":
        return known.get(coordinates)
    keys = step.get("cubic_coeff_a", -0.75) == -0.5 and step.get("exclude_outside", 0)
    return known["half_pixel"] if step.get("mode", "nearest") == "cubic" and keys and coordinates == "half_pixel" else None


def tile(trace: Trace, step: Step) -> Laid:
    """The whole value several times along its axes."""
    x = trace.input(step, 0)
    repeats = trace.constant(step, 1)
    return x.like(tf.tile(x.tensor, [int(repeats[axis]) for axis in x.perm]))


def resize(trace: Trace, step: Step) -> Laid:
    """Every element of an image a whole number of times; interpolations, which stay float, as TensorFlow has them.

    Raises:
        UnsupportedError: other forms, or an image of unknown height or width.
    """
    x = trace.input(step, 0).to(NHWC)
    scales = trace.constant(step, 2)
    form = [step.get(name, None) for name in ("mode", "coordinate_transformation_mode", "nearest_mode")]
    sizes = x.shape.as_list()[1:3]
    if scales.shape == (4,) and (scales[:2] == 1).all() and None not in sizes and (options := _interpolation(step)) is not None:
        size = [int(length * float(scale)) for length, scale in zip(sizes, scales[2:], strict=True)]
        interpolate = tf.raw_ops.ResizeBilinear if form[0] == "linear" else tf.raw_ops.ResizeBicubic
        return Laid(interpolate(images=x, size=size, **options), NHWC)
    whole = scales.shape == (4,) and bool((scales == np.floor(scales)).all() and (scales >= 1).all() and (scales[:2] == 1).all())
    if form != ["nearest", "asymmetric", "floor"] or not whole or None in sizes:
        raise step.refuse("whole repetitions of an image of known size are expected (lower the model first)", step.attributes)
    target = [int(length * times) for length, times in zip(sizes, scales[2:], strict=True)]
    # (i + 1/2) / factor is never near a whole number, so TensorFlow's float32 arithmetic cannot miss it.
    return Laid(tf.raw_ops.ResizeNearestNeighbor(images=x, size=target, half_pixel_centers=True), NHWC)


def strided_slice(trace: Trace, step: Step) -> Laid:
    """Every n-th element from a start to an end, clamped as in TensorFlow; backwards, a start in front of the axis is the first."""
    x = trace.input(step, 0)
    starts, ends = ([_int32(number) for number in trace.constant(step, index)] for index in (1, 2))
    axes = [int(axis) for axis in trace.constant(step, 3)] if step.given(3) else list(range(len(starts)))
    steps = [_int32(number) for number in trace.constant(step, 4)] if step.given(4) else [1] * len(starts)
    index = [slice(None)] * x.rank
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        place = x.axis(axis)
        length = _kept(x.tensor.shape[place], tf.shape(x.tensor)[place])
        first = tf.maximum(start, -length) if stride < 0 and start < 0 else start
        index[place] = slice(first, end, stride)
    return x.like(x.tensor[tuple(index)])


def gather(trace: Trace, step: Step) -> Laid:
    """Elements at constant positions of one axis; a single position drops the axis.

    Raises:
        UnsupportedError: a position that counts from the end of an axis of open length, or is beyond its end.
    """
    x, indices = trace.input(step, 0), trace.constant(step, 1)
    axis = step.get("axis", 0) % x.rank
    length = x.tensor.shape[x.axis(axis)]
    if length is None and indices.min(initial=0) < 0:
        raise step.refuse("positions from 0 on are expected on an axis of open length", indices.tolist())
    if length is not None:
        if indices.size and not -length <= indices.min() <= indices.max() < length:
            raise step.refuse(f"positions on an axis of length {length} are expected", indices.tolist())
        indices = indices % max(length, 1)
    if indices.ndim == 1:
        return x.like(tf.gather(x.tensor, indices, axis=x.axis(axis)))
    return Laid.plain(tf.gather(x.onnx, indices, axis=axis))


def space_to_depth(trace: Trace, step: Step) -> Laid:
    """Blocks of an image become channels: TensorFlow's order is ONNX's."""
    x = trace.input(step, 0).to(NHWC)
    block = step.get("blocksize", 1)
    return Laid(tf.nn.space_to_depth(x, block) if block > 1 else x, NHWC)


def depth_to_space(trace: Trace, step: Step) -> Laid:
    """Channels become blocks of an image; where the channel counts slower (CRD), channels are brought in order first."""
    x = trace.input(step, 0).to(NHWC)
    block = step.get("blocksize", 1)
    if step.get("mode", "DCR") == "CRD":
        depth = x.shape[-1]
        order = np.arange(depth).reshape(depth // block**2, block**2).T.reshape(-1)
        x = tf.gather(x, order, axis=-1)
    return Laid(tf.nn.depth_to_space(x, block) if block > 1 else x, NHWC)


def concat(trace: Trace, step: Step) -> Laid:
    """Joins values along an axis, all in the layout of the first."""
    operands = aligned(trace, step)
    axis = operands[0].axis(step.get("axis", 0))
    return operands[0].like(tf.concat([operand.tensor for operand in operands], axis))


def _int32(number: np.integer) -> int:
    """The largest int64, which means "to the end" in ONNX, is the largest int32 in TensorFlow."""
    return max(min(int(number), np.iinfo(np.int32).max), -np.iinfo(np.int32).max)


def _kept(known: int | None, dynamic: tf.Tensor) -> int | tf.Tensor:
    return dynamic if known is None else known
