"""Ties: requantizations in which the rounding rule decides (H1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir

from ..ir import name_of
from .fixed_tensor import FixedPoint
from .oracle_ops import Grid, Operand, grid_of


def count_ties(x: FixedPoint, grid: Grid) -> int:
    """How many numbers lie exactly between two integers of the grid, and are not both saturated to the same one."""
    shift = grid.exponent - x.exponent
    if not 0 < shift <= 62:
        return 0
    low, high = grid.bounds
    floor = x.integers >> shift
    halfway = (x.integers & ((1 << shift) - 1)) == 1 << (shift - 1)
    return int((halfway & (floor >= low) & (floor < high)).sum())


class TieCounter:
    """An observer for `Oracle.run` that counts ties.

    Attributes:
        ties: integer tensor -> ties.
        requantized: integer tensor -> numbers requantized.
    """

    def __init__(self) -> None:
        self.ties: Counter[str] = Counter()
        self.requantized: Counter[str] = Counter()

    def __call__(self, node: onnx_ir.Node, inputs: Sequence[Operand | None], _output: Operand) -> None:
        """Looks at one node."""
        x = inputs[0]
        if node.op_type == "QuantizeLinear" and isinstance(x, FixedPoint):
            name = name_of(node.outputs[0])
            self.ties[name] += count_ties(x, grid_of(node))
            self.requantized[name] += x.integers.size
