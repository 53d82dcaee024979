"""Explicit ONNX pads as TensorFlow's SAME or VALID where they are that, else as a Pad in front."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ..program import Step


def padded(
    step: Step, x: tf.Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], value: float = 0.0
) -> tuple[tf.Tensor, str]:
    """An NHWC tensor and the padding mode with which a window operator gives what ONNX asks for.

    Unequal borders become a Pad in front: with TensorFlow 2.21 the operator's own explicit padding corrupted the heap of the
    process (seen: depthwise, 8 x 8 image, 3 x 3 kernel, strides 2, one row and column of padding on every side).

    Args:
        step: the operator, with its `pads`.
        x: NHWC tensor of known height and width.
        kernel: window size.
        strides: window steps.
        dilations: window dilations.
        value: what lies outside.

    Raises:
        UnsupportedError: `auto_pad`, or height or width unknown.
    """
    if step.get("auto_pad", "NOTSET") != "NOTSET":
        raise step.refuse("explicit pads are expected (lower the model first)", f"auto_pad={step.get('auto_pad', None)}")
    pads = tuple(step.get("pads", (0, 0, 0, 0)))
    if not any(pads):
        return x, "VALID"
    sizes = x.shape.as_list()[1:3]
    if None in sizes:
        raise step.refuse("a known height and width is expected", sizes)
    same = [same_pads(*axis) for axis in zip(sizes, kernel, strides, dilations, strict=True)]
    if [(pads[0], pads[2]), (pads[1], pads[3])] == same:
        return x, "SAME"
    if min(pads) < 0:
        raise step.refuse("pads of 0 or more are expected", pads)
    return tf.pad(x, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)], constant_values=value), "VALID"


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts in front and behind: the odd one goes behind."""
    windows = -(-size // stride)
    total = max((windows - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
