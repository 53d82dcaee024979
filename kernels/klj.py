"""The KL-J threshold search of C3, as the paper and Graffitist have it: every bin edge of a histogram is a candidate.

The histogram of `|x|` has `ceil(sqrt(N))` bins on `[0, max]`. For the candidate threshold at the right edge of bin `i`

    P = CDF of the clipped distribution: what lies beyond the edge counts in bin i - 1
    Q = CDF of what lies within, moved to the nearest of the `2^(b - signed)` points of the grid on [0, edge]
    J = sum over the i bins of (P - Q) * log(P / Q)

which is the symmetric Kullback-Leibler distance of two cumulative distributions (Jeffreys; D'Alberto and Dasdan). As in the
entropy search it descends from, what is clipped is missing in `Q`: this is what a small threshold costs. A grid needs
more bins than points to differ from them, so edges below `2^(b - signed)` bins are no candidates.

`Q` has one value for each grid point, so that the sum over the bins of a grid point needs only prefix sums of functions of
`P`: all candidates are estimated that way, and those that rounding could have put behind the best are summed bin by bin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from .fixed_point import ceil_log2, log2_threshold
from .histogram import MagnitudeHistogram, Range
from .thresholds import ZERO_LOG2

_BLOCK: Final = 256
"""Candidates estimated at a time: their grid points fit the cache."""


def klj_histogram(seen: Range, signed: bool) -> MagnitudeHistogram:
    """The empty histogram for the second pass over data whose first pass gave `seen` (C3)."""
    bins = max(1, math.isqrt(max(seen.count, 1) - 1) + 1)  # ceil(sqrt(count)), exactly
    return MagnitudeHistogram(seen.magnitude(signed), bins, signed)


def klj_log2(histogram: MagnitudeHistogram, bits: int, signed: bool) -> float:
    """`log2` of the bin edge with the smallest KL-J distance (C3), a tie to the smaller one.

    Returns:
        The logarithm with the exact ceiling of Q4; that of the maximum where the histogram has no more bins than the grid
        has points; `ZERO_LOG2` where the maximum is 0.
    """
    if histogram.maximum <= 0:
        return ZERO_LOG2
    return log2_threshold(threshold_at(klj_edge(histogram.counts, 1 << (bits - int(signed))), histogram))


def threshold_at(edge: int, histogram: MagnitudeHistogram) -> float:
    """The number at the right edge of the first `edge` bins."""
    bins = histogram.counts.size
    return histogram.maximum if edge == bins else histogram.maximum * edge / bins


def klj_edge(counts: npt.NDArray[np.int64], points: int) -> int:
    """Number of bins, from `points` to all of them, whose right edge is the best threshold.

    Args:
        counts: int64 [bins], at least one of them positive.
        points: grid points on `[0, threshold]`.
    """
    distances = Distances(counts, points)
    if not distances.edges.size:
        return counts.size
    estimates, error = distances.estimates()
    return distances.best(distances.edges[estimates <= estimates.min() + 2 * error].tolist())


def klj_octave_edges(histogram: MagnitudeHistogram, bits: int, signed: bool) -> list[int]:
    """The largest candidate edge of each octave, `ceil(log2 t) = k`: the candidates of the exponent-only short cut.

    Comparing the distance at these alone decides another exponent than the search over all edges for some tensors, so that
    no method uses it; `docs/calibration.md` has the numbers.
    """
    edges = Distances(histogram.counts, 1 << (bits - int(signed))).edges.tolist()
    return list({ceil_log2(threshold_at(edge, histogram)): edge for edge in edges}.values())


class Distances:
    """KL-J distances of the candidate edges of one histogram.

    Attributes:
        edges: int64, the candidates in ascending order: numbers of bins. Empty if all is in the last bin of too few.
    """

    def __init__(self, counts: npt.NDArray[np.int64], points: int) -> None:
        """Prepares.

        Args:
            counts: int64 [bins], at least one of them positive.
            points: grid points on `[0, threshold]`.
        """
        self._points = points
        self._total = np.maximum(np.cumsum(counts), 0.5)  # half a count stands for "none": the logarithm stays finite
        self._logarithm = np.log(self._total)
        # entry 0: below the first bin
        self._below = np.concatenate([[0.5], self._total])
        self._log_below = np.concatenate([[math.log(0.5)], self._logarithm])
        candidates = np.arange(min(points, counts.size), counts.size + 1)
        self.edges = candidates[self._total[candidates - 1] >= 1]

    def best(self, edges: Iterable[int]) -> int:
        """The edge with the smallest distance; of equal ones the first."""
        return min(edges, key=self.at)

    def at(self, edge: int) -> float:
        """The distance of one edge, summed bin by bin."""
        total, logarithm, points = self._total, self._logarithm, self._points
        level = np.arange(1, edge + 1) * points // edge  # largest grid point at or below the right edge of each bin
        reached = self._reached(level, edge)
        difference = total[:edge] / total[-1] - self._below[reached] / total[edge - 1]
        log_ratio = (logarithm[:edge] - logarithm[-1]) - (self._log_below[reached] - logarithm[edge - 1])
        difference[-1] = log_ratio[-1] = 0.0  # both distributions end at 1
        return float(difference @ log_ratio)

    def estimates(self) -> tuple[npt.NDArray[np.float64], float]:
        """The distances of all `edges` by prefix sums, and a bound on how far any of them is from that of `at`.

        With `R = 1 - P` and `S = 1 - Q`, which are small where most bins are, the terms of a grid point sum to
        `S * sum(log P) - sum(R * log P) - (n * S - sum(R)) * log Q`.
        """
        total, points = self._total, self._points
        rest = (total[-1] - total) / total[-1]
        log_p = self._logarithm - self._logarithm[-1]
        sum_log, sum_rest, sum_both = (np.concatenate([[0.0], np.cumsum(x)]) for x in (log_p, rest, rest * log_p))
        found = np.empty(self.edges.size)
        level = np.arange(points)
        for start in range(0, self.edges.size, _BLOCK):
            edge = self.edges[start : start + _BLOCK, None]
            # bins of level L: those whose number, from 1, times points // edge is L; the last bin's term is zero
            first = np.maximum(-(-np.arange(points + 1) * edge // points) - 1, 0)
            reached = self._reached(level, edge)
            s = 1.0 - self._below[reached] / total[edge - 1]
            log_q = self._log_below[reached] - self._logarithm[edge - 1]
            logs, rests = np.diff(sum_log[first], axis=1), np.diff(sum_rest[first], axis=1)
            terms = s * logs - (s * np.diff(first, axis=1) - rests) * log_q
            found[start : start + _BLOCK] = terms.sum(axis=1) - sum_both[edge[:, 0] - 1]
        deepest = float(self._log_below[-1] - self._log_below[0])  # of any logarithm
        magnitude = points * float(np.abs(sum_log[-1]) + deepest * sum_rest[-1]) + deepest * total.size
        return found, 8 * float(np.finfo(np.float64).eps) * total.size * magnitude

    def _reached(self, level: npt.NDArray[np.int64], edge: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many bins go to a grid point `<= level`.

        The centre `j + 1/2` of bin `j` does if `(j + 1/2) * points / edge < level + 1/2`: halves go up.
        """
        points = self._points
        reached = -((points - (2 * level + 1) * edge) // (2 * points))
        return np.where(level >= points - 1, edge, reached)
