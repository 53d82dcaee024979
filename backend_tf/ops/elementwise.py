"""Elementwise operators: operands are brought into the layout of the first computed one of the highest rank."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from ..fusion import is_limit_of
from ..layout import Laid
from ..program import Step
from ..trace import Trace


def add(trace: Trace, step: Step) -> Laid:
    """Sum of two values, or of a value and a bias."""
    return _binary(trace, step, tf.add)


def subtract(trace: Trace, step: Step) -> Laid:
    """Difference."""
    return _binary(trace, step, tf.subtract)


def multiply(trace: Trace, step: Step) -> Laid:
    """Product, in float64 where float32 would not hold it (X2)."""
    dtype = trace.dtype(step)
    return _binary(trace, step, lambda a, b: tf.cast(a, dtype) * tf.cast(b, dtype) if dtype == tf.float64 else a * b)


def divide(trace: Trace, step: Step) -> Laid:
    """Quotient."""
    return _binary(trace, step, tf.divide)


def maximum(trace: Trace, step: Step) -> Laid:
    """Largest of one or more values."""
    return _binary(trace, step, tf.maximum)


def minimum(trace: Trace, step: Step) -> Laid:
    """Smallest of one or more values."""
    return _binary(trace, step, tf.minimum)


def parametric_relu(trace: Trace, step: Step) -> Laid:
    """`x` above zero, `slope * x` below: where it stays float."""
    return _binary(trace, step, lambda x, slope: tf.where(x >= 0, x, slope * x))


def relu(trace: Trace, step: Step) -> Laid:
    """`max(x, 0)`."""
    x = trace.input(step, 0)
    return x.like(tf.nn.relu(x.tensor))


def clip(trace: Trace, step: Step) -> Laid:
    """`min(max(x, low), high)`; where the quantizer behind it has just these bounds, it is the quantizer's business (L2)."""
    x = trace.input(step, 0)
    low, high = (float(trace.constant(step, index)) if step.given(index) else None for index in (1, 2))
    if is_limit_of(trace.quantizers.get(step.outputs[0]), low, high):
        return x
    y = x.tensor
    if low == 0.0 and trace.is_float:  # one pass each way, which TensorFlow moreover does together with a convolution and its bias
        if high == 6.0:
            return x.like(tf.nn.relu6(y))
        y = tf.nn.relu(y)
    elif low is not None:  # on a grid, where many values are just zero or the bound: both count as inside (T2)
        y = tf.maximum(y, tf.constant(low, y.dtype))
    return x.like(y if high is None else tf.minimum(y, tf.constant(high, y.dtype)))


def _binary(trace: Trace, step: Step, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Laid:
    operands = aligned(trace, step)
    return operands[0].like(functools.reduce(function, [operand.tensor for operand in operands]))


def aligned(trace: Trace, step: Step) -> list[Laid]:
    """The operands, broadcastable, in one layout and one dtype."""
    names = [step.input(index) for index in range(len(step.inputs))]
    operands = [trace.value(name) for name in names]
    rank = max(operand.rank for operand in operands)
    computed = [operand for name, operand in zip(names, operands, strict=True) if trace.is_computed(name) and operand.rank == rank]
    perm = computed[0].perm if computed else tuple(range(rank))
    tensors = [operand.expanded(rank).to(perm) for operand in operands]
    if any(tensor.dtype == tf.float64 for tensor in tensors):  # a wide layer's sum on its way to its quantizer (X2)
        tensors = [tf.cast(tensor, tf.float64) for tensor in tensors]
    return [Laid(tensor, perm) for tensor in tensors]
