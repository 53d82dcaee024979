"""The end of a layer in one pass over memory, forward and backward: `q2(relu(q1(x) + y))`; a single quantizer is the shortest one.

What a quantized training step costs more than a float one is passes over memory. Here the backward pass keeps nothing but `x` and
`y`: it computes the rest anew and reduces the gradients of the bias and of both thresholds on its way. Forward values are those of
the operators one by one, bit for bit; so are masks (T2), and sums (T3) up to the order in which they are formed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from . import native, tqt


@dataclass(frozen=True, slots=True)
class Rounding:
    """A quantizer of a trace.

    Attributes:
        exponent: of its scale, float32 scalar, from `tqt.scale_exponent`.
        bits: width.
        signed: two's complement or unsigned.
        limit: real upper bound (6.0 for relu6), or None.
    """

    exponent: tf.Tensor
    bits: int
    signed: bool
    limit: float | None = None

    @property
    def kind(self) -> tuple[int, bool, float | None]:
        """All but the scale."""
        return self.bits, self.signed, self.limit


def epilogue(
    x: tf.Tensor, second: Rounding, *, first: Rounding | None = None, addend: tf.Tensor | None = None, relu: bool = False
) -> tf.Tensor:
    """`q2(relu(q1(x) + addend))`, natively where that is possible; otherwise as an XLA program inside a traced function.

    Args:
        x: float32 tensor: a layer's sum, or an operand of an addition.
        second: the quantizer of the result, at most 16 bits.
        first: the quantizer of `x`, at most 16 bits and without a limit, or None.
        addend: float32, rounded already: [channels], where channels are the last axis of `x`, or of the shape of `x`; or None.
        relu: whether a relu stands in front of the second quantizer.

    Returns:
        Tensor of the shape of `x`. It has gradients by `x`, `addend` and both exponents: those of `composed`, summed in another
        order.
    """
    operators = native.operators()
    if operators is None:
        alone = first is None and addend is None and not relu  # XLA gains nothing there, and compiling takes its time
        if alone or tf.executing_eagerly():
            return composed(x, second, first=first, addend=addend, relu=relu)
        return _compiled(x, second, first, addend, relu)
    kind = "none" if addend is None else "channels" if _is_bias(addend, x) else "tensor"
    y: tf.Tensor = operators.tqt_onnx_epilogue(
        x=x,
        addend=np.zeros(0, np.float32) if addend is None else addend,
        first=np.float32(0) if first is None else first.exponent,
        second=second.exponent,
        limit=np.float64(np.inf if second.limit is None else second.limit),
        first_bits=0 if first is None else first.bits,
        first_signed=first is not None and first.signed,
        second_bits=second.bits,
        second_signed=second.signed,
        addend_kind=kind,
        relu=relu,
    )
    return y


def composed(
    x: tf.Tensor, second: Rounding, *, first: Rounding | None = None, addend: tf.Tensor | None = None, relu: bool = False
) -> tf.Tensor:
    """`epilogue` operator by operator: what it is compared with.

    Arguments as there, but `x` may be float64 and is then added to in float64, unless it was rounded before; what is added may be
    anything that broadcasts. The result is float32.
    """
    if first is not None:
        x = tf.cast(tqt.quantize_at(x, first.exponent, *first.kind), tf.float32)
    if addend is not None:
        dtype = tf.float64 if tf.float64 in (x.dtype, addend.dtype) else tf.float32
        x = tf.cast(x, dtype) + tf.cast(addend, dtype)
    return tf.cast(tqt.quantize_at(tf.nn.relu(x) if relu else x, second.exponent, *second.kind), tf.float32)


@tf.RegisterGradient("TqtOnnxEpilogue")  # type: ignore[untyped-decorator]
def _native_gradient(op: Any, gradient: tf.Tensor) -> list[tf.Tensor | None]:
    x, addend, first, second, limit = op.inputs
    names = ("first_bits", "first_signed", "second_bits", "second_signed", "addend_kind", "relu")
    attributes = {name: op.get_attr(name) for name in names}
    attributes["addend_kind"] = tf.compat.as_str(attributes["addend_kind"])
    operators = native.operators()
    assert operators is not None  # the forward operator is one of them
    return [*operators.tqt_onnx_epilogue_grad(gradient, x, addend, first, second, limit, **attributes), None]


def _is_bias(addend: tf.Tensor, x: tf.Tensor) -> bool:
    return bool(addend.shape.rank == 1 and x.shape.rank != 1)


def _compiled(x: tf.Tensor, second: Rounding, first: Rounding | None, addend: tf.Tensor | None, relu: bool) -> tf.Tensor:
    exponents = [rounding.exponent for rounding in (first, second) if rounding is not None]
    tensors = [x, *exponents, *([] if addend is None else [addend])]
    forward, backward = _xla(None if first is None else first.kind, second.kind, addend is not None, relu)

    def run(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        return forward(*tensors), lambda gradient: backward(gradient, *tensors)

    y: tf.Tensor = tf.custom_gradient(run)(*tensors)
    y.set_shape(x.shape)
    return y


@functools.cache
def _xla(
    first: tuple[int, bool, float | None] | None, second: tuple[int, bool, float | None], adds: bool, relu: bool
) -> tuple[Callable[..., tf.Tensor], Callable[..., list[tf.Tensor]]]:
    """Forward and backward as XLA programs; the second one computes the first anew."""

    def forward(*tensors: tf.Tensor) -> tf.Tensor:
        x, *exponents = tensors[:-1] if adds else tensors
        inner = None if first is None else Rounding(exponents[0], *first)
        return composed(x, Rounding(exponents[-1], *second), first=inner, addend=tensors[-1] if adds else None, relu=relu)

    def backward(gradient: tf.Tensor, *tensors: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = forward(*tensors)
        slopes: list[tf.Tensor] = tape.gradient(y, tensors, gradient)
        return slopes

    return tf.function(forward, autograph=False, jit_compile=True), tf.function(backward, autograph=False, jit_compile=True)
