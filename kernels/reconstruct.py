"""One layer on a power-of-two grid that reproduces the float layer's output from quantized inputs, in closed form.

Least squares moves the weights to what the quantized inputs ask for (`ridge`), rounding feeds its errors back (`rounding`), the
bias takes up the mean error. The exponent is the one whose layer is best *behind its activation*, not the one that covers the
largest weight: weights of inputs that hardly vary, or of outputs that are clipped anyway, may saturate. There are no gradient
steps and no learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .fixed_point import bounds, ceil_log2
from .ridge import STRENGTHS, Doubles, Moments, Rows, Singles, best_bias, choose_strength, predict, solve
from .rounding import Feedback, descend, with_feedback

SWEEPS: Final = 3
"""Sweeps of coordinate descent over the integers of the best exponent."""

LARGEST: Final = 2048
"""Inputs of one output up to which their Hessian is taken as a whole; above, cut into blocks of at most so many."""

_FINALISTS: Final = 2
"""Exponents that are compared after a sweep of coordinate descent, which changes little but the order of the best."""

_OCTAVES: Final = 12
"""How far below the largest weight exponents are looked for."""

_HOPELESS: Final = 2.0
"""Finer exponents are not tried once one loses this many times what the best does: from there on saturation only grows."""

_NOISE: Final = 1e-9
"""Losses that differ by less than this part of the outputs' mean square are equal."""


@dataclass(frozen=True)
class Reconstruction:
    """A layer on its grid.

    Attributes:
        integers: whole numbers, float64 [G, K, O].
        exponent: `log2` of the scale.
        bias: [G, O], or None where the layer has none.
        strength: pull towards the given weights that was chosen.
        loss: mean squared error behind the activation, on the rows that were fitted.
    """

    integers: Doubles
    exponent: int
    bias: Doubles | None
    strength: float
    loss: float

    @property
    def weights(self) -> Doubles:
        """The real numbers that the integers stand for."""
        return np.ldexp(self.integers, self.exponent)


def reconstruct(
    rows: Rows,
    weights: Doubles,
    bias: Doubles | None,
    bits: int,
    *,
    lowest_exponent: int = -102,
    sweeps: int = SWEEPS,
    strength: float | None = None,
) -> Reconstruction:
    """Weights and bias of one layer from what it should give.

    Args:
        rows: inputs, targets and the activation behind; those kept back choose the strength and are not fitted.
        weights: float weights [G, K, O].
        bias: [G, O], or None where the layer has none (then the inputs' means are no one else's to make up for).
        bits: width of the weights.
        lowest_exponent: no finer scale than this (Q5, or the room of an int32 bias: L11).
        sweeps: of coordinate descent; 0 is the quick version.
        strength: of the pull; by default the rows kept back choose.
    """
    whole = weights.shape[1] <= LARGEST
    if strength is None or not whole:
        strength = choose_strength(rows, weights, bias) if whole else STRENGTHS[0]
    problem = _Problem(rows.part(False), weights, bias, bits, strength, whole)
    finalists = _best_exponents(problem, lowest_exponent)
    if not (sweeps and whole):
        return problem.result(problem.judged(finalists[0]))
    swept = [problem.improved(problem.judged(each)) for each in finalists[:_FINALISTS]]
    best = min(swept, key=lambda each: each.loss)
    for _ in range(sweeps):
        found = problem.improved(best)
        if not found.loss < best.loss:
            break
        best = found
    return problem.result(best)


@dataclass(frozen=True)
class _Candidate:
    """Integers with the bias that fits them, their outputs float32 [G, P, O] and their loss."""

    integers: Doubles
    exponent: int
    bias: Doubles | None
    outputs: Singles
    loss: float


class _Problem:
    """A layer to be rounded: the real weights and what errors in them cost."""

    def __init__(self, rows: Rows, weights: Doubles, bias: Doubles | None, bits: int, strength: float, whole: bool) -> None:
        self.rows, self.weights, self.bias, self.strength = rows, weights, bias, strength
        self.few = rows.few()
        self.bounds = bounds(bits, True)
        self.bits = bits
        self._whole = whole
        if whole:
            self._moments = Moments.of(rows, bias=bias is not None)
            self._hessian = self._moments.pulled(strength)
            self.fitted = solve(rows, self._moments, weights, bias, strength)[0]
        else:
            self.fitted = weights
            self._hessian = _blocks(rows, strength, bias is not None)
        self._feedback = Feedback.of(self._hessian)

    def rounded(self, exponent: int) -> _Candidate:
        """On the grid of an exponent, by error feedback; judged by few rows."""
        scaled = np.ldexp(self.fitted, -exponent)
        if self._whole:
            return self._candidate(self.few, with_feedback(scaled, self._feedback, *self.bounds), exponent)
        groups, inputs, outputs = scaled.shape
        size = self._hessian.shape[1]
        cut = np.pad(scaled, ((0, 0), (0, -inputs % size), (0, 0))).reshape(-1, size, outputs)
        integers = with_feedback(cut, self._feedback, *self.bounds).reshape(groups, -1, outputs)[:, :inputs]
        return self._candidate(self.few, integers, exponent)

    def judged(self, found: _Candidate) -> _Candidate:
        """The same by all rows."""
        return self._candidate(self.rows, found.integers, found.exponent)

    def improved(self, found: _Candidate) -> _Candidate:
        """A sweep of coordinate descent; outputs that are clipped as they should be have no error, and targets that follow."""
        wanted = self.rows.wanted(found.outputs)
        pull = self._moments.pull(self.strength)[:, :, None]
        right = np.ldexp(self._moments.cross(wanted, bias=found.bias is not None) + pull * self.weights, -found.exponent)
        swept = self._candidate(self.rows, descend(found.integers, right, self._hessian, *self.bounds), found.exponent)
        return min(found, swept, key=lambda each: each.loss)

    def result(self, found: _Candidate) -> Reconstruction:
        """What is handed out."""
        return Reconstruction(found.integers, found.exponent, found.bias, self.strength, found.loss)

    def _candidate(self, rows: Rows, integers: Doubles, exponent: int) -> _Candidate:
        outputs = predict(rows, np.ldexp(integers, exponent), None)
        bias = None
        if self.bias is not None:
            bias = best_bias(rows, outputs)
            outputs += bias.astype(np.float32)[:, None, :]
        return _Candidate(integers, exponent, bias, outputs, rows.loss_of(outputs))


def _best_exponents(problem: _Problem, lowest_exponent: int) -> list[_Candidate]:
    """Exponents with the smallest loss first; where the data cannot tell, the one whose weights are closest to the given ones."""
    largest = float(np.abs(problem.fitted).max(initial=0.0))
    top = max((ceil_log2(largest) if largest > 0 else 0) + 2 - problem.bits, lowest_exponent)
    target = problem.few.clipped(problem.few.target)
    noise = _NOISE * float(np.mean(np.square(target), dtype=np.float64)) if target.size else 0.0
    found: list[_Candidate] = []
    for exponent in range(top, max(top - _OCTAVES, lowest_exponent - 1), -1):
        found.append(problem.rounded(exponent))
        if found[-1].loss > _HOPELESS * min(each.loss for each in found) + noise:
            break
    least = min(each.loss for each in found)

    def rank(each: _Candidate) -> tuple[float, float]:
        distance = float(np.square(np.ldexp(each.integers, each.exponent) - problem.weights).sum())
        return (0.0, distance) if each.loss <= least + noise else (each.loss, distance)

    return sorted(found, key=rank)


def _blocks(rows: Rows, strength: float, bias: bool) -> Doubles:
    """Hessians [G * blocks, size, size] as if inputs of different blocks were independent."""
    groups, _, inputs = rows.data.shape
    count = -(-inputs // LARGEST)
    size = -(-inputs // count)
    padded = np.pad(rows.data, ((0, 0), (0, 0), (0, count * size - inputs)))
    hessians = [
        Moments.of(Rows(padded[group : group + 1, :, start : start + size], rows.target, rows.held), bias=bias).pulled(strength)[0]
        for group in range(groups)
        for start in range(0, count * size, size)
    ]
    return np.stack(hessians)
