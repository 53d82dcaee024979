"""The KL-J search of C3 against a loop that follows its definition word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tqt_onnx.kernels.histogram import MagnitudeHistogram, Range
from tqt_onnx.kernels.klj import klj_edge, klj_histogram, klj_log2
from tqt_onnx.kernels.thresholds import ZERO_LOG2


def definition(counts: list[int], points: int) -> int:
    everything, best = sum(counts), (math.inf, len(counts))
    for edge in range(min(points, len(counts)), len(counts) + 1):
        inside = sum(counts[:edge])
        if not inside:
            continue
        distance = 0.0
        levels = [min(points - 1, ((2 * j + 1) * points + edge) // (2 * edge)) for j in range(edge)]  # halves go up
        for right in range(1, edge + 1):
            p = sum(counts[:right]) / everything if right < edge else 1.0
            reached = points - 1 if right == edge else right * points // edge
            q = sum(count for count, level in zip(counts, levels, strict=False) if level <= reached) / inside
            p, q = max(p, 0.5 / everything), max(q, 0.5 / inside)
            distance += (p - q) * math.log(p / q)
        if distance < best[0] - 1e-15:
            best = (distance, edge)
    return best[1]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=24).filter(any), st.sampled_from([2, 4, 8]))
def test_search_is_the_definition(counts: list[int], points: int) -> None:
    assert klj_edge(np.array(counts), points) == definition(counts, points)


def log2_t(x: np.ndarray, bits: int = 8, signed: bool = True) -> float:
    seen = Range()
    seen.update(x)
    histogram = klj_histogram(seen, signed)
    histogram.update(x)
    return klj_log2(histogram, bits, signed)


@pytest.mark.parametrize(("count", "bins"), [(1, 1), (4, 2), (5, 3), (10**6, 1000), (10**6 + 1, 1001)])
def test_number_of_bins_is_the_ceiling_of_the_root(count: int, bins: int) -> None:
    seen = Range()
    seen.count, seen.maximum, seen.minimum = count, 1.0, 0.0
    assert klj_histogram(seen, True).counts.size == bins


@pytest.mark.parametrize(
    ("x", "expected"), [([0.0], ZERO_LOG2), ([1.0], 0.0), ([4.0] * 9, 2.0), ([2.0**-149], -149.0), ([-(2.0**127)], 127.0)]
)
def test_degenerate_tensors(x: list[float], expected: float) -> None:
    assert log2_t(np.array(x, np.float32)) == expected


def test_a_lone_outlier_is_clipped_and_a_uniform_tensor_is_not() -> None:
    rng = np.random.default_rng(0)
    assert -0.1 < log2_t(rng.uniform(-1, 1, 10**6).astype(np.float32)) <= 0
    normal = rng.standard_normal(10**6).astype(np.float32)
    normal[0] = 30.0
    assert log2_t(normal) < math.log2(10)


def test_empty_histogram_of_a_zero_maximum() -> None:
    assert klj_log2(MagnitudeHistogram(0.0, 5, signed=True), 8, True) == ZERO_LOG2
