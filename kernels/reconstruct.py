"""One layer with a power-of-two grid that reproduces the float layer's output from quantized inputs, in closed form.

Least squares moves the weights to what the quantized inputs ask for (`ridge`), the exponent is the one whose rounded weights
cost least *at the output* (not the one that covers the largest weight: weights of inputs that hardly vary may saturate),
rounding feeds its errors back (`rounding`), the bias takes up the mean error. No gradient steps, no learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .fixed_point import bounds, ceil_log2
from .ridge import STRENGTHS, Doubles, Moments, Rows, best_bias, choose_strength, predict, solve
from .rounding import cost, descend, with_feedback

SWEEPS: Final = 3
"""Sweeps of coordinate descent over the integers, each with the targets that the activation leaves free moved along."""

LARGEST: Final = 2048
"""Inputs of one output up to which the Hessian is taken as a whole; above, cut into blocks of at most so many."""

_OCTAVES: Final = 12
"""How far below the largest weight exponents are looked for."""

_HOPELESS: Final = 4.0
"""Finer exponents are not tried once one costs this many times the best: from there on saturation only grows."""


@dataclass(frozen=True)
class Reconstruction:
    """A layer on its grid.

    Attributes:
        integers: whole numbers, float64 [G, K, O].
        exponent: `log2` of the scale.
        bias: [G, O], or None where the layer has none.
        strength: pull towards the given weights that was chosen.
    """

    integers: Doubles
    exponent: int
    bias: Doubles | None
    strength: float

    @property
    def weights(self) -> Doubles:
        """The real numbers that the integers stand for."""
        return np.ldexp(self.integers, self.exponent)


def reconstruct(
    rows: Rows, weights: Doubles, bias: Doubles | None, bits: int, *, lowest_exponent: int = -102, sweeps: int = SWEEPS
) -> Reconstruction:
    """Weights and bias of one layer from what it should give.

    Args:
        rows: inputs, targets and the activation behind; those kept back choose the strength and are not fitted.
        weights: float weights [G, K, O].
        bias: [G, O], or None where the layer has none (then the inputs' means are no one else's to make up for).
        bits: width of the weights.
        lowest_exponent: no finer scale than this (Q5, or the room of an int32 bias: L11).
        sweeps: of coordinate descent; 0 is the quick version.
    """
    if weights.shape[1] > LARGEST:
        return _in_blocks(rows.part(False), weights, bias, bits, lowest_exponent)
    strength = choose_strength(rows, weights, bias)
    seen = rows.part(False)
    moments = Moments.of(seen, bias=bias is not None)
    fitted, _ = solve(seen, moments, weights, bias, strength)
    hessian = moments.pulled(strength)
    exponent, integers = _best_exponent(fitted, hessian, bits, lowest_exponent)
    offset = None if bias is None else best_bias(seen.target, seen, np.ldexp(integers, exponent))
    found = Reconstruction(integers, exponent, offset, strength)
    loss = seen.loss(found.weights, offset)
    for _ in range(sweeps):
        better = _sweep(seen, moments, weights, found, bits, hessian)
        lower = seen.loss(better.weights, better.bias)
        if not lower < loss:
            break
        found, loss = better, lower
    return found


def _in_blocks(seen: Rows, weights: Doubles, bias: Doubles | None, bits: int, lowest_exponent: int) -> Reconstruction:
    """A layer with very many inputs: the float weights, rounded as if inputs of different blocks were independent."""
    groups, inputs, outputs = weights.shape
    blocks = -(-inputs // LARGEST)
    size = -(-inputs // blocks)
    fill = ((0, 0), (0, blocks * size - inputs), (0, 0))
    cut = np.pad(weights, fill).reshape(groups * blocks, size, outputs)
    hessian = np.empty((groups * blocks, size, size))
    strength = STRENGTHS[0]
    for index in range(groups * blocks):
        group, block = divmod(index, blocks)
        data = seen.data[group : group + 1, :, block * size : (block + 1) * size]
        data = np.pad(data, ((0, 0), (0, 0), (0, size - data.shape[2])))
        part = Rows(data, seen.target[:1, :, :0], seen.held)
        hessian[index] = Moments.of(part, bias=bias is not None).pulled(strength)[0]
    exponent, integers = _best_exponent(cut, hessian, bits, lowest_exponent)
    integers = integers.reshape(groups, blocks * size, outputs)[:, :inputs]
    offset = None if bias is None else best_bias(seen.target, seen, np.ldexp(integers, exponent))
    return Reconstruction(integers, exponent, offset, float("inf"))


def _best_exponent(fitted: Doubles, hessian: Doubles, bits: int, lowest_exponent: int) -> tuple[int, Doubles]:
    """The exponent that costs least at the output, a tie to the finer one, and its integers."""
    lowest, highest = bounds(bits, True)
    largest = float(np.abs(fitted).max(initial=0.0))
    top = max((ceil_log2(largest) if largest > 0 else 0) + 2 - bits, lowest_exponent)
    best, best_cost, best_integers = top, np.inf, np.zeros_like(fitted)
    for exponent in range(top, max(top - _OCTAVES, lowest_exponent - 1), -1):
        scaled = np.ldexp(fitted, -exponent)
        integers = with_feedback(scaled, hessian, lowest, highest)
        found = float(np.ldexp(cost(integers, scaled, hessian), 2 * (exponent - top)))  # all in one unit
        if found <= best_cost:
            best, best_cost, best_integers = exponent, found, integers
        elif found > _HOPELESS * best_cost:
            break
    return best, best_integers


def _sweep(seen: Rows, moments: Moments, weights: Doubles, found: Reconstruction, bits: int, hessian: Doubles) -> Reconstruction:
    """A sweep towards the targets as the activation leaves them: an output that is clipped as it should be has no error."""
    moving = found.bias is not None
    wanted = seen.wanted(predict(seen, found.weights, found.bias))
    pull = moments.pull(found.strength)[:, :, None]
    minimum = np.linalg.solve(hessian, moments.cross(wanted, bias=moving) + pull * weights)
    integers = descend(found.integers, np.ldexp(minimum, -found.exponent), hessian, *bounds(bits, True))
    bias = found.bias
    if moving:
        bias = best_bias(
            seen.wanted(predict(seen, np.ldexp(integers, found.exponent), bias)), seen, np.ldexp(integers, found.exponent)
        )
    return Reconstruction(integers, found.exponent, bias, found.strength)
