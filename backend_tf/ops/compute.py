"""Layers that multiply by weights and accumulate: Conv, Gemm, MatMul, in float64 where float32 would not be exact (X2)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..layout import NHWC, Laid
from ..program import Step
from ..trace import Trace
from .padding import padded


def conv(trace: Trace, step: Step) -> Laid:
    """2-D convolution of any group.

    Raises:
        UnsupportedError: 1-D or 3-D, channels that do not fit the groups, `auto_pad`, or a kernel that is not a weight.
    """
    name = step.input(1)
    weight = trace.program.weights.get(name)
    if weight is None or len(weight.shape) != 4:
        raise step.refuse("a float initializer [out, in/groups, H, W] is expected as kernel", name)
    groups = step.get("group", 1)
    strides, dilations = step.get("strides", (1, 1)), step.get("dilations", (1, 1))
    x = trace.input(step, 0).to(NHWC)
    dtype = tf.float64 if _distrusts_float32(x, weight.shape[2:], strides, dilations) else trace.dtype(step)
    x = tf.cast(x, dtype)
    if x.shape[-1] != weight.shape[1] * groups:
        raise step.refuse(f"{weight.shape[1] * groups} input channels are expected", x.shape[-1])
    kernel = tf.cast(trace.weight(name), dtype)
    if weight.form == "plain":  # read by other operators too
        kernel = tf.transpose(kernel, (2, 3, 1, 0))
    elif weight.form == "depthwise":
        kernel = tf.reshape(kernel, (*weight.shape[2:], 1, -1))
    x, padding = padded(step, x, weight.shape[2:], strides, dilations)
    y = convolve(x, kernel, groups, strides, dilations, padding)
    if step.given(2):
        y = tf.nn.bias_add(y, tf.cast(trace.input(step, 2).onnx, dtype))
    return Laid(y, NHWC)


def convolve(x: tf.Tensor, kernel: tf.Tensor, groups: int, strides: Any, dilations: Any, padding: str) -> tf.Tensor:
    """Convolution of NHWC with `[H, W, in / groups, out]`: whole, depthwise, or group by group, which TensorFlow's CPU lacks."""
    if groups == 1:
        return _full(x, kernel, strides, dilations, padding)
    if kernel.shape[2] == 1:
        depthwise = tf.reshape(kernel, (*kernel.shape[:2], groups, -1))
        return _depthwise(x, depthwise, strides, dilations, padding)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([_full(part, own, strides, dilations, padding) for part, own in parts], -1)


def _distrusts_float32(x: tf.Tensor, kernel: Any, strides: Any, dilations: Any) -> bool:
    """Whether TensorFlow's float32 kernel must be avoided; the float64 one is another implementation, and right.

    Both defects are those of the oneDNN kernels of TensorFlow 2.21 on CPU:

    - a kernel larger than the unpadded image crashes the process when the bias is added by the same kernel (seen: image
      2 x 4, kernel 3 x 1, strides 2, one row of padding);
    - unequal strides can give zeros where there is a sum (seen: one channel, image 2 x 3, kernel 1 x 2, strides 1 x 2).
    """
    sizes = x.shape.as_list()[1:3]
    overhangs = (
        size is not None and (length - 1) * dilation + 1 > size
        for size, length, dilation in zip(sizes, kernel, dilations, strict=True)
    )
    return strides[0] != strides[1] or any(overhangs)


def gemm(trace: Trace, step: Step) -> Laid:
    """Dense layer `x @ w + b`.

    Raises:
        UnsupportedError: scaled or transposed operands.
    """
    form = [step.get(name, default) for name, default in (("alpha", 1.0), ("beta", 1.0), ("transA", 0), ("transB", 0))]
    if form != [1.0, 1.0, 0, 0]:
        raise step.refuse("alpha = beta = 1 and no transposed operand is expected (lower the model first)", form)
    y = matmul(trace, step)
    return y.like(y.tensor + tf.cast(trace.input(step, 2).onnx, y.tensor.dtype)) if step.given(2) else y


def matmul(trace: Trace, step: Step) -> Laid:
    """Matrix product over the last axis."""
    dtype = trace.dtype(step)
    x, w = (tf.cast(trace.input(step, index).onnx, dtype) for index in (0, 1))
    if w.shape.rank == 2 and x.shape.rank > 2:
        return Laid.plain(tf.tensordot(x, w, 1))
    return Laid.plain(tf.matmul(x, w))


def _full(x: tf.Tensor, kernel: tf.Tensor, strides: Any, dilations: Any, padding: str) -> tf.Tensor:
    if x.dtype == tf.float64 and max(dilations) > 1:  # TensorFlow's gradient of that has no kernel on a CPU
        kernel, dilations = _spread(kernel, dilations), (1, 1)
    return tf.nn.conv2d(x, kernel, list(strides), padding, dilations=list(dilations))


def _spread(kernel: tf.Tensor, dilations: Any) -> tf.Tensor:
    """A kernel `[H, W, ...]` with zeros between its taps: the same sums without dilations."""
    height, width, *channels = kernel.shape
    gaps = [[0, 0], [0, dilations[0] - 1], [0, 0], [0, dilations[1] - 1], [0, 0], [0, 0]]
    wide = tf.pad(tf.reshape(kernel, (height, 1, width, 1, *channels)), gaps)
    wide = tf.reshape(wide, (height * dilations[0], width * dilations[1], *channels))
    return wide[: (height - 1) * dilations[0] + 1, : (width - 1) * dilations[1] + 1]


def _depthwise(x: tf.Tensor, kernel: tf.Tensor, strides: Any, dilations: Any, padding: str) -> tf.Tensor:
    """TensorFlow's depthwise kernels take equal strides, and dilations only without strides: the rest runs block-diagonal."""
    equal = strides[0] == strides[1]
    if equal and (max(dilations) == 1 or strides[0] == 1):
        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding, dilations=list(dilations))
    height, width, channels, multiplier = kernel.shape
    if padding == "VALID" and all(
        size is not None and (size - (kernel_size - 1) * dilation - 1) < stride
        for size, kernel_size, dilation, stride in zip(x.shape[1:3], (height, width), dilations, strides, strict=True)
    ):
        return tf.nn.depthwise_conv2d(*_cropped(x, kernel, dilations), [1, 1, 1, 1], "VALID", dilations=list(dilations))
    diagonal = kernel[:, :, :, None, :] * tf.eye(channels, dtype=kernel.dtype)[:, :, None]
    return _full(x, tf.reshape(diagonal, (height, width, channels, channels * multiplier)), strides, dilations, padding)


def _cropped(x: tf.Tensor, kernel: tf.Tensor, dilations: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The one window there is (a global pool, say): the stride does not matter."""
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel.shape[:2], dilations, strict=True)]
    return x[:, : extents[0], : extents[1]], kernel
