"""Layers as TFLite's kernels have them: any strides and groups, nothing in float64, biases right behind the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import tensorflow as tf

from ..ir import UnsupportedError
from .layout import NHWC, Laid
from .ops import Op, movement
from .ops.padding import padded
from .program import Step
from .trace import Trace

if TYPE_CHECKING:
    from .tflite_trace import FakeQuantTrace


def conv(trace: Trace, step: Step) -> Laid:
    """2-D convolution: CONV_2D, or DEPTHWISE_CONV_2D where every group has one channel.

    These graphs are converted and never run, so the operators of TensorFlow may be used where its CPU kernels cannot (groups,
    unequal strides).
    """
    weight = trace.program.weights[step.input(1)]
    groups = step.get("group", 1)
    strides, dilations = list(step.get("strides", (1, 1))), list(step.get("dilations", (1, 1)))
    x, padding = padded(step, trace.input(step, 0).to(NHWC), weight.shape[2:], strides, dilations)
    options = {"strides": [1, *strides, 1], "padding": padding, "dilations": [1, *dilations, 1]}
    kernel = cast("FakeQuantTrace", trace).kernel
    if groups > 1 and weight.shape[1] == 1:
        y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel(step.input(1), "depthwise", groups), **options)
    else:
        y = tf.raw_ops.Conv2D(input=x, filter=kernel(step.input(1), "conv"), **options)
    return Laid(_biased(trace, step, y), NHWC)


def conv_transpose(trace: Trace, step: Step) -> Laid:
    """2-D transposed convolution: TRANSPOSE_CONV, whose padding is VALID or SAME.

    Raises:
        UnsupportedError: groups, dilations, or pads that are neither.
    """
    weight = trace.program.weights[step.input(1)]
    x = trace.input(step, 0).to(NHWC)
    strides, dilations = list(step.get("strides", (1, 1))), list(step.get("dilations", (1, 1)))
    pads, beyond = step.get("pads", (0, 0, 0, 0)), step.get("output_padding", (0, 0))
    if step.get("group", 1) != 1 or max(dilations) > 1:
        raise _refusal(step, "has neither groups nor dilations", f"group {step.get('group', 1)}, dilations {dilations}")
    sizes, modes = [], []
    for axis in range(2):
        length, kernel, stride = x.shape[1 + axis], weight.shape[2 + axis], strides[axis]
        size = (length - 1) * stride + kernel + beyond[axis] - pads[axis] - pads[axis + 2]
        cut = max((length - 1) * stride + kernel - size, 0) // 2
        same = -(-size // stride) == length and pads[axis] == cut
        valid = -(-(size - kernel + 1) // stride) == length and pads[axis] == 0
        sizes.append(size)
        modes.append({name for name, fits in (("SAME", same), ("VALID", valid)) if fits})
    common = sorted(modes[0] & modes[1])
    if not common:
        raise _refusal(step, "cuts as SAME or VALID do", f"pads {list(pads)}, output_padding {list(beyond)}, strides {strides}")
    kernel = cast("FakeQuantTrace", trace).kernel(step.input(1), "conv")
    shape = [x.shape[0], *sizes, weight.shape[1]]
    y = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=shape, filter=kernel, out_backprop=x, strides=[1, *strides, 1], padding=common[0]
    )
    return Laid(_biased(trace, step, y), NHWC)


def _refusal(step: Step, what: str, received: str) -> UnsupportedError:
    return UnsupportedError(f"target tflite: layer {step.name!r}: TFLite's TRANSPOSE_CONV {what}. Received: {received}")


def clip(trace: Trace, step: Step) -> Laid:
    """Bounds: those of a value that is rounded are kept behind its rounding."""
    x, output = trace.input(step, 0), step.outputs[0]
    low, high = (float(trace.constant(step, index)) if step.given(index) else None for index in (1, 2))
    if output in trace.quantizers:
        cast("FakeQuantTrace", trace).bound(output, low, high)
        return x
    y = x.tensor if low is None else tf.maximum(x.tensor, low)
    return x.like(y if high is None else tf.minimum(y, high))


def pad(trace: Trace, step: Step) -> Laid:
    """A Pad; a number other than zero is put on the grid of the result, and so is the tensor in front of it."""
    value = float(trace.constant(step, 2)) if step.given(2) else 0.0
    quantizer = trace.quantizers.get(step.outputs[0])
    if step.get("mode", "constant") != "constant" or value == 0.0 or quantizer is None:
        return movement.pad(trace, step)
    x = trace.input(step, 0)
    exponent = quantizer.decided_exponent
    integer = min(max(round(value * 2.0**-exponent), quantizer.lower), quantizer.upper)
    lengths = [int(length) for length in trace.constant(step, 1)]
    axes = [int(axis) % x.rank for axis in trace.constant(step, 3)] if step.given(3) else list(range(x.rank))
    amounts = [(0, 0)] * x.rank
    for index, axis in enumerate(axes):
        amounts[x.axis(axis)] = (lengths[index], lengths[index + len(axes)])
    here = cast("FakeQuantTrace", trace).rescaled(step, x.tensor)
    here = here[tuple(slice(max(-before, 0), min(behind, 0) or None) for before, behind in amounts)]
    around = [(max(before, 0), max(behind, 0)) for before, behind in amounts]
    return x.like(tf.pad(here, around, constant_values=integer * 2.0**exponent))


def _biased(trace: Trace, step: Step, y: tf.Tensor) -> tf.Tensor:
    return tf.nn.bias_add(y, trace.input(step, 2).onnx) if step.given(2) else y


TFLITE_OPS: Final[dict[str, Op]] = {"Conv": conv, "ConvTranspose": conv_transpose, "Clip": clip, "Pad": pad}
"""What replaces rows of `ops.OPS`."""
