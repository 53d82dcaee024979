"""What a single node is to quantization: the role lowering gave it, a rectifier, a leaky relu. No flow, no neighbours' scales."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import ROLE_KEY, attribute, constant

INPUT_ROLE = "input"
RESCALE_ROLE = "rescale"
RECIPROCAL_ROLE = "reciprocal"
SUM_ROLE = "sum"
"""An average pool as one convolution, or as a convolution that adds up and a Mul with a map of reciprocals (L6)."""
REQUANTIZE_ROLE = "requantize"
BIAS_ROLE = "bias"
SLOPE_ROLE = "slope"
LEAKY_ROLE = "leaky"
"""The Mul and the Max (or Min) that a leaky relu is lowered to (L3)."""

OWN_ROLES = frozenset({INPUT_ROLE, RESCALE_ROLE, REQUANTIZE_ROLE})
"""Identity nodes with one of these roles exist so that a quantizer has a value of its own (S)."""


def role_of(node: onnx_ir.Node) -> str:
    """The recorded reason of a lowered node, or the empty string."""
    return node.metadata_props.get(ROLE_KEY, "")


def upper_limit(node: onnx_ir.Node) -> float | None:
    """`c` of a `Clip(0, c)` with constant finite bounds (relu6), else None."""
    if node.op_type != "Clip" or len(node.inputs) < 3:
        return None
    low, high = constant(node.inputs[1]), constant(node.inputs[2])
    if low is None or high is None or low.size != 1 or high.size != 1 or float(low.item()) != 0.0:
        return None
    limit = float(high.item())
    return limit if 0.0 < limit < float("inf") else None


def is_rectifier(node: onnx_ir.Node | None) -> bool:
    """Whether the node is a relu, or a Clip with constant bounds: monotone, hence at home between a sum and its rounding."""
    if node is None or node.domain != "":
        return False
    bounds = [constant(value) for value in node.inputs[1:] if value is not None]
    return node.op_type == "Relu" or (node.op_type == "Clip" and all(bound is not None and bound.size == 1 for bound in bounds))


def is_unsigned_rectifier(node: onnx_ir.Node) -> bool:
    """Whether nothing negative leaves a rectifier."""
    if node.op_type == "Relu":
        return True
    low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return low is not None and float(low.item()) >= 0.0


def leaky_slopes(node: onnx_ir.Node) -> npt.NDArray[np.float64] | None:
    """`a` of a leaky relu, whole or lowered to `Max(x, a * x)`, else None; what is not finite has no fixed-point form.

    One number or several, which meet the input by broadcasting: one per channel, for instance.
    """
    slopes: npt.NDArray[np.float64] | None = None
    if node.op_type == "LeakyRelu" and node.domain == "":
        slopes = np.asarray(attribute(node, "alpha", 0.01), np.float64)
    elif node.op_type == "PRelu" and node.domain == "":
        array = constant(node.inputs[1])
        slopes = None if array is None else array.astype(np.float64)
    elif role_of(node) == LEAKY_ROLE and len(node.inputs) == 2 and node.inputs[1]:
        scaled = node.inputs[1].producer()
        alpha = constant(scaled.inputs[1]) if scaled is not None and is_slope(scaled) else None
        slopes = None if alpha is None else alpha.astype(np.float64)
    return slopes if slopes is not None and slopes.size and np.isfinite(slopes).all() else None


def leaky_slope(node: onnx_ir.Node) -> float | None:
    """The slope of a leaky relu that has one, else None."""
    slopes = leaky_slopes(node)
    return float(slopes.item()) if slopes is not None and slopes.size == 1 else None


def is_slope(node: onnx_ir.Node) -> bool:
    """Whether the node is the `a * x` of a lowered leaky relu."""
    return role_of(node) == SLOPE_ROLE and node.op_type == "Mul" and constant(node.inputs[1]) is not None
