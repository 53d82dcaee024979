"""Regularised least squares for the weights of one layer: what its output should be, from inputs that are quantized already.

A layer is `G` groups of `K` inputs and `O` outputs: a depthwise convolution has `G` channels of 9 inputs and 1 output each, a
dense layer is one group. All groups are solved side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

_PIECE: Final = 512
"""Rows that are centred or compared together: a copy of so many is all that is made of the data."""

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
        """The rows that are kept back, or the others; no copy where those kept back come last."""
        fitted = self.held.size - int(self.held.sum())
        chosen: Any = self.held == held
        if not self.held[:fitted].any():
            chosen = slice(fitted, None) if held else slice(fitted)
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
        total = 0.0
        for piece in _pieces(outputs):
            error = np.clip(outputs[:, piece], self.low, self.high)
            error -= np.clip(self.target[:, piece], self.low, self.high)
            total += float(np.sum(np.square(error, out=error), dtype=np.float64))
        return total / outputs.size if outputs.size else 0.0

    def wanted(self, outputs: Singles) -> Singles:
        """The closest outputs that are right behind the activation: where the target is clipped, so is much else."""
        if not self._clips:
            return self.target
        low, high = np.float32(self.low), np.float32(self.high)
        result = np.empty_like(self.target)
        for piece in _pieces(outputs):
            target, output = self.target[:, piece], outputs[:, piece]
            below = np.where(target <= low, np.minimum(output, low), target)
            result[:, piece] = np.where(target >= high, np.maximum(output, high), below)
        return result

    @property
    def _clips(self) -> bool:
        return bool(np.isfinite(self.low) or np.isfinite(self.high))


def _pieces(array: npt.NDArray[Any]) -> Iterator[slice]:
    """All rows of [G, P, ...], some at a time."""
    return (slice(start, start + _PIECE) for start in range(0, array.shape[1], _PIECE))


def predict(rows: Rows, weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> Singles:
    """Outputs float32 [G, P, O] of weights [G, K, O] and a bias [G, O]."""
    outputs = np.matmul(rows.data, np.asarray(weights, np.float32))
    if bias is not None:
        outputs += np.asarray(bias, np.float32)[:, None, :]
    return np.asarray(outputs, np.float32)


class Moments:
    """Second moments of the rows; with a bias that may move, around the means.

    Args:
        rows: all of them count.
        bias: whether there is one that may move.
    """

    def __init__(self, rows: Rows, *, bias: bool) -> None:
        self._data = rows.data
        self._mean = rows.data.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) if bias else None
        groups, _, inputs = rows.data.shape
        self._hessian = np.zeros((groups, inputs, inputs))
        for piece in _pieces(self._data):
            centred = self._centred(piece)
            self._hessian += np.matmul(centred.swapaxes(1, 2), centred)
        self._diagonal: Doubles = np.einsum("gkk->gk", self._hessian)  # a view
        self._variances = np.maximum(self._diagonal, 0.0)

    def cross(self, outputs: Singles) -> Doubles:
        """`X^T Y` float64 [G, K, O] of float32 [G, P, O], `Y` around its means where a bias absorbs them."""
        mean = outputs.mean(axis=1, keepdims=True) if self._mean is not None else None
        result = np.zeros((len(outputs), self._data.shape[2], outputs.shape[2]))
        for piece in _pieces(outputs):
            moved = outputs[:, piece] if mean is None else outputs[:, piece] - mean
            result += np.matmul(self._centred(piece).swapaxes(1, 2), moved)
        return result

    def pull(self, strength: float) -> Doubles:
        """What is added to the diagonal [G, 1] so that weights stay where the data say nothing."""
        floor = _NOTHING * self._variances.max(axis=1, keepdims=True)
        pull = np.maximum(strength * self._variances.mean(axis=1, keepdims=True), floor)
        return np.asarray(np.where(pull > 0, pull, 1.0))

    def pulled(self, strength: float) -> Doubles:
        """The Hessian of the regularised problem, positive definite, float64 [G, K, K].

        Always the same array, valid until the next call: only its diagonal depends on the strength.
        """
        self._diagonal[...] = self._variances + self.pull(strength)
        return self._hessian

    def _centred(self, piece: slice) -> Singles:
        data = self._data[:, piece]
        return data if self._mean is None else data - self._mean


def solve(rows: Rows, moments: Moments, weights: Doubles, bias: Doubles | None, strength: float) -> Doubles:
    """`argmin |X W + b - Y|^2 + pull |W - W0|^2`.

    Args:
        rows: data and targets.
        moments: of these rows.
        weights: `W0`, [G, K, O].
        bias: [G, O], or None where the layer has none.
        strength: of the pull, in units of the mean variance.

    Returns:
        The weights; `best_bias` gives the bias that goes with them.
    """
    return np.asarray(weights + np.linalg.solve(moments.pulled(strength), _missing(rows, moments, weights, bias)))


def _missing(rows: Rows, moments: Moments, weights: Doubles, bias: Doubles | None) -> Doubles:
    """The right hand side of the normal equations, of what the given weights leave over."""
    left = predict(rows, weights, bias)
    return moments.cross(np.subtract(rows.target, left, out=left))


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


def choose_strength(
    seen: Rows, held: Rows, moments: Moments, weights: Doubles, bias: Doubles | None, *, late: Callable[[], bool] = lambda: False
) -> float:
    """The pull that does best behind the activation on the rows kept back; the middle of the list where none are.

    Few images say little about many weights: there a strong pull wins, and the layer keeps its weights.

    Args:
        seen: rows that are fitted.
        held: rows that are kept back.
        moments: of the rows that are fitted.
        weights: given ones, [G, K, O].
        bias: [G, O] or None.
        late: whether time is up: the best of what was tried until then, from the middle outwards.
    """
    middle = STRENGTHS[len(STRENGTHS) // 2]
    if not held.data.shape[1] or not seen.data.shape[1]:
        return middle
    few, missing = seen.few(), _missing(seen, moments, weights, bias)
    losses: dict[float, float] = {}
    for strength in sorted(STRENGTHS, key=lambda each: abs(STRENGTHS.index(each) - STRENGTHS.index(middle))):
        if late():
            break
        fitted = np.linalg.solve(moments.pulled(strength), missing)
        fitted += weights
        losses[strength] = held.loss(fitted, None if bias is None else best_bias(few, predict(few, fitted, None)))
    return min(sorted(losses), key=losses.__getitem__, default=middle)
