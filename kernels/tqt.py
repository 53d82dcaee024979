"""The quantizer with a trained threshold (TQT) for TensorFlow: forward as numerics Q, backward as numerics T.

Source: "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep Neural Networks",
arXiv 1903.08066, sections 3.3 and 3.4. Forward values are bit-identical to `fixed_point.fake_quantize`, eagerly, in a graph and
where `epilogue` compiles them with XLA.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .fixed_point import bounds

MIN_EXPONENT = -126 + 24
MAX_EXPONENT = 127 - 24
"""Scales outside `2^MIN_EXPONENT .. 2^MAX_EXPONENT` are refused (Q5); here, where nothing can be raised, they give NaN."""


def scale_exponent(log2_t: tf.Tensor, bits: int, signed: bool) -> tf.Tensor:
    """Exponent `e` of the scale of a threshold, whose derivative by `log2_t` is 1 (T1).

    Args:
        log2_t: float32 scalar, binary logarithm of the real threshold.
        bits: width, 2 to 16.
        signed: two's complement or unsigned.

    Returns:
        Float32 scalar that holds an integer: `ceil(log2_t) - (bits - 1)` signed, `ceil(log2_t) - bits` unsigned (Q4).
    """
    return _ceil(tf.convert_to_tensor(log2_t)) - float(bits - int(signed))


def quantize_at(x: tf.Tensor, exponent: tf.Tensor, bits: int, signed: bool, limit: float | None = None) -> tf.Tensor:
    r"""Quantizes `x` on the power-of-two grid of a trainable threshold.

    Forward, with `s = 2^e` and the integer bounds `n, p` of the type (Q1 to Q5):

        r = round_half_even(x / s)
        q = s * min(max(r, n), p')        p' = p, or min(p, round_half_even(limit / s)) where there is a limit (L2)

    Gradient (T1 to T3), summed over the tensor, with no 1/N and no clipping; the mask is on the rounded value, inclusive:

        dq/dx = 1 if n <= r <= p' else 0
        dq/de = s ln2 * { r - x/s           if n <= r <= p'
                        { n                 if r < n
                        { p                 if r > p' and p' = p
                        { p' - limit/s      if r > p' and p' < p

    The last line is the derivative of `q(min(x, limit))`: above the limit the input is the constant `limit`, whose only
    dependence on the threshold is its own rounding error. It is 0 whenever the limit lies on the grid: `s * p'` then stays `limit`
    while `s` moves.

    A shared threshold is one `log2_t` behind several calls; their gradients add up (T5). A threshold under `tf.stop_gradient`,
    or one that is not a trainable variable, gets none (T4). A bias on the grid of its layer's products, `s = s_x * s_w` (L11), has
    the sum of two exponents and no threshold of its own: its gradient goes to both thresholds that the scale derives from (T5).

    Args:
        x: float32 or float64 tensor of any shape; float64 where integers beyond 2^24 must stay exact. Infinities saturate; a NaN
            stays NaN.
        exponent: `e`, a float32 scalar that holds an integer, from `scale_exponent` or a sum of two. NaN, or a scale outside Q5,
            turns the whole result into NaN.
        bits: width, 2 to 16 (32 for a bias).
        signed: two's complement or unsigned.
        limit: real upper bound (6.0 for relu6), or None.

    Returns:
        Tensor of the shape and dtype of `x`; -0.0 never occurs.

    Raises:
        ValueError: more than 24 bits in float32, which does not hold them.
    """
    x = tf.convert_to_tensor(x)
    if bits > 24 and x.dtype != tf.float64:
        raise ValueError(f"more than 24 bits need float64. Received: {bits} bits, {x.dtype.name}")
    quantized: tf.Tensor = _traced(bits, signed, limit, x.dtype)(x, exponent)
    quantized.set_shape(x.shape)
    return quantized


def integers_of(quantized: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """The int32 integers behind a tensor that `quantize_at` returned (float64 for those beyond 2^24)."""
    integers: tf.Tensor = _traced_integers(quantized.dtype)(quantized, exponent)
    integers.set_shape(quantized.shape)
    return integers


@functools.cache
def _traced_integers(dtype: tf.DType) -> Callable[..., tf.Tensor]:
    """One traced function for tensors of every shape, as for the quantizers: a tap is one operator of its network's trace."""

    def integers(quantized: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
        return tf.cast(quantized * _scales(exponent, dtype)[1], tf.int32)

    return _once(integers, dtype)


@functools.cache
def _traced(bits: int, signed: bool, limit: float | None, dtype: tf.DType) -> Callable[..., tf.Tensor]:
    """One traced function per kind of quantizer, for tensors of every shape: a deep network traces in a fraction of the time."""

    def fake_quantize(x: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
        return _quantize(x, exponent, bits, signed, limit)

    return _once(fake_quantize, dtype)


def _once(function: Callable[..., tf.Tensor], dtype: tf.DType) -> Callable[..., tf.Tensor]:
    """The function of a tensor of any shape and an exponent, traced here and now.

    TensorFlow takes the kinds of quantizers, which have their Python code in common, for one function that is traced again and
    again, and warns of it; not so of functions that are traced before they are called.
    """
    signature = [tf.TensorSpec(None, dtype), tf.TensorSpec([], tf.float32)]
    with tf.init_scope():
        traced: Callable[..., tf.Tensor] = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return traced


def _quantize(x: tf.Tensor, exponent: tf.Tensor, bits: int, signed: bool, limit: float | None) -> tf.Tensor:
    lowest, highest = (tf.constant(bound, x.dtype) for bound in bounds(bits, signed))

    def clip(values: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
        return tf.maximum(tf.minimum(values, high), low)  # NaN stays NaN

    def forward(x: tf.Tensor, exponent: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        scale, inverse, guard = _scales(exponent, x.dtype)
        upper, excess = _upper(inverse, highest, limit)

        def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Masks are factors, as tf.where takes several times as long on a CPU; far outside, x/s is made finite for their sake.
            scaled = clip(x * inverse, lowest - 1, highest + 1)
            rounded = tf.round(scaled)
            integers = clip(rounded, lowest, upper)
            inside = tf.cast(tf.equal(rounded, integers), x.dtype)
            step = integers - scaled * inside
            if limit is not None:
                step -= excess * tf.cast(rounded > upper, x.dtype)
            total = tf.reduce_sum(gradient * step) * (scale * math.log(2.0))
            return gradient * inside, tf.cast(total, tf.float32)  # T2, T3

        scaled = x * inverse  # exact: a power of two, and what underflows is far below one half (Q5)
        integers = clip(tf.round(scaled), lowest, upper)  # Q1 (tf.round takes halves to even), Q2
        # The guard is 0 or NaN. Adding it turns -0.0 into 0.0, as in the specification, where values pass through integers.
        return integers * scale + guard, backward

    return tf.custom_gradient(forward)(x, exponent)


def _upper(inverse: tf.Tensor, highest: tf.Tensor, limit: float | None) -> tuple[tf.Tensor, tf.Tensor]:
    """The bound `p'` and what T3 subtracts above it: `limit / s` where the limit is the bound, 0 where the type is."""
    if limit is None:
        return highest, tf.zeros([], highest.dtype)
    steps = tf.cast(inverse, tf.float64) * limit
    top = tf.cast(highest, tf.float64)
    binds = tf.round(steps) < top
    upper = tf.where(binds, tf.round(steps), top)
    return tf.cast(upper, highest.dtype), tf.cast(tf.where(binds, steps, tf.zeros([], tf.float64)), highest.dtype)


def _scales(exponent: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`2^e`, `2^-e`, and 0 (NaN where the exponent is NaN or leaves Q5); from the bits of float32, as `pow` is not exact (Q4)."""
    legal = (exponent >= MIN_EXPONENT) & (exponent <= MAX_EXPONENT)  # False for NaN
    power = tf.cast(tf.where(legal, exponent, tf.zeros([], tf.float32)), tf.int32)
    guard = tf.where(legal, tf.zeros([], dtype), tf.constant(np.nan, dtype))

    def two_to(power: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.bitcast(tf.bitwise.left_shift(power + 127, 23), tf.float32), dtype)

    return two_to(power), two_to(-power), guard


def _ceil(x: tf.Tensor) -> tf.Tensor:
    """`ceil` whose gradient is that of the identity (T1)."""

    def forward(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[Any], Any]]:
        return tf.math.ceil(x), lambda gradient: gradient

    return tf.custom_gradient(forward)(x)
