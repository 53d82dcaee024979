"""Decisions: weights (C1, Q7), max and mse (C2), against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tqt_onnx.kernels import fixed_point as fp
from tqt_onnx.kernels import thresholds
from tqt_onnx.kernels.histogram import PowerOfTwoHistogram, Range


def error(x: np.ndarray, log2_t: int, bits: int, signed: bool) -> float:
    x = x.astype(np.float64)
    q = fp.quantize(x, fp.exponent_for(log2_t, bits, signed), bits, signed) * 2.0 ** fp.exponent_for(log2_t, bits, signed)
    return float(((x - q) ** 2).sum())


def mse(x: np.ndarray, bits: int = 8, signed: bool = True) -> float:
    seen = PowerOfTwoHistogram()
    seen.update(np.asarray(x, np.float32))
    return thresholds.mse_log2(seen, bits, signed)


@pytest.mark.parametrize(
    ("w", "bits", "signed", "exponent"),
    [
        ([0.0, 0.0], 8, True, -7),  # Q6: the documented threshold 1
        ([0.3], 8, True, -8),
        ([0.25], 8, False, -9),  # Q7: 255/1024 against exactly 128/512
        ([0.25], 8, True, -8),  # Q7: 127/512 against exactly 64/256
        ([-0.25], 8, True, -9),  # -128/512 is exact: the tie goes to the smaller exponent
        ([1.0, 1 / 128, 3 / 128], 8, True, -7),  # the maximum loses 1/128, two others would lose as much
        ([-1.0, 0.5], 8, False, -8),  # unsigned looks at the positive part
        ([2.0**-149], 8, True, -155),
        ([3.4e38], 8, True, 121),
        ([1.0], 4, True, -2),
    ],
)
def test_weight_exponent(w: list[float], bits: int, signed: bool, exponent: int) -> None:
    assert thresholds.weight_exponent(np.array(w, np.float32), bits, signed) == exponent


def test_q7_tie_goes_to_the_smaller_exponent() -> None:
    # t=1: the maximum is off by one step s; t=2: one value of an odd multiple of s is off by s (half the doubled step)
    w = np.array([1.0, 1 / 128], np.float32)
    assert error(w, 0, 8, True) == error(w, 1, 8, True) > 0
    assert thresholds.weight_exponent(w, 8, True) == -7


@given(
    st.lists(st.floats(-4.0, 4.0, width=32), min_size=1, max_size=30).filter(lambda w: max(map(abs, w)) > 1e-3),
    st.sampled_from([2, 4, 8]),
    st.integers(-60, 60),
)
def test_weight_mse_is_the_best_power_of_two(numbers: list[float], bits: int, scale: int) -> None:
    w = np.ldexp(np.array(numbers, np.float64), scale).astype(np.float32)
    top = fp.ceil_log2(float(np.abs(w).max()))
    best = min((error(w, k, bits, True), k) for k in range(top - 10, top + 2))[1]
    assert thresholds.weight_mse_log2(w, bits, True) == best


def test_weight_mse_saturates_an_outlier() -> None:
    w = np.append(np.linspace(-0.12, 0.12, 5000), 1.05).astype(np.float32)
    assert thresholds.weight_log2(w, 4, True) > 0 > -2 >= thresholds.weight_mse_log2(w, 4, True)


@given(st.lists(st.integers(-512, 512), min_size=1, max_size=20), st.sampled_from([2, 4, 8]), st.booleans())
def test_q7_is_the_better_of_two(numerators: list[int], bits: int, signed: bool) -> None:
    w = np.array([*numerators, 512], np.float32) / 512
    best = min((error(w, k, bits, signed), k) for k in (0, 1))[1]
    assert thresholds.weight_exponent(w, bits, signed) == fp.exponent_for(best, bits, signed)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_degenerate_weights_raise(bad: float) -> None:
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        thresholds.weight_exponent(np.array([1.0, bad], np.float32), 8, True)


def test_training_start_is_mean_and_three_deviations() -> None:
    w = np.array([1.0, 3.0, -1.0, 5.0])
    assert 2.0 ** thresholds.weight_log2_for_training(w) == pytest.approx(2 + 3 * w.std(), rel=1e-6)
    assert thresholds.weight_log2_for_training(np.zeros(3)) == thresholds.ZERO_LOG2


@pytest.mark.parametrize(
    ("x", "signed", "ceiling"),
    [
        ([0.0], True, 0),
        ([4.0, -8.0], True, 3),
        ([4.0, -8.0], False, 2),
        ([-1.0], False, 0),
        ([4.0001], True, 3),
        ([1e-45], True, -149),
    ],
)
def test_max(x: list[float], signed: bool, ceiling: int) -> None:
    seen = Range()
    seen.update(np.array(x, np.float32))
    assert math.ceil(thresholds.max_log2(seen, signed)) == ceiling


@pytest.mark.parametrize(
    ("x", "bits", "signed", "log2_t"),
    [
        ([0.0], 8, True, 0.0),
        ([0.0] * 7, 8, False, 0.0),
        ([-3.0], 8, False, 0.0),  # nothing positive
        ([1.0], 8, True, 1.0),  # 127/128 against exactly 64/64
        ([-1.0], 8, True, 0.0),  # exact on the grid of t=1; a coarser one costs no less
        ([0.7] * 1000, 8, True, 0.0),
        ([3.4e38], 8, False, 129.0),  # 255.8 steps saturate at 255, 127.9 steps do not
        ([2.0**-149], 8, True, -149.0),
        ([1.0] + [0.9] * 9, 8, False, 1.0),  # only the maximum gains, the others lose nothing
    ],
)
def test_mse_edges(x: list[float], bits: int, signed: bool, log2_t: float) -> None:
    assert mse(np.array(x), bits, signed) == log2_t


@given(
    st.integers(0, 2**31),
    st.sampled_from(["normal", "laplace", "cauchy", "uniform", "relu", "bimodal"]),
    st.sampled_from([3, 4, 8]),
    st.booleans(),
    st.integers(-60, 60),
)
@example(0, "cauchy", 8, True, 0)
def test_mse_is_the_brute_force_decision(seed: int, kind: str, bits: int, signed: bool, scale: int) -> None:
    rng = np.random.default_rng(seed)
    n = 3000
    draws = {
        "normal": rng.standard_normal,
        "laplace": lambda size: rng.laplace(size=size),
        "cauchy": lambda size: np.clip(rng.standard_cauchy(size), -50, 50),
        "uniform": lambda size: rng.uniform(-1, 1, size),
        "relu": lambda size: np.maximum(rng.standard_normal(size), 0),
        "bimodal": lambda size: rng.choice([-2.0, 3.0], size) + 0.05 * rng.standard_normal(size),
    }
    x = np.ldexp(draws[kind](n), scale).astype(np.float32)
    got = mse(x, bits, signed)
    x = x if signed else np.maximum(x, 0)
    top = fp.ceil_log2(float(np.abs(x).max()))
    errors = {k: error(x, k, bits, signed) for k in range(top - 12, top + 2)}
    # bins are 1/16 of the finest step in question or narrower: the decision may differ only between nearly equal errors
    assert errors[int(got)] <= min(errors.values()) * 1.02


def test_mse_of_many_zeros_is_that_of_the_rest() -> None:
    x = np.random.default_rng(3).laplace(size=4000).astype(np.float32)
    assert mse(np.concatenate([x, np.zeros(10**6, np.float32)])) == mse(x)
