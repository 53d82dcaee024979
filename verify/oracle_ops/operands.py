"""What flows between the operators of the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir

from ...ir import attribute
from ..fixed_tensor import FixedPoint

Operand = FixedPoint | npt.NDArray[Any]
"""A fixed-point tensor, or an array: float32 graph input, float64 behind an island, constant shape."""

Op = Callable[[onnx_ir.Node, Sequence[Operand | None]], Operand]
"""An operator: the node (for its attributes) and its inputs, None where an optional one is absent."""


def fixed(operand: Operand | None) -> FixedPoint:
    """The operand, which the oracle has already found to be fixed point."""
    assert isinstance(operand, FixedPoint)
    return operand


def optional(inputs: Sequence[Operand | None], index: int) -> Operand | None:
    """An input that may be absent."""
    return inputs[index] if index < len(inputs) else None


def sliding(node: onnx_ir.Node, spatial: int) -> dict[str, Any]:
    """Strides, dilations, pads and groups of a convolution over so many axes, as keyword arguments."""
    return {
        "strides": attribute(node, "strides", (1,) * spatial),
        "dilations": attribute(node, "dilations", (1,) * spatial),
        "pads": attribute(node, "pads", (0,) * 2 * spatial),
        "group": attribute(node, "group", 1),
    }


def window_at(starts: Sequence[int], strides: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
    """Index of the elements that one kernel tap meets: `size` of them from `starts` on, `strides` apart, last axes."""
    return (..., *(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, strides, size, strict=True)))
