"""Transposed convolutions (TensorFlow's Conv2DBackpropInput)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..layout import NHWC, Laid
from ..program import Step
from ..trace import Trace
from .compute import convolve


def conv_transpose(trace: Trace, step: Step) -> Laid:
    """2-D transposed convolution with explicit pads, of any group.

    All that the kernel reaches is computed and then cut: `pads` and `output_padding` are no more than the choice of a window.
    TensorFlow's operator knows neither groups nor, on a CPU, dilations: such a layer is a convolution of the input with zeros
    between its elements, with the kernel turned round. Unequal strides are not left to float32 (see `compute`).

    Raises:
        UnsupportedError: 1-D or 3-D, `auto_pad`, negative pads, unknown height or width, or a kernel that is not a weight.
    """
    name = step.input(1)
    weight = trace.program.weights.get(name)
    if weight is None or len(weight.shape) != 4:
        raise step.refuse("a float initializer [in, out/groups, H, W] is expected as kernel", name)
    pads = tuple(step.get("pads", (0, 0, 0, 0)))
    if step.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in step.attributes or min(pads) < 0:
        raise step.refuse("explicit pads of 0 or more are expected (lower the model first)", step.attributes)
    x = trace.input(step, 0).to(NHWC)
    sizes = x.shape.as_list()[1:3]
    if None in sizes:
        raise step.refuse("a known height and width is expected", sizes)
    groups, strides, dilations = step.get("group", 1), step.get("strides", (1, 1)), step.get("dilations", (1, 1))
    dtype = tf.float64 if strides[0] != strides[1] else trace.dtype(step)
    x, kernel = tf.cast(x, dtype), tf.cast(trace.weight(name), dtype)
    if weight.form == "plain":
        kernel = tf.transpose(kernel, (2, 3, 1, 0))  # [H, W, out / groups, in]
    reach = [(length - 1) * dilation + 1 for length, dilation in zip(weight.shape[2:], dilations, strict=True)]
    full = [(size - 1) * stride + extent for size, stride, extent in zip(sizes, strides, reach, strict=True)]
    if groups == 1 and max(dilations) == 1:
        shape = tf.stack([tf.shape(x)[0], *full, weight.shape[1]])
        y = tf.nn.conv2d_transpose(x, kernel, shape, list(strides), "VALID")
    else:
        turned = tf.reverse(kernel, (0, 1))
        turned = tf.reshape(turned, (*turned.shape[:3], groups, weight.shape[0] // groups))
        turned = tf.reshape(tf.transpose(turned, (0, 1, 4, 3, 2)), (*turned.shape[:2], weight.shape[0] // groups, -1))
        y = convolve(_spread(x, sizes, strides, reach), turned, groups, (1, 1), dilations, "VALID")
    y = _window(y, full, pads, step.get("output_padding", (0, 0)))
    return Laid(tf.nn.bias_add(y, tf.cast(trace.input(step, 2).onnx, dtype)) if step.given(2) else y, NHWC)


def _spread(x: tf.Tensor, sizes: list[int], strides: Any, reach: list[int]) -> tf.Tensor:
    """Zeros between the elements, and as many around them as the kernel reaches beyond one."""
    (height, width), (down, right), channels = sizes, strides, x.shape[3]
    x = tf.pad(x[:, :, None, :, None], [(0, 0), (0, 0), (0, down - 1), (0, 0), (0, right - 1), (0, 0)])
    x = tf.reshape(x, (-1, height * down, width * right, channels))[:, : height * down - down + 1, : width * right - right + 1]
    return tf.pad(x, [(0, 0), (reach[0] - 1, reach[0] - 1), (reach[1] - 1, reach[1] - 1), (0, 0)])


def _window(y: tf.Tensor, full: list[int], pads: tuple[int, ...], beyond: Any) -> tf.Tensor:
    """What stays behind the cut, with zeros where it reaches further than the kernel."""
    ends = [length + more - cut for length, more, cut in zip(full, beyond, pads[2:], strict=True)]
    y = y[:, pads[0] : min(ends[0], full[0]), pads[1] : min(ends[1], full[1])]
    missing = [max(end - length, 0) for end, length in zip(ends, full, strict=True)]
    return tf.pad(y, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)]) if any(missing) else y
