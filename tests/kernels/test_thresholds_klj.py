"""The KL-J search of C3 against a loop that follows its definition word by word."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tqt_onnx.kernels.fixed_point import ceil_log2
from tqt_onnx.kernels.histogram import MagnitudeHistogram, Range
from tqt_onnx.kernels.klj import Distances, klj_edge, klj_histogram, klj_log2, klj_octave_edges, threshold_at
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


# --- the exponent-only short cut, and why no method uses it (docs/calibration.md)

Draw = Callable[[np.random.Generator, int], np.ndarray]

DRAWS: dict[str, Draw] = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "relu": lambda rng, n: np.maximum(rng.standard_normal(n), 0),
    "sparse": lambda rng, n: rng.standard_normal(n) * (rng.random(n) < 0.02),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "bimodal": lambda rng, n: rng.choice([-2.0, 3.0], n) + 0.05 * rng.standard_normal(n),
}


def drawn(kind: str, seed: int, signed: bool = True) -> MagnitudeHistogram:
    rng = np.random.default_rng(seed)
    x = (DRAWS[kind](rng, int(10 ** rng.uniform(3, 5.5))) * 2 ** rng.uniform(-1, 1)).astype(np.float32)
    seen = Range()
    seen.update(x)
    histogram = klj_histogram(seen, signed)
    histogram.update(x)
    return histogram


def exponents(histogram: MagnitudeHistogram, bits: int, signed: bool) -> tuple[int, int]:
    """`ceil(log2 t)` of the search, and of the smallest distance among the octaves' last edges."""
    found = Distances(histogram.counts, 1 << (bits - signed)).best(klj_octave_edges(histogram, bits, signed))
    return math.ceil(klj_log2(histogram, bits, signed)), ceil_log2(threshold_at(found, histogram))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", DRAWS)
def test_estimates_lie_within_their_bound_and_the_search_is_exhaustive(kind: str, signed: bool) -> None:
    for seed in range(4):
        histogram = drawn(kind, seed, signed)
        distances = Distances(histogram.counts, 1 << (8 - signed))
        exact = np.array([distances.at(edge) for edge in distances.edges.tolist()])
        estimates, error = distances.estimates()
        assert np.abs(estimates - exact).max(initial=0.0) <= error
        assert klj_edge(histogram.counts, 1 << (8 - signed)) == distances.edges[exact.argmin()]


@pytest.mark.parametrize("kind", DRAWS)
def test_short_cut_compares_some_of_the_candidates(kind: str) -> None:
    """One edge an octave, the last one: its distance is never smaller, and where the best edge is one of them it is found."""
    for seed in range(6):
        histogram = drawn(kind, seed)
        distances, ends = Distances(histogram.counts, 128), klj_octave_edges(histogram, 8, True)
        octave = [ceil_log2(threshold_at(edge, histogram)) for edge in distances.edges.tolist()]
        assert ends == [distances.edges[i] for i in range(len(octave)) if i + 1 == len(octave) or octave[i] < octave[i + 1]]
        best, found = klj_edge(histogram.counts, 128), distances.best(ends)
        assert distances.at(found) >= distances.at(best)
        assert best not in ends or found == best


@pytest.mark.parametrize("kind", ["uniform", "bimodal"])
def test_short_cut_agrees_where_nothing_is_worth_clipping(kind: str) -> None:
    for seed in range(25):
        found = exponents(drawn(kind, seed), 8, True)
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("kind", "seed", "search_minus_short"),
    [("gaussian", 0, 0), ("gaussian", 14, 1), ("laplace", 10, 1), ("relu", 23, 1), ("sparse", 31, 1), ("sparse", 6, -1)],
)
def test_short_cut_may_decide_one_exponent_lower_or_higher(kind: str, seed: int, search_minus_short: int) -> None:
    """Counterexamples: the best edge lies inside an octave whose end is worse than its neighbour's."""
    search, short = exponents(drawn(kind, seed), 8, True)
    assert search - short == search_minus_short


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.data())
def test_with_one_valley_the_short_cut_is_the_same_or_one_lower(steps: list[int], data: st.DataObject) -> None:
    """Distances that fall strictly up to the best edge and never fall behind it: the end of its octave and the one before win."""
    histogram = MagnitudeHistogram(data.draw(st.floats(1.0, 2.0)), len(steps) + 7, signed=True)
    histogram.counts[:] = 1
    edges = Distances(histogram.counts, 8).edges.tolist()
    valley = data.draw(st.integers(0, len(steps) - 1))
    falls = np.cumsum([step + 1 for step in steps[:valley]][::-1])[::-1]
    distance = dict(zip(edges, [*falls.tolist(), 0, *np.cumsum(steps[valley + 1 :]).tolist()], strict=True))
    short = min(klj_octave_edges(histogram, 4, True), key=distance.__getitem__)
    best = min(edges, key=distance.__getitem__)
    difference = ceil_log2(threshold_at(best, histogram)) - ceil_log2(threshold_at(short, histogram))
    assert difference in (0, 1)
