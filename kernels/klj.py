"""The KL-J threshold search of C3, as the paper and Graffitist have it: every bin edge of a histogram is a candidate.

The histogram of `|x|` has `ceil(sqrt(N))` bins on `[0, max]`. For the candidate threshold at the right edge of bin `i`

    P = CDF of the clipped distribution: what lies beyond the edge counts in bin i - 1
    Q = CDF of what lies within, moved to the nearest of the `2^(b - signed)` points of the grid on [0, edge]
    J = sum over the i bins of (P - Q) * log(P / Q)

which is the symmetric Kullback-Leibler distance of two cumulative distributions (Jeffreys; D'Alberto and Dasdan). As in the
entropy search it descends from, what is clipped is missing in `Q`: this is what a small threshold costs. A grid needs
more bins than points to differ from them, so edges below `2^(b - signed)` bins are no candidates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .fixed_point import log2_threshold
from .histogram import MagnitudeHistogram, Range
from .thresholds import ZERO_LOG2


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
    edge = klj_edge(histogram.counts, 1 << (bits - int(signed)))
    bins = histogram.counts.size
    return log2_threshold(histogram.maximum if edge == bins else histogram.maximum * edge / bins)


def klj_edge(counts: npt.NDArray[np.int64], points: int) -> int:
    """Number of bins, from `points` to all of them, whose right edge is the best threshold.

    Args:
        counts: int64 [bins], at least one of them positive.
        points: grid points on `[0, threshold]`.
    """
    total = np.maximum(np.cumsum(counts), 0.5)  # half a count stands for "none": the logarithm stays finite
    logarithm = np.log(total)
    everything, log_everything = float(total[-1]), float(logarithm[-1])
    # entry 0: below the first bin
    below, log_below = np.concatenate([[0.5], total]), np.concatenate([[math.log(0.5)], logarithm])
    edges = np.arange(1, counts.size + 1)
    best, best_distance = counts.size, math.inf
    for edge in range(min(points, counts.size), counts.size + 1):
        if total[edge - 1] < 1:
            continue
        level = edges[:edge] * points // edge  # largest grid point at or below the right edge of each bin
        # the centre j + 1/2 of bin j goes to a level <= L exactly if (j + 1/2) * points / edge < L + 1/2 (halves go up)
        reached = -((points - (2 * level + 1) * edge) // (2 * points))  # number of bins that go to a level <= L
        reached[level >= points - 1] = edge
        difference = total[:edge] / everything - below[reached] / total[edge - 1]
        log_ratio = (logarithm[:edge] - log_everything) - (log_below[reached] - logarithm[edge - 1])
        difference[-1] = log_ratio[-1] = 0.0  # both distributions end at 1
        distance = float(difference @ log_ratio)
        if distance < best_distance:
            best, best_distance = edge, distance
    return best
