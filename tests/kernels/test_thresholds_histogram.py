"""Streaming statistics do not depend on how the numbers arrive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.kernels.histogram import BINS, CHUNK, MagnitudeHistogram, PowerOfTwoHistogram, Range

magnitudes = st.floats(2.0**-40, 2.0**50, width=32)  # farther apart, a negative number may underflow across zero
arrays = st.lists(st.just(0.0) | magnitudes | magnitudes.map(lambda x: -x), max_size=30)


def histogram(*parts: np.ndarray) -> PowerOfTwoHistogram:
    seen = PowerOfTwoHistogram()
    for part in parts:
        seen.update(np.asarray(part, np.float32))
    return seen


def same(a: PowerOfTwoHistogram, b: PowerOfTwoHistogram) -> bool:
    return (a.range_log2, a.zeros, a.count, a.minimum, a.maximum) == (
        b.range_log2,
        b.zeros,
        b.count,
        b.minimum,
        b.maximum,
    ) and np.array_equal(a.counts, b.counts)


@given(arrays, arrays, arrays)
def test_any_cut_and_order_gives_the_same_counts(a: list[float], b: list[float], c: list[float]) -> None:
    whole = histogram(np.array([*a, *b, *c]))
    merged, other = histogram(np.array(c)), histogram(np.array(a), np.array(b))
    merged.merge(other)
    assert same(whole, histogram(np.array(b), np.array(c), np.array(a)))
    assert same(whole, merged)
    assert whole.counts.sum() + whole.zeros == len(a) + len(b) + len(c)


@given(st.lists(st.floats(-(2.0**20), 2.0**20, width=32), min_size=1, max_size=50))
def test_bins_are_floors(numbers: list[float]) -> None:
    seen = histogram(np.array(numbers))
    expected = np.zeros(2 * BINS, np.int64)
    for number in np.array(numbers, np.float32):
        if number != 0:
            expected[BINS + math.floor(float(number) / 2.0**seen.width_log2)] += 1
    assert np.array_equal(seen.counts, expected)


@pytest.mark.parametrize("top", [1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**127, -3.4028235e38, 3.4028235e38, 2.0**-100])
def test_range_holds_powers_of_two_and_the_ends_of_float32(top: float) -> None:
    seen = histogram(np.array([top]), np.array([top / 2]))
    assert seen.counts.sum() + seen.zeros == 2
    assert seen.magnitude(True) == abs(np.float32(top))


def test_growth_over_the_whole_float_range_keeps_every_count() -> None:
    seen = histogram(np.array([1e-40, -1e-40, 0.0]), np.array([3e38]))
    assert (seen.counts[BINS], seen.counts[BINS - 1], seen.zeros) == (1, 1, 1)
    assert seen.counts.sum() == 3


def test_longer_than_a_chunk_and_not_contiguous() -> None:
    x = np.random.default_rng(0).standard_normal((3, CHUNK)).astype(np.float32)
    assert same(histogram(x[:, ::2]), histogram(*x[:, ::2]))


@pytest.mark.parametrize("kind", [Range, PowerOfTwoHistogram])
@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_degenerate_numbers_raise_and_count_nothing(kind: type[Range], bad: float, name: str) -> None:
    seen = kind()
    with pytest.raises(ValueError, match=name):
        seen.update(np.array([1.0, bad, 2.0], np.float32))
    assert (seen.count, seen.magnitude(True)) == (0, 0.0)


def test_empty_is_nothing() -> None:
    seen = histogram(np.zeros((0, 4)))
    assert (seen.count, seen.magnitude(True), seen.magnitude(False)) == (0, 0.0, 0.0)


def test_magnitudes_by_sign() -> None:
    seen = histogram(np.array([-3.0, 2.0]))
    assert (seen.magnitude(True), seen.magnitude(False)) == (3.0, 2.0)


def test_magnitude_histogram_counts_the_maximum_in_the_last_bin_and_merges() -> None:
    a, b = MagnitudeHistogram(2.0, 4, signed=True), MagnitudeHistogram(2.0, 4, signed=True)
    a.update(np.array([0.0, 0.5, -2.0], np.float32))
    b.update(np.array([2.0, -1.99], np.float32))
    a.merge(b)
    assert a.counts.tolist() == [1, 1, 0, 3]
    unsigned = MagnitudeHistogram(2.0, 4, signed=False)
    unsigned.update(np.array([-2.0, 1.0], np.float32))
    assert unsigned.counts.tolist() == [1, 0, 1, 0]
    zero = MagnitudeHistogram(0.0, 3, signed=True)
    zero.update(np.zeros(5, np.float32))
    assert zero.counts.tolist() == [5, 0, 0]
