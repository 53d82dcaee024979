"""Functions of one integer: a table with an entry for each (L12).

    q8 -> DequantizeLinear -> x -> [ Sigmoid, Mul, ... ] -> y -> QuantizeLinear -> q8

Between the two there is no rounding to agree on, only a number of float32 arithmetic, and the integer next to it. The table is
the definition: the function in float64, rounded by Q1 and Q2. It is certified where no float32 evaluation within the bound of
`float_error` can reach another integer:

    |f(x) / s - (k + 1/2)|  >  error(x) / s           for every entry x and every boundary k + 1/2 between two integers
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from ..ir import FunctionRegion, Grid, grid_of
from ..kernels import fixed_point
from ..kernels.fixed_point import Integers
from ..kernels.functions import Reals, run
from .fixed_tensor import FixedPoint
from .float_error import with_error

MOST_ENTRIES = 1 << 16
"""A function of more integers than this is computed number by number, and not certified."""


def values(region: FunctionRegion, x: FixedPoint) -> Reals:
    """What the region computes of integers, in float64: every number that occurs is computed once.

    Args:
        region: a function of one number.
        x: int64 of any shape, and their scale.

    Returns:
        float64 of that shape.
    """
    if x.integers.size == 0:
        return np.zeros(x.integers.shape)
    low, high = int(x.integers.min()), int(x.integers.max())
    if high - low >= MOST_ENTRIES:
        return run(region.steps(), x.real())
    return run(region.steps(), FixedPoint(np.arange(low, high + 1), x.exponent).real())[x.integers - low]


@dataclass(frozen=True, eq=False)
class Table:
    """All entries of a function, and how safe they are.

    Attributes:
        inputs: the integers it is a function of, ascending.
        integers: the entry of each.
        distances: how far each exact value is from the next boundary between two integers, in steps of the output.
        errors: how far float32 arithmetic can be from it, in steps of the output.
    """

    inputs: Integers
    integers: Integers
    distances: Reals
    errors: Reals

    @property
    def undecided(self) -> tuple[int, ...]:
        """Inputs for which float32 arithmetic may reach another integer than the table's."""
        unsafe = ~((self.errors == 0) | (self.distances > self.errors))
        return tuple(self.inputs[unsafe].tolist())


def make_table(region: FunctionRegion, low: int, high: int, exponent: int, grid: Grid) -> Table:
    """The table of a region.

    Args:
        region: a function of one number.
        low: smallest integer that it is given.
        high: largest one.
        exponent: binary logarithm of their scale.
        grid: of what its result is rounded to.
    """
    inputs = np.arange(low, high + 1, dtype=np.int64)
    exact, error = with_error(region.steps(), FixedPoint(inputs, exponent).real())
    integers = fixed_point.quantize(np.where(np.isnan(exact), 0.0, exact), grid.exponent, grid.bits, grid.signed)
    least, most = grid.bounds
    with np.errstate(all="ignore"):
        steps = np.ldexp(exact, -grid.exponent)
        boundary = np.clip(np.floor(steps) + 0.5, least + 0.5, most - 0.5)
        distances = np.where(np.isfinite(steps), np.abs(steps - boundary), np.where(np.isnan(steps), 0.0, np.inf))
        errors = np.where(np.isnan(exact), np.inf, np.ldexp(error, -grid.exponent))
    return Table(inputs, integers, distances, errors)


def grid_behind(region: FunctionRegion) -> Grid:
    """The grid that the result is rounded to."""
    (quantize,) = {node for node, _ in region.exit.uses()}
    return grid_of(quantize)


def rounded_once(region: FunctionRegion) -> onnx_ir.Value | None:
    """The integers that the result is rounded to where nothing else reads it, else None."""
    readers = {node for node, _ in region.exit.uses()}
    if region.exit.is_graph_output() or len(readers) != 1:
        return None
    (reader,) = readers
    return reader.outputs[0] if reader.op_type == "QuantizeLinear" else None
