"""Constants that stand beside a tensor without being added to it: the bounds of a Clip, what a Pad fills in.

Where no int64 holds both on one grid, as with 1e-12 beside 8 bits, the constant is replaced by a number that everything behind
rounds alike. Whatever is monotone commutes with selecting, so the maximum, minimum or copy of such a number is rounded alike
too, and the integers behind the next QuantizeLinear are those of the constant itself.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import PASS_THROUGH, Grid, UnsupportedError, grid_of
from ...kernels.fixed_point import Integers
from ..fixed_tensor import FixedPoint, aligned, exact

_SELECTING: Final = (PASS_THROUGH | {"Clip", "Concat", "Identity", "Max", "Min", "Relu"}) - {"Resize"}
"""Operators that give back some of the numbers they are given."""

_FARTHEST: Final = 1 << 60
"""Stands for every integer beyond, where all grids behind have ended long before."""


def beside(node: onnx_ir.Node, x: FixedPoint, constant: npt.NDArray[Any]) -> tuple[list[Integers], int]:
    """The integers of `x` and of a float constant on one grid, and its exponent.

    Args:
        node: the Clip or Pad that selects between the two.
        x: its tensor.
        constant: finite floats.

    Raises:
        UnsupportedError: no grid of int64 holds both, and something else than roundings reads what is selected.
    """
    what = f"{node.op_type} {node.name!r}"
    try:
        return aligned((x, exact(constant, x.exponent)), what)
    except UnsupportedError:
        grids = _grids_behind(node.outputs[0])
        alike = _rounded_alike(np.asarray(constant, np.float64), x.exponent, grids) if grids else None
        if alike is None:
            raise
        return aligned((x, alike), what)


def _rounded_alike(numbers: npt.NDArray[np.float64], exponent: int, grids: Collection[Grid]) -> FixedPoint | None:
    """Numbers that every grid rounds as the given ones: which half of which step they are in, or that they are a tie, is kept.

    None where a number is beyond 2^60 on a grid so fine and another grid reaches that far.
    """
    fine = min(exponent, *(grid.exponent for grid in grids)) - 1
    scaled = np.ldexp(numbers, -fine)
    below = np.floor(scaled)
    stood_for = 2 * below + (below != scaled)  # on 2^(fine - 1): odd, between two numbers of 2^fine
    reach = max((max(abs(bound) for bound in grid.bounds) + 1) << (grid.exponent - fine + 1) for grid in grids)
    if np.abs(stood_for).max(initial=0) > _FARTHEST and reach > _FARTHEST:
        return None
    return FixedPoint(np.clip(stood_for, -_FARTHEST, _FARTHEST).astype(np.int64), fine - 1)


def _grids_behind(value: onnx_ir.Value) -> list[Grid] | None:
    """What a value is rounded to, itself or selected; None where anything else reads it."""
    grids, pending, seen = [], [value], {value}
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return None
        for reader, _ in value.uses():
            if reader.op_type == "QuantizeLinear":
                grids.append(grid_of(reader))
            elif reader.op_type in _SELECTING and reader.domain == "":
                fresh = [output for output in reader.outputs if output not in seen]
                pending += fresh
                seen.update(fresh)
            else:
                return None
    return grids
