"""The executable specification against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tqt_onnx.kernels import fixed_point as fp

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=math.ldexp(1, -149), max_value=2.0**127, width=32)


def exact(x: Fraction, exponent: int, bits: int, signed: bool, upper: int | None = None) -> int:
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    highest = highest if upper is None else min(highest, upper)
    return max(lowest, min(highest, round(x / Fraction(2) ** exponent)))  # Python rounds halves to even


@pytest.mark.parametrize(("bits", "signed", "expected"), [(8, True, (-128, 127)), (8, False, (0, 255)), (2, True, (-2, 1))])
def test_bounds_are_full_range(bits: int, signed: bool, expected: tuple[int, int]) -> None:
    assert fp.bounds(bits, signed) == expected


@given(positive)
@example(float(np.nextafter(np.float32(2.0**-20), np.float32(1))))
@example(2.0**-20)
@example(2.0**-149)
@example(3.4028234663852886e38)
def test_ceil_log2_is_exact(t: float) -> None:
    k = fp.ceil_log2(t)
    assert Fraction(2) ** (k - 1) < Fraction(t) <= Fraction(2) ** k


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_ceil_log2_refuses_what_is_no_threshold(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and positive"):
        fp.ceil_log2(bad)


@given(positive)
@example(float(np.nextafter(np.float32(2.0**-20), np.float32(1))))
@example(math.nextafter(1.0, 2.0))
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(2.0**100, math.inf))
def test_log2_threshold_keeps_the_ceiling_and_is_a_float32(t: float) -> None:
    log2_t = fp.log2_threshold(t)
    assert math.ceil(log2_t) == fp.ceil_log2(t)
    assert np.float32(log2_t) == log2_t
    assert abs(log2_t - math.log2(t)) <= 2e-5  # one float32 step of a logarithm of up to 128


@pytest.mark.parametrize(("bits", "signed", "e"), [(8, True, -7), (8, False, -8), (16, True, -15)])
def test_exponent_for_reaches_the_threshold(bits: int, signed: bool, e: int) -> None:
    assert fp.exponent_for(0, bits, signed) == e


@given(floats, st.integers(-100, 100), st.integers(2, 16), st.booleans(), st.none() | st.integers(0, 300))
@example(0.5, 0, 8, True, None)
@example(-0.5, 0, 8, True, None)
@example(1.5, 0, 8, True, None)
@example(2.5, 0, 8, False, None)
@example(-128.5, 0, 8, True, None)
@example(127.5, 0, 8, True, None)
@example(6.0, -5, 8, False, 192)
def test_quantize_equals_rational_arithmetic(x: float, exponent: int, bits: int, signed: bool, upper: int | None) -> None:
    q = fp.quantize(np.array([x]), exponent, bits, signed, upper)
    assert q.dtype == np.int64
    assert q.tolist() == [exact(Fraction(x), exponent, bits, signed, upper)]


def test_quantize_edges() -> None:
    assert fp.quantize(np.array([np.inf, -np.inf, -0.0]), 0, 8, True).tolist() == [127, -128, 0]
    assert fp.quantize(np.zeros((0, 3), np.float32), 0, 8, True).shape == (0, 3)
    with pytest.raises(ValueError, match="NaN"):
        fp.quantize(np.array([1.0, np.nan]), 0, 8, True)


@given(floats, st.integers(-100, 100), st.integers(2, 16), st.booleans())
def test_fake_quantize_is_idempotent_and_float32(x: float, exponent: int, bits: int, signed: bool) -> None:
    once = fp.fake_quantize(np.array([x]), exponent, bits, signed)
    assert once.dtype == np.float32
    assert Fraction(float(once[0])) == exact(Fraction(x), exponent, bits, signed) * Fraction(2) ** exponent
    assert fp.fake_quantize(once, exponent, bits, signed).tobytes() == once.tobytes() or once[0] == 0


@given(st.integers(-(2**61), 2**61), st.integers(0, 80))
@example(1, 1)
@example(3, 1)
@example(-1, 1)
@example(-3, 1)
@example(2**61, 62)
def test_shift_half_even_is_a_rounded_division(integer: int, shift: int) -> None:
    assert fp.shift_half_even(np.array([integer]), shift).tolist() == [round(Fraction(integer, 2**shift))]


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-60, 20),
    st.integers(-60, 20),
    st.integers(2, 16),
    st.booleans(),
    st.none() | st.integers(0, 300),
)
@example(2**31 - 1, 20, -60, 16, True, None)
@example(-1, 20, -60, 16, False, None)
def test_requantize_equals_quantize(integer: int, exponent: int, new: int, bits: int, signed: bool, upper: int | None) -> None:
    value = Fraction(integer) * Fraction(2) ** exponent
    assert fp.requantize(np.array([integer]), exponent, new, bits, signed, upper).tolist() == [
        exact(value, new, bits, signed, upper)
    ]
