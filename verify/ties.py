"""Ties: requantizations in which the rounding rule decides (H1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir

from ..ir import Grid, grid_of, kept_bounds, name_of
from .fixed_tensor import FixedPoint
from .oracle_ops import Operand


def count_ties(x: FixedPoint, grid: Grid, bounds: tuple[int, int] | None = None) -> int:
    """How many numbers lie exactly between two integers, and are not both saturated to the same one.

    Args:
        x: what is rounded.
        grid: what it is rounded to.
        bounds: of what is kept behind the rounding (a relu6's); those of the grid where None.
    """
    shift = grid.exponent - x.exponent
    if not 0 < shift <= 62:
        return 0
    low, high = grid.bounds if bounds is None else bounds
    floor = x.integers >> shift
    halfway = (x.integers & ((1 << shift) - 1)) == 1 << (shift - 1)
    return int((halfway & (floor >= low) & (floor < high)).sum())


@dataclass(frozen=True, slots=True)
class TensorTies:
    """How often the rounding rule decides in one tensor.

    Attributes:
        tensor: the integer tensor.
        ties: numbers that lay exactly between two of its integers.
        requantized: numbers that were rounded.
    """

    tensor: str
    ties: int
    requantized: int

    @property
    def share(self) -> float:
        """Ties among the rounded numbers, 0 to 1."""
        return self.ties / self.requantized if self.requantized else 0.0


class TieCounter:
    """An observer for `Oracle.run` that counts ties where integers are brought to a coarser grid; no other step rounds.

    Attributes:
        ties: integer tensor -> ties.
        requantized: integer tensor -> numbers rounded.
    """

    def __init__(self) -> None:
        self.ties: Counter[str] = Counter()
        self.requantized: Counter[str] = Counter()

    def __call__(self, node: onnx_ir.Node, inputs: Sequence[Operand | None], _output: Operand) -> None:
        """Looks at one node."""
        x = inputs[0]
        if node.op_type == "QuantizeLinear" and isinstance(x, FixedPoint):
            grid = grid_of(node)
            if grid.exponent > x.exponent:  # a carry pair copies, a finer grid shifts left
                name = name_of(node.outputs[0])
                self.ties[name] += count_ties(x, grid, kept_bounds(node))
                self.requantized[name] += x.integers.size
