"""Pooling windows over NHWC."""

from __future__ import annotations

import tensorflow as tf

from ..layout import NHWC, Laid
from ..program import Step
from ..trace import Trace
from .padding import padded


def max_pool(trace: Trace, step: Step) -> Laid:
    """Largest element of each window; what lies outside never wins.

    Raises:
        UnsupportedError: not 2-D, dilated, or `ceil_mode`.
    """
    x, kernel, strides = _window(trace, step)
    x, padding = padded(step, x, kernel, strides, (1, 1), value=x.dtype.min)
    return Laid(tf.nn.max_pool2d(x, kernel, strides, padding), NHWC)


def average_pool(trace: Trace, step: Step) -> Laid:
    """Mean of each window in float: an average pool that could not be lowered (L6).

    Raises:
        UnsupportedError: as `max_pool`.
    """
    x, kernel, strides = _window(trace, step)
    wide, padding = padded(step, x, kernel, strides, (1, 1))
    mean = tf.nn.avg_pool2d(wide, kernel, strides, padding)
    if wide is x and (padding == "VALID" or not step.get("count_include_pad", 0)):
        return Laid(mean, NHWC)  # TensorFlow divides by the elements inside
    if wide is x:  # SAME, but ONNX counts the outside
        inside = tf.nn.avg_pool2d(_valid(step, tf.ones_like(x[:1])), kernel, strides, "VALID")
        return Laid(mean * inside, NHWC)
    if step.get("count_include_pad", 0):
        return Laid(mean, NHWC)
    return Laid(mean / tf.nn.avg_pool2d(_valid(step, tf.ones_like(x[:1])), kernel, strides, "VALID"), NHWC)


def global_average_pool(trace: Trace, step: Step) -> Laid:
    """Mean over height and width."""
    x = trace.input(step, 0)
    axes = [x.axis(axis) for axis in range(2, x.rank)]
    return x.like(tf.reduce_mean(x.tensor, axes, keepdims=True))


def _window(trace: Trace, step: Step) -> tuple[tf.Tensor, list[int], list[int]]:
    kernel = list(step.get("kernel_shape", ()))
    if len(kernel) != 2 or step.get("ceil_mode", 0) or max(step.get("dilations", (1, 1))) > 1:
        raise step.refuse("a 2-D window without dilation and with ceil_mode=0 is expected", step.attributes)
    return trace.input(step, 0).to(NHWC), kernel, list(step.get("strides", (1, 1)))


def _valid(step: Step, x: tf.Tensor) -> tf.Tensor:
    top, left, bottom, right = step.get("pads", (0, 0, 0, 0))
    return tf.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
