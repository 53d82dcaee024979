"""What small operators compute from one tensor, as polynomials: the algebra in which `normalizations` looks for its forms.

Every value computed from x is a polynomial with constant coefficients in x, m = mean(x), q = mean(x^2) and d, the one square
root. Means, sums, products, negations, squares, reciprocals and divisions by d stay within, whatever their order; the variance
is q - m^2 from E[(x - m)^2] and from E[x^2] - m^2 alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir

from ..ir import constant, consumers, only_consumer, static_shape
from .layers import rank_of
from .mean_to_global_average_pool import reduced_axes
from .rewriting import Float64, is_op

Powers = tuple[int, int, int, int]
"""Exponents of x, m, q and d."""

Polynomial = dict[Powers, Float64]
"""Exponents -> coefficient, of the rank of x."""

_X: Powers = (1, 0, 0, 0)
ONE: Powers = (0, 0, 0, 0)
_Q: Powers = (0, 0, 1, 0)
_MM: Powers = (0, 2, 0, 0)
_ROOT: Powers = (0, 0, 0, 1)
X_OVER_ROOT: Powers = (1, 0, 0, -1)
M_OVER_ROOT: Powers = (0, 1, 0, -1)

_MOST_POWERS = 4
"""Of x, in all: a square of what is itself one of x is nobody's normalization."""


@dataclass(frozen=True)
class Root:
    """What the square root is taken of, divided by the coefficient of the variance.

    Attributes:
        centred: the variance, else the mean of squares.
        epsilon: added to it.
        floor: it is at least that much, or None.
    """

    centred: bool
    epsilon: float
    floor: float | None = None


@dataclass
class Algebra:
    """Polynomials of what is computed from one tensor with means over the same axes."""

    source: onnx_ir.Value
    axes: tuple[int, ...]
    shape: tuple[int | None, ...]
    root: Root | None = None
    known: dict[onnx_ir.Value, Polynomial] = field(default_factory=dict)
    floors: dict[onnx_ir.Value, float] = field(default_factory=dict)
    """Bounds from below: only a square root may read such a value."""

    @property
    def count(self) -> int:
        """Number of elements that a mean is taken of."""
        return math.prod(size for axis in self.axes if (size := self.shape[axis]) is not None)

    def walk(self) -> list[onnx_ir.Value]:
        """Finds the polynomials, from the source downwards; the values in the order in which they were found."""
        self.known[self.source] = {_X: np.ones((1,) * len(self.shape))}
        pending = [self.source]
        for value in pending:
            for node in consumers(value):
                result = node.outputs[0]
                if (
                    result in self.known
                    or len(node.outputs) != 1
                    or node.op_type not in _RULES
                    or node.domain not in ("", "ai.onnx")
                ):
                    continue
                if value in self.floors and not is_op(node, "Sqrt"):
                    continue
                found = _RULES[node.op_type](self, node)
                if found is not None and sum(max(map(abs, powers)) for powers in found) <= _MOST_POWERS * len(found):
                    self.known[result] = found
                    pending.append(result)
        return pending[1:]

    def operand(self, value: onnx_ir.Value | None) -> Polynomial | None:
        """The polynomial of a value or constant that meets others element by element in the order of axes of x."""
        rank, array = len(self.shape), constant(value)
        if array is not None:
            fits = array.ndim <= rank and array.dtype.kind == "f" and np.isfinite(array).all()
            return {ONE: array.astype(np.float64).reshape((1,) * (rank - array.ndim) + array.shape)} if fits else None
        found = None if value is None else self.known.get(value)
        if found is None or value is None or rank_of(value) != rank:
            return None
        if all(powers[0] == 0 for powers in found) and not self._keeps_axes(value):
            return None
        return found

    def _keeps_axes(self, value: onnx_ir.Value) -> bool:
        """Whether the axes of what is computed from means alone are still those of x: one element where a mean was taken."""
        shape = static_shape(value)
        if shape is None:
            return False
        sizes = [(1,) if axis in self.axes else (1, size) for axis, size in enumerate(self.shape)]
        constants = (array.shape for array in self.known[value].values())
        widest = [max(lengths) for lengths in zip(*constants, strict=True)]
        return all(size in allowed or size == wide for size, allowed, wide in zip(shape, sizes, widest, strict=True))

    def mean(self, found: Polynomial) -> Polynomial | None:
        """E over the axes, where nothing but x itself changes along them."""
        total: Polynomial = {}
        for (x, m, q, d), factor in found.items():
            if x > 2 or any(factor.shape[axis] != 1 for axis in self.axes):
                return None
            total = _plus(total, {(0, m + (x == 1), q + (x == 2), d): factor})
        return total


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for powers, factor in left.items():
        for others, another in right.items():
            both = tuple(a + b for a, b in zip(powers, others, strict=True))
            total = _plus(total, {both: factor * another})  # type: ignore[dict-item]
    return total


def _plus(left: Polynomial, right: Polynomial) -> Polynomial:
    total = dict(left)
    for powers, factor in right.items():
        total[powers] = total[powers] + factor if powers in total else factor
    return {powers: factor for powers, factor in total.items() if factor.any()}


def _scaled(found: Polynomial, number: float) -> Polynomial:
    return {powers: number * factor for powers, factor in found.items()}


def _operands(algebra: Algebra, node: onnx_ir.Node) -> list[Polynomial] | None:
    found = [algebra.operand(value) for value in node.inputs]
    return None if any(item is None for item in found) else [item for item in found if item is not None]


def _of_two(
    function: Callable[[Polynomial, Polynomial], Polynomial | None],
) -> Callable[[Algebra, onnx_ir.Node], Polynomial | None]:
    def rule(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
        found = _operands(algebra, node)
        return None if found is None or len(found) != 2 else function(*found)

    return rule


def _reciprocal(found: Polynomial) -> Polynomial | None:
    """Of a number, or of a power of the root; of nothing else."""
    if len(found) != 1:
        return None
    [((x, m, q, d), factor)] = found.items()
    return None if x or m or q or not factor.all() else {(0, 0, 0, -d): 1.0 / factor}


def _divided(left: Polynomial, right: Polynomial) -> Polynomial | None:
    inverse = _reciprocal(right)
    return None if inverse is None else _times(left, inverse)


def _one(function: Callable[[Polynomial], Polynomial | None]) -> Callable[[Algebra, onnx_ir.Node], Polynomial | None]:
    def rule(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
        found = _operands(algebra, node)
        return None if found is None else function(found[0])

    return rule


def _reduction(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    found = algebra.operand(node.inputs[0])
    if found is None or reduced_axes(node) != algebra.axes or all(powers[0] == 0 for powers in found):
        return None
    mean = algebra.mean(found)
    return mean if mean is None or is_op(node, "ReduceMean") else _scaled(mean, algebra.count)


def _moved(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    """Means without their axes, and with them again: `operand` looks at the shape before they are used."""
    found = algebra.known.get(node.inputs[0]) if node.inputs[0] is not None else None
    plain = found is not None and all(powers[0] == 0 and factor.size == 1 for powers, factor in found.items())
    return found if plain else None


def _maximum(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    """max(c * q, floor), for the square root."""
    found = _operands(algebra, node)
    if found is None or len(found) != 2:
        return None
    least, data = sorted(found, key=lambda item: item.keys() != {ONE})
    if least.keys() != {ONE} or least[ONE].size != 1 or data.keys() != {_Q} or least[ONE].item() <= 0:
        return None
    algebra.floors[node.outputs[0]] = float(least[ONE].item())
    return data


def _minimum(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    """min(k / sqrt(q), c), which is k over the root of what is at least (k / c)^2, where nobody reads that root without bound."""
    found = _operands(algebra, node)
    if found is None or len(found) != 2 or algebra.root is None or algebra.root.centred or algebra.root.floor is not None:
        return None
    most, data = sorted(found, key=lambda item: item.keys() != {ONE})
    bounded = next((value for value in node.inputs if value in algebra.known), None)
    root = None if bounded is None or bounded.producer() is None else bounded.producer().inputs[0]  # type: ignore[union-attr]
    if most.keys() != {ONE} or most[ONE].size != 1 or most[ONE].item() <= 0 or data.keys() != {(0, 0, 0, -1)}:
        return None
    if bounded is None or root is None or only_consumer(bounded) is not node or only_consumer(root) is not bounded.producer():
        return None
    factor = data[0, 0, 0, -1]
    if factor.size != 1 or algebra.root.epsilon:
        return None
    algebra.root = replace(algebra.root, floor=float(factor.item() / most[ONE].item()) ** 2)
    return data


def _root(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    """sqrt(c * v + eps) = sqrt(c) * d with d = sqrt(v + eps / c); the same root wherever one is taken."""
    found = algebra.operand(node.inputs[0])
    if found is None or _Q not in found or any(factor.size != 1 for factor in found.values()):
        return None
    numbers = {powers: float(factor.item()) for powers, factor in found.items()}
    factor, epsilon, square = numbers.pop(_Q), numbers.pop(ONE, 0.0), numbers.pop(_MM, 0.0)
    if numbers or factor <= 0 or epsilon < 0 or square not in (0.0, -factor):
        return None
    floor = algebra.floors.get(node.inputs[0]) if node.inputs[0] is not None else None
    root = Root(square != 0.0, epsilon / factor, None if floor is None else floor / factor)
    if algebra.root not in (None, root):
        return None
    algebra.root = root
    return {_ROOT: np.full((1,) * len(algebra.shape), math.sqrt(factor))}


def _power(algebra: Algebra, node: onnx_ir.Node) -> Polynomial | None:
    exponent = constant(node.inputs[1])
    if exponent is None or exponent.size != 1 or float(exponent.item()) not in (2.0, 0.5, -0.5):
        return None
    if float(exponent.item()) == 2.0:
        found = algebra.operand(node.inputs[0])
        return None if found is None else _times(found, found)
    found = _root(algebra, node)
    return found if found is None or exponent.item() > 0 else _reciprocal(found)


_RULES: dict[str, Callable[[Algebra, onnx_ir.Node], Polynomial | None]] = {
    "Add": _of_two(_plus),
    "Sub": _of_two(lambda left, right: _plus(left, _scaled(right, -1.0))),
    "Mul": _of_two(_times),
    "Div": _of_two(_divided),
    "Neg": _one(lambda found: _scaled(found, -1.0)),
    "Identity": _one(lambda found: found),
    "Reciprocal": _one(_reciprocal),
    "Pow": _power,
    "Sqrt": _root,
    "Max": _maximum,
    "Min": _minimum,
    "ReduceMean": _reduction,
    "ReduceSum": _reduction,
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape"), _moved),
}
"""What stays within the algebra."""
