"""Operators that stay float: the network's tail and islands between quantized parts (L8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx
import tensorflow as tf

from ..layout import Laid
from ..program import Step
from ..trace import Trace


def softmax(trace: Trace, step: Step) -> Laid:
    """Softmax over one axis."""
    x = trace.input(step, 0)
    return x.like(tf.nn.softmax(x.tensor, x.axis(step.get("axis", -1))))


def log_softmax(trace: Trace, step: Step) -> Laid:
    """Logarithm of the Softmax over one axis."""
    x = trace.input(step, 0)
    return x.like(tf.nn.log_softmax(x.tensor, x.axis(step.get("axis", -1))))


def arg_max(trace: Trace, step: Step) -> Laid:
    """Where the largest element of an axis is, the first of several: int64.

    Raises:
        UnsupportedError: `select_last_index`.
    """
    return _position(trace, step, tf.argmax)


def arg_min(trace: Trace, step: Step) -> Laid:
    """Where the smallest element is, likewise."""
    return _position(trace, step, tf.argmin)


def top_k(trace: Trace, step: Step) -> tuple[Laid, Laid]:
    """The k largest (or smallest) elements of an axis in order, and where they are: int64; of equal ones the first comes first.

    Raises:
        UnsupportedError: k is computed.
    """
    x = trace.input(step, 0)
    axis = step.get("axis", -1) % x.rank
    perm = (*(other for other in x.perm if other != axis), axis)
    sign = 1.0 if step.get("largest", 1) else -1.0
    values, positions = tf.math.top_k(sign * x.to(perm), int(trace.constant(step, 1).item()))
    return Laid(sign * values, perm), Laid(tf.cast(positions, tf.int64), perm)


def reduce_mean(trace: Trace, step: Step) -> Laid:
    """Mean over constant axes."""
    return _reduced(trace, step, tf.reduce_mean)


def reduce_sum(trace: Trace, step: Step) -> Laid:
    """Sum over constant axes."""
    return _reduced(trace, step, tf.reduce_sum)


def reduce_max(trace: Trace, step: Step) -> Laid:
    """Largest element over constant axes."""
    return _reduced(trace, step, tf.reduce_max)


def reduce_sum_square(trace: Trace, step: Step) -> Laid:
    """Sum of squares over constant axes."""
    return _reduced(trace, step, lambda tensor, axes, keepdims: tf.reduce_sum(tf.square(tensor), axes, keepdims=keepdims))


def layer_normalization(trace: Trace, step: Step) -> Laid:
    """Normalization over the last axes, with scale and shift of their shape."""
    x = trace.input(step, 0)
    first = step.get("axis", -1) % x.rank
    scale, shift = (trace.input(step, index).expanded(x.rank).to(x.perm) if step.given(index) else None for index in (1, 2))
    return _normalized(x, range(first, x.rank), step.get("epsilon", 1e-5), scale, shift)


def instance_normalization(trace: Trace, step: Step) -> Laid:
    """Normalization over all axes behind the channels, with one scale and shift per channel."""
    x = trace.input(step, 0)
    shape = [1] * x.rank
    shape[x.axis(1)] = -1
    scale, shift = (tf.reshape(trace.input(step, index).onnx, shape) for index in (1, 2))
    return _normalized(x, range(2, x.rank), step.get("epsilon", 1e-5), scale, shift)


def _normalized(x: Laid, onnx_axes: Iterable[int], epsilon: float, scale: tf.Tensor | None, shift: tf.Tensor | None) -> Laid:
    mean, variance = tf.nn.moments(x.tensor, [x.axis(axis) for axis in onnx_axes], keepdims=True)
    scale, shift = (None if vector is None else tf.cast(vector, x.tensor.dtype) for vector in (scale, shift))
    return x.like(tf.nn.batch_normalization(x.tensor, mean, variance, shift, scale, epsilon))


def batch_normalization(trace: Trace, step: Step) -> Laid:
    """Inference batch normalization that nothing was there to fold into.

    Raises:
        UnsupportedError: training mode.
    """
    if step.get("training_mode", 0):
        raise step.refuse("training_mode=0 is expected", 1)
    x = trace.input(step, 0)
    shape = [1] * x.rank
    shape[x.axis(1)] = -1
    gamma, beta, mean, variance = (tf.reshape(trace.input(step, index).onnx, shape) for index in range(1, 5))
    return x.like((x.tensor - mean) * (gamma / tf.sqrt(variance + step.get("epsilon", 1e-5))) + beta)


def cast(trace: Trace, step: Step) -> Laid:
    """Cast to float32.

    Raises:
        UnsupportedError: to another type.
    """
    if step.get("to", 0) != onnx.TensorProto.FLOAT:
        raise step.refuse("a cast to float32 is expected", f"to={step.get('to', 0)}")
    x = trace.input(step, 0)
    return x.like(tf.cast(x.tensor, tf.float32))


def _reduced(trace: Trace, step: Step, function: Callable[..., tf.Tensor]) -> Laid:
    """Over the given axes, or all of them where none are given (unless `noop_with_empty_axes`); the layout of the others stays."""
    x = trace.input(step, 0)
    axes = sorted(int(axis) % x.rank for axis in trace.constant(step, 1)) if step.given(1) else []
    if not axes and step.get("noop_with_empty_axes", 0):
        return x
    axes = axes or list(range(x.rank))
    return _shrunk(x, function(x.tensor, [x.axis(axis) for axis in axes], keepdims=True), axes, step)


def _position(trace: Trace, step: Step, function: Callable[..., tf.Tensor]) -> Laid:
    if step.get("select_last_index", 0):
        raise step.refuse("select_last_index=0 is expected", 1)
    x = trace.input(step, 0)
    axis = step.get("axis", 0) % x.rank
    found = function(x.tensor, x.axis(axis), output_type=tf.int64)
    return _shrunk(x, tf.expand_dims(found, x.axis(axis)), [axis], step)


def _shrunk(x: Laid, reduced: tf.Tensor, axes: Sequence[int], step: Step) -> Laid:
    """What was computed along some axes of `x`, which have one element now, with `keepdims` or without."""
    if step.get("keepdims", 1):
        return x.like(reduced)
    kept = [axis for axis in x.perm if axis not in axes]
    return Laid(tf.squeeze(reduced, [x.axis(axis) for axis in axes]), tuple(sorted(kept).index(axis) for axis in kept))
