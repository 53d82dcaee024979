"""Regularised least squares for the weights of one layer: what its output should be, from inputs that are quantized already.

A layer is `G` groups of `K` inputs and `O` outputs: a depthwise convolution has `G` channels of 9 inputs and 1 output each, a
dense layer is one group. All groups are solved side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

STRENGTHS: Final = (0.003, 0.03, 0.3, 3.0, 30.0, 300.0)
"""Pulls towards the given weights that are tried, in units of the inputs' mean variance."""

_BIAS_STEPS: Final = 2
"""How often the bias follows the outputs that are clipped as they should be; each step lowers the loss."""

_FEW: Final = 2048
"""Rows that are enough to compare strengths, or exponents, with each other."""

_NOTHING: Final = 1e-9
"""Smallest pull relative to the largest variance of a group: inputs that never vary keep their weights."""


@dataclass(frozen=True)
class Rows:
    """Places at which the output of a layer is looked at.

    Attributes:
        data: float32 [G, P, K], what the layer sees.
        target: float32 [G, P, O], what it should give before its activation.
        held: bool [P], rows of examples that are kept back: they choose, they are never fitted.
        low: lower bound that the activation behind the layer clips at, or minus infinity.
        high: its upper bound, or infinity.
    """

    data: Singles
    target: Singles
    held: Bools
    low: float = -np.inf
    high: float = np.inf

    def part(self, held: bool) -> Rows:
        """The rows that are kept back, or the others."""
        chosen = self.held == held
        return Rows(self.data[:, chosen], self.target[:, chosen], self.held[chosen], self.low, self.high)

    def few(self) -> Rows:
        """Evenly chosen ones, where there are many."""
        count = self.held.size
        if count <= _FEW:
            return self
        chosen = np.linspace(0, count - 1, _FEW).astype(np.int64)
        return Rows(self.data[:, chosen], self.target[:, chosen], self.held[chosen], self.low, self.high)

    def clipped(self, outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the activation makes of these outputs."""
        return np.asarray(np.clip(outputs, self.low, self.high))

    def loss(self, weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> float:
        """Mean squared error behind the activation.

        Args:
            weights: [G, K, O].
            bias: [G, O] or None.
        """
        return self.loss_of(predict(self, weights, bias))

    def loss_of(self, outputs: Singles) -> float:
        """The same for outputs that are known, float32 [G, P, O]."""
        error = np.clip(outputs, self.low, self.high)
        error -= self._clipped_target
        return float(np.mean(np.square(error, out=error), dtype=np.float64)) if error.size else 0.0

    @cached_property
    def _clipped_target(self) -> Singles:
        return np.clip(self.target, self.low, self.high)

    def wanted(self, outputs: Singles) -> Singles:
        """The closest outputs that are right behind the activation: where the target is clipped, so is much else."""
        if not self._clips:
            return self.target
        return np.clip(outputs, *self._right)

    @property
    def _clips(self) -> bool:
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

    @cached_property
    def _right(self) -> tuple[Singles, Singles]:
        """From where to where an output is right."""
        low, high = np.float32(self.low), np.float32(self.high)
        lowest = np.where(self.target <= low, np.float32(-np.inf), np.minimum(self.target, high))
        return lowest, np.where(self.target >= high, np.float32(np.inf), np.maximum(self.target, low))


def predict(rows: Rows, weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> Singles:
    """Outputs float32 [G, P, O] of weights [G, K, O] and a bias [G, O]."""
    outputs = np.matmul(rows.data, np.asarray(weights, np.float32))
    if bias is not None:
        outputs += np.asarray(bias, np.float32)[:, None, :]
    return np.asarray(outputs, np.float32)


@dataclass(frozen=True)
class Moments:
    """Second moments of the rows; with a bias that may move, around the means.

    Attributes:
        hessian: float64 [G, K, K], `X^T X`.
        centred: float32 [G, P, K].
    """

    hessian: Doubles
    centred: Singles

    @classmethod
    def of(cls, rows: Rows, *, bias: bool) -> Moments:
        """Of all rows."""
        mean = (
            rows.data.mean(axis=1, keepdims=True, dtype=np.float64) if bias else np.zeros((len(rows.data), 1, rows.data.shape[2]))
        )
        centred = rows.data - mean.astype(np.float32) if bias else rows.data
        return cls(np.matmul(centred.swapaxes(1, 2), centred).astype(np.float64), centred)

    def cross(self, outputs: Singles, *, bias: bool) -> Doubles:
        """`X^T Y` [G, K, O], `Y` around its means where a bias absorbs them."""
        moved = outputs - outputs.mean(axis=1, keepdims=True) if bias else outputs
        return np.asarray(np.matmul(self.centred.swapaxes(1, 2), moved), np.float64)

    def pull(self, strength: float) -> Doubles:
        """What is added to the diagonal [G, 1] so that weights stay where the data say nothing."""
        variances = np.maximum(np.einsum("gkk->gk", self.hessian), 0.0)
        floor = _NOTHING * variances.max(axis=1, keepdims=True)
        pull = np.maximum(strength * variances.mean(axis=1, keepdims=True), floor)
        return np.asarray(np.where(pull > 0, pull, 1.0))

    def pulled(self, strength: float) -> Doubles:
        """The Hessian of the regularised problem, positive definite."""
        size = self.hessian.shape[1]
        return self.hessian + self.pull(strength)[:, :, None] * np.eye(size)


def solve(rows: Rows, moments: Moments, weights: Doubles, bias: Doubles | None, strength: float) -> tuple[Doubles, Doubles | None]:
    """`argmin |X W + b - Y|^2 + pull |W - W0|^2`.

    Args:
        rows: data and targets.
        moments: of these rows.
        weights: `W0`, [G, K, O].
        bias: [G, O], or None where the layer has none.
        strength: of the pull, in units of the mean variance.

    Returns:
        Weights and bias (None where there was none).
    """
    fitted = weights + np.linalg.solve(moments.pulled(strength), _missing(rows, moments, weights, bias))
    return fitted, None if bias is None else best_bias(rows, predict(rows, fitted, None))


def _missing(rows: Rows, moments: Moments, weights: Doubles, bias: Doubles | None) -> Doubles:
    """The right hand side of the normal equations, of what the given weights leave over."""
    return moments.cross(rows.target - predict(rows, weights, bias), bias=bias is not None)


def best_bias(rows: Rows, outputs: Singles) -> Doubles:
    """The bias [G, O] that leaves no mean error before the activation, then behind it (bias correction).

    Args:
        rows: with the targets.
        outputs: float32 [G, P, O] without any bias.
    """
    bias = (rows.target - outputs).mean(axis=1, dtype=np.float64)
    for _ in range(_BIAS_STEPS if rows._clips else 0):
        moved = outputs + bias.astype(np.float32)[:, None, :]
        bias = bias + np.subtract(rows.wanted(moved), moved, out=moved).mean(axis=1, dtype=np.float64)
    return np.asarray(bias)


def choose_strength(rows: Rows, weights: Doubles, bias: Doubles | None) -> float:
    """The pull that does best behind the activation on the rows kept back; the middle of the list where none are.

    Few images say little about many weights: there a strong pull wins, and the layer keeps its weights.
    """
    seen, held = rows.part(False), rows.part(True)
    if not held.data.shape[1] or not seen.data.shape[1]:
        return STRENGTHS[len(STRENGTHS) // 2]
    moments, few = Moments.of(seen, bias=bias is not None), seen.few()
    missing = _missing(seen, moments, weights, bias)

    def loss(strength: float) -> float:
        fitted = weights + np.linalg.solve(moments.pulled(strength), missing)
        return held.loss(fitted, None if bias is None else best_bias(few, predict(few, fitted, None)))

    return min(STRENGTHS, key=loss)
