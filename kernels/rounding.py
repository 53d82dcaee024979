"""Rounding the weights of a layer so that its output suffers least: error feedback, then coordinate descent over integers.

The cost of integers `q` for real weights `w` is `(w - s q)^T A (w - s q)` with the Hessian `A` of the layer's inputs.
Rounding to nearest looks at the diagonal of `A` only; error feedback (Babai's nearest plane, as in OBQ and GPTQ) moves what is
not rounded yet so as to make up for what is. Coordinate descent then takes each integer to its best place given all others.
Both respect the bounds of the integers, and weights that saturate are made up for as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_BLOCK: Final = 32
"""Inputs whose effects are brought to all others together: one matrix product instead of many rank-one updates."""


@dataclass(frozen=True)
class Feedback:
    """Where the errors of rounding go: of one Hessian, for any weights.

    Attributes:
        order: int [G, K], inputs with the largest variance first.
        upper: float64 [G, K, K], `inverse = upper^T upper` of the Hessian in this order.
    """

    order: npt.NDArray[np.intp]
    upper: Doubles

    @classmethod
    def of(cls, hessian: Doubles) -> Feedback:
        """Of a Hessian [G, K, K], positive definite."""
        groups = np.arange(len(hessian))[:, None, None]
        order = np.argsort(-np.einsum("gkk->gk", hessian), axis=1, kind="stable")
        inverse = np.linalg.inv(hessian[groups, order[:, :, None], order[:, None, :]])
        return cls(order, np.linalg.cholesky(inverse).swapaxes(1, 2))


def with_feedback(weights: Doubles, feedback: Feedback, lowest: int, highest: int) -> Doubles:
    """Integers by error feedback.

    Args:
        weights: [G, K, O], in units of the step.
        feedback: of the layer's Hessian.
        lowest: smallest integer.
        highest: largest.

    Returns:
        Whole numbers [G, K, O] within the bounds.
    """
    groups, size = np.arange(len(weights))[:, None], weights.shape[1]
    order, upper = feedback.order, feedback.upper
    rest = weights[groups, order]  # becomes whole numbers from the front
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = np.empty_like(rest[:, start:stop])
        for k in range(start, stop):
            rounded = np.clip(np.rint(rest[:, k]), lowest, highest)
            errors[:, k - start] = (rest[:, k] - rounded) / upper[:, k, k, None]
            rest[:, k] = rounded
            rest[:, k + 1 : stop] -= upper[:, k, k + 1 : stop, None] * errors[:, k - start, None, :]
        rest[:, stop:] -= np.matmul(upper[:, start:stop, stop:].swapaxes(1, 2), errors)
    result = np.empty_like(rest)
    result[groups, order] = rest
    return result


def descend(integers: Doubles, right: Doubles, hessian: Doubles, lowest: int, highest: int) -> Doubles:
    """One sweep of coordinate descent: each integer in turn becomes the best one given all others; the cost never grows.

    Args:
        integers: [G, K, O], within the bounds.
        right: [G, K, O], `A w` of the unconstrained minimum `w`, in units of the step.
        hessian: [G, K, K], positive definite.
        lowest: smallest integer.
        highest: largest.
    """
    result = integers.copy()
    slope = right - np.matmul(hessian, integers)
    diagonal = np.einsum("gkk->gk", hessian)
    size = integers.shape[1]
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        before = result[:, start:stop].copy()
        for k in range(start, stop):
            moved = np.clip(np.rint(result[:, k] + slope[:, k] / diagonal[:, k, None]), lowest, highest)
            slope[:, start:stop] -= hessian[:, start:stop, k, None] * (moved - result[:, k])[:, None, :]
            result[:, k] = moved
        change = result[:, start:stop] - before
        if stop < size and change.any():
            slope[:, stop:] -= np.matmul(hessian[:, stop:, start:stop], change)
    return result
