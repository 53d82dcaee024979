"""Operators that only move elements: they work on the layout where they can, on the data where they must."""

from __future__ import annotations

import numpy as np
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
    """Constant padding.

    Raises:
        UnsupportedError: another mode, or a negative pad.
    """
    x = trace.input(step, 0)
    mode = step.get("mode", "constant")
    pads = [int(length) for length in trace.constant(step, 1)]
    if mode != "constant" or min(pads, default=0) < 0:
        raise step.refuse("constant padding of 0 or more elements is expected", f"mode={mode}, pads={pads}")
    value = float(trace.constant(step, 2)) if step.given(2) else 0.0
    axes = [int(axis) % x.rank for axis in trace.constant(step, 3)] if step.given(3) else list(range(x.rank))
    amounts = [(0, 0)] * x.rank
    for index, axis in enumerate(axes):
        amounts[x.axis(axis)] = (pads[index], pads[index + len(axes)])
    return x.like(tf.pad(x.tensor, amounts, constant_values=tf.constant(value, x.tensor.dtype)))


def strided_slice(trace: Trace, step: Step) -> Laid:
    """Every n-th element from a start to an end; ONNX clamps them as TensorFlow and Python do."""
    x = trace.input(step, 0)
    starts, ends = ([_int32(number) for number in trace.constant(step, index)] for index in (1, 2))
    axes = [int(axis) for axis in trace.constant(step, 3)] if step.given(3) else list(range(len(starts)))
    steps = [_int32(number) for number in trace.constant(step, 4)] if step.given(4) else [1] * len(starts)
    index = [slice(None)] * x.rank
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        index[x.axis(axis)] = slice(start, end, stride)
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
