"""The percentile from one pass, against the sorted numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tqt_onnx.kernels.fixed_point import ceil_log2
from tqt_onnx.kernels.histogram import CHUNK, Range
from tqt_onnx.kernels.percentile import FloatHistogram, percentile_log2
from tqt_onnx.kernels.thresholds import ZERO_LOG2, max_log2

numbers = st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda x: x == 0 or abs(x) >= 2.0**-126)
powers = st.sampled_from([0.0, 0.25, 0.5, -0.5, 1.0, -1.0, 2.0, 1.0000001])
percentages = st.sampled_from([100.0, 99.99, 99.9, 75.0, 50.0, 33.3, 0.01]) | st.floats(0.001, 100.0)


def histogram(*parts: np.ndarray, signed: bool = True) -> FloatHistogram:
    seen = FloatHistogram(signed)
    for part in parts:
        seen.update(np.asarray(part, np.float32))
    return seen


def nearest_rank(x: np.ndarray, percentage: float, signed: bool) -> float:
    """The definition on sorted magnitudes; the maximum where the percentile is 0."""
    magnitudes = np.sort(np.abs(x) if signed else np.maximum(x, 0))
    rank = math.ceil(Fraction(str(percentage)) * len(x) / 100)
    return float(magnitudes[rank - 1]) or float(magnitudes[-1])


@given(st.lists(powers | numbers, min_size=1, max_size=40), percentages, st.booleans())
@example([1.0] * 3, 99.99, True)
@example([0.0, 0.0, 0.0, 1.5], 75.0, True)  # the third of four is 0: the maximum is taken
@example([-4.0, -2.0, 0.0], 100.0, False)  # nothing positive
@example([1.0, 1.0000001], 50.0, True)  # neighbours on either side of an octave's end
def test_exponent_is_that_of_the_sorted_numbers(values: list[float], percentage: float, signed: bool) -> None:
    x = np.array(values, np.float32)
    exact, got = nearest_rank(x, percentage, signed), percentile_log2(histogram(x, signed=signed), percentage)
    if exact == 0:
        assert got == ZERO_LOG2
        return
    assert math.ceil(got) == ceil_log2(exact)  # all that static mode looks at: no tolerance
    assert 0 <= got - math.log2(exact) + 1e-4 < math.log2(1 + 1 / 128) + 2e-4  # a bin's width, and a float32 logarithm


@given(st.lists(powers | numbers, min_size=1, max_size=40), st.booleans())
def test_a_hundred_percent_is_max(values: list[float], signed: bool) -> None:
    x = np.array(values, np.float32)
    seen = Range()
    seen.update(x)
    assert percentile_log2(histogram(x, signed=signed), 100) == max_log2(seen, signed)


@given(st.lists(numbers, max_size=20), st.lists(numbers, max_size=20), st.booleans())
def test_any_cut_and_order_gives_the_same_counts(a: list[float], b: list[float], signed: bool) -> None:
    whole, merged = histogram(np.array([*a, *b]), signed=signed), histogram(np.array(b), signed=signed)
    merged.merge(histogram(np.array(a), signed=signed))
    assert np.array_equal(whole.counts, merged.counts)
    assert (whole.count, whole.minimum, whole.maximum) == (merged.count, merged.minimum, merged.maximum)
    assert whole.counts.sum() == len(a) + len(b)


def test_one_number_in_ten_thousand_saturates() -> None:
    x = np.ones(20_000, np.float32)
    x[:2] = 1000.0
    assert percentile_log2(histogram(x), 99.99) == 0.0  # rank 19,998 is the last 1
    x[2] = 1000.0
    assert percentile_log2(histogram(x), 99.99) == max_log2(histogram(x), True)


def test_a_percentage_is_what_it_is_printed_as() -> None:
    x = np.array([1.0] * 999 + [64.0], np.float32)
    assert 0.999 * 1000 == 999 and 99.9 / 100 * 1000 > 999  # the float product would ask for rank 1000
    assert percentile_log2(histogram(x), 99.9) == 0.0


def test_ends_of_float32_negative_zero_and_denormals_are_counted() -> None:
    seen = histogram(np.array([3.4028235e38, -3.4028235e38, 2.0**-149, -0.0, 0.0]))
    assert seen.counts.sum() == 5 and seen.counts[0] == 2
    assert percentile_log2(seen, 100) == 128.0
    assert histogram(np.array([-0.0, -1.0]), signed=False).counts[0] == 2


def test_longer_than_a_chunk_and_not_contiguous() -> None:
    x = np.random.default_rng(0).standard_normal((3, CHUNK)).astype(np.float32)[:, ::2]
    assert np.array_equal(histogram(x).counts, histogram(*x).counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_degenerate_numbers_raise_and_count_nothing(bad: float) -> None:
    seen = FloatHistogram(True)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        seen.update(np.array([1.0, bad], np.float32))
    assert (seen.count, seen.counts.sum()) == (0, 0)


def test_signs_do_not_merge() -> None:
    with pytest.raises(TypeError, match="of its sign"):
        FloatHistogram(True).merge(FloatHistogram(False))
