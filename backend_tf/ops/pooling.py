"""Pooling windows over NHWC."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import tensorflow as tf

from ..layout import NHWC, Laid
from ..program import Step
from ..trace import Trace
from .padding import padded


def max_pool(trace: Trace, step: Step) -> Laid:
    """Largest element of each window; what lies outside never wins.

    Raises:
        UnsupportedError: not 2-D, `ceil_mode`, somebody reads where the maxima are, or dilated and of unknown height or width.
    """
    x, kernel, strides, dilations = _window(trace, step)
    if len(step.outputs) > 1:
        raise step.refuse("maxima alone are expected, not where they are", step.outputs)
    wide, padding = padded(step, x, kernel, strides, dilations, value=x.dtype.min)
    if max(dilations) == 1:
        return Laid(tf.nn.max_pool2d(wide, kernel, strides, padding), NHWC)
    wide = _valid(step, x, x.dtype.min) if padding == "SAME" else wide
    return Laid(_dilated_max(step, wide, kernel, strides, dilations), NHWC)


def _dilated_max(step: Step, x: tf.Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> tf.Tensor:
    """The maximum of what each tap meets; TensorFlow's own pooling has dilations only without strides."""
    if None in x.shape[1:3]:
        raise step.refuse("a known height and width is expected", x.shape)
    taps = []
    for size, taken, stride, dilation in zip(x.shape[1:3], kernel, strides, dilations, strict=True):
        reach = max((size - (taken - 1) * dilation - 1) // stride * stride + 1, 0)
        taps.append([slice(tap * dilation, tap * dilation + reach, stride) for tap in range(taken)])
    return functools.reduce(tf.maximum, (x[:, rows, columns] for rows, columns in itertools.product(*taps)))


def average_pool(trace: Trace, step: Step) -> Laid:
    """Mean of each window in float: an average pool that could not be lowered (L6).

    Raises:
        UnsupportedError: not 2-D, `ceil_mode`, or dilated.
    """
    x, kernel, strides, dilations = _window(trace, step)
    if max(dilations) > 1:
        raise step.refuse("a window without dilation is expected", step.attributes)
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


def _window(trace: Trace, step: Step) -> tuple[tf.Tensor, list[int], list[int], list[int]]:
    kernel = list(step.get("kernel_shape", ()))
    if len(kernel) != 2 or step.get("ceil_mode", 0):
        raise step.refuse("a 2-D window with ceil_mode=0 is expected", step.attributes)
    return trace.input(step, 0).to(NHWC), kernel, list(step.get("strides", (1, 1))), list(step.get("dilations", (1, 1)))


def _valid(step: Step, x: tf.Tensor, value: float = 0.0) -> tf.Tensor:
    top, left, bottom, right = step.get("pads", (0, 0, 0, 0))
    return tf.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], constant_values=value)
