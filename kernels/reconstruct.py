"""One layer on a power-of-two grid that reproduces the float layer's output from quantized inputs, in closed form.

Least squares moves the weights to what the quantized inputs ask for (`ridge`), rounding feeds its errors back (`rounding`), the
bias takes up the mean error. The exponent is the one whose layer is best *behind its activation*, not the one that covers the
largest weight: weights of inputs that hardly vary, or of outputs that are clipped anyway, may saturate. There are no gradient
steps and no learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
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
        in_time: whether nothing was left out because time was up.
    """

    integers: Doubles
    exponent: int
    bias: Doubles | None
    strength: float
    loss: float
    in_time: bool = True

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
    late: Callable[[], bool] = lambda: False,
) -> Reconstruction:
    """Weights and bias of one layer from what it should give.

    Takes, beside the rows, at most: their data once more (the few that compare exponents), six times their targets (outputs of the
    candidates, and what they should be), six float64 [G, K, K] (the Hessian, its inverse and their factors) and nine float64
    [G, K, O]. With more than `LARGEST` inputs the Hessians are those of the blocks.

    Args:
        rows: inputs, targets and the activation behind; those kept back choose the strength and are not fitted.
        weights: float weights [G, K, O].
        bias: [G, O], or None where the layer has none (then the inputs' means are no one else's to make up for).
        bits: width of the weights.
        lowest_exponent: no finer scale than this (Q5, or the room of an int32 bias: L11).
        sweeps: of coordinate descent; 0 is the quick version.
        strength: of the pull; by default the rows kept back choose.
        late: whether time is up: no more strengths are tried then and no more sweeps made. Asked before each, so that as long as
            it says no the result does not depend on it.
    """
    clock = _Clock(late)
    seen, whole = rows.part(False), weights.shape[1] <= LARGEST
    moments = Moments(seen, bias=bias is not None) if whole else None
    if moments is None:
        strength = STRENGTHS[0]
    elif strength is None:
        strength = choose_strength(seen, rows.part(True), moments, weights, bias, late=clock)
    problem = _Problem(seen, moments, weights, bias, bits, strength)
    first, *others = _best_exponents(problem, lowest_exponent)
    best = problem.judged(first)
    if sweeps and whole and not clock():
        best = problem.improved(best)
        for other in others:
            if not clock():
                best = min(best, problem.improved(problem.judged(other)), key=lambda each: each.loss)
        for _ in range(sweeps):
            found = best if clock() else problem.improved(best)
            if not found.loss < best.loss:
                break
            best = found
    return Reconstruction(best.integers, best.exponent, best.bias, strength, best.loss, not clock.was_late)


class _Clock:
    """Remembers whether it has ever said that time is up."""

    def __init__(self, late: Callable[[], bool]) -> None:
        self._late, self.was_late = late, False

    def __call__(self) -> bool:
        self.was_late = self.was_late or self._late()
        return self.was_late


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

    def __init__(
        self, rows: Rows, moments: Moments | None, weights: Doubles, bias: Doubles | None, bits: int, strength: float
    ) -> None:
        self.rows, self.weights, self.bias, self.strength = rows, weights, bias, strength
        self.few = rows.few()
        self.bounds = bounds(bits, True)
        self.bits = bits
        self._moments = moments
        if moments is not None:
            self.fitted = solve(rows, moments, weights, bias, strength)
            self._hessian = moments.pulled(strength)
            self._feedback = Feedback.of(self._hessian)
        else:
            self.fitted = weights
            self._feedback = Feedback.of(_blocks(rows, strength, bias is not None))

    def rounded(self, exponent: int) -> _Candidate:
        """On the grid of an exponent, by error feedback; judged by few rows."""
        scaled = np.ldexp(self.fitted, -exponent)
        if self._moments is not None:
            return self._candidate(self.few, with_feedback(scaled, self._feedback, *self.bounds), exponent)
        groups, inputs, outputs = scaled.shape
        size = self._feedback.order.shape[1]
        cut = np.pad(scaled, ((0, 0), (0, -inputs % size), (0, 0))).reshape(-1, size, outputs)
        integers = with_feedback(cut, self._feedback, *self.bounds).reshape(groups, -1, outputs)[:, :inputs]
        return self._candidate(self.few, integers, exponent)

    def judged(self, found: _Candidate) -> _Candidate:
        """The same by all rows."""
        return self._candidate(self.rows, found.integers, found.exponent)

    def improved(self, found: _Candidate) -> _Candidate:
        """A sweep of coordinate descent; outputs that are clipped as they should be have no error, and targets that follow."""
        assert self._moments is not None
        right = self._moments.cross(self.rows.wanted(found.outputs))
        right += self._moments.pull(self.strength)[:, :, None] * self.weights
        np.ldexp(right, -found.exponent, out=right)
        swept = self._candidate(self.rows, descend(found.integers, right, self._hessian, *self.bounds), found.exponent)
        return min(found, swept, key=lambda each: each.loss)

    def _candidate(self, rows: Rows, integers: Doubles, exponent: int) -> _Candidate:
        outputs = predict(rows, np.ldexp(integers, exponent), None)
        bias = None
        if self.bias is not None:
            bias = best_bias(rows, outputs)
            outputs += bias.astype(np.float32)[:, None, :]
        return _Candidate(integers, exponent, bias, outputs, rows.loss_of(outputs))


def _best_exponents(problem: _Problem, lowest_exponent: int) -> list[_Candidate]:
    """The finalists, smallest loss first; where the data cannot tell, the one whose weights are closest to the given ones."""
    largest = float(np.abs(problem.fitted).max(initial=0.0))
    top = max((ceil_log2(largest) if largest > 0 else 0) + 2 - problem.bits, lowest_exponent)
    target = problem.few.clipped(problem.few.target)
    noise = _NOISE * float(np.mean(np.square(target), dtype=np.float64)) if target.size else 0.0
    least = np.inf
    found: list[tuple[_Candidate, float]] = []  # with the distance from the given weights; no more are kept than are needed
    for exponent in range(top, max(top - _OCTAVES, lowest_exponent - 1), -1):
        tried = problem.rounded(exponent)
        moved = np.ldexp(tried.integers, exponent)
        moved -= problem.weights
        least = min(least, tried.loss)
        found.append((tried, float(np.square(moved, out=moved).sum())))
        found.sort(key=lambda each: (each[0].loss if each[0].loss > least + noise else 0.0, each[1]))
        del found[_FINALISTS:]
        if tried.loss > _HOPELESS * least + noise:
            break
    return [each for each, _ in found]


def _blocks(rows: Rows, strength: float, bias: bool) -> Doubles:
    """Hessians [G * blocks, size, size] as if inputs of different blocks were independent."""
    groups, _, inputs = rows.data.shape
    count = -(-inputs // LARGEST)
    size = -(-inputs // count)
    hessians = np.empty((groups, count, size, size))
    for group in range(groups):
        for block in range(count):
            data = rows.data[group : group + 1, :, block * size : (block + 1) * size]
            data = np.pad(data, ((0, 0), (0, 0), (0, size - data.shape[2])))
            hessians[group, block] = Moments(Rows(data, rows.target, rows.held), bias=bias).pulled(strength)[0]
    return hessians.reshape(-1, size, size)
