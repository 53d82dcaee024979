"""The operators of the oracle: one function each, one literal table.

To add one: write the function, add its row, say in `objection` which of its forms it does not cover, test it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from ...ir import attribute, constant
from .conv import CONV
from .conv_transpose import CONV_TRANSPOSE
from .dense import DENSE
from .elementwise import ELEMENTWISE
from .movement import MOVEMENT, PAD_MODES, repeats_whole
from .operands import Op, Operand
from .pooling import POOLING
from .quantization import POOL_ROUNDINGS, QUANTIZATION, ROUNDINGS, quantize_with
from .roundings import Requantize

OPS: dict[str, Op] = {**QUANTIZATION, **CONV, **CONV_TRANSPOSE, **DENSE, **ELEMENTWISE, **POOLING, **MOVEMENT}
"""Every operator that is computed in integers, by ONNX name."""

MOVING = frozenset({**MOVEMENT, **POOLING})
"""Those that only select elements, so that they are exact on floats too."""


def rounding_ops(rounding: str) -> dict[str, Op]:
    """The operators with one of `ROUNDINGS`, to simulate a target (H1)."""
    return {**OPS, "QuantizeLinear": quantize_with(ROUNDINGS[rounding], POOL_ROUNDINGS.get(rounding))}


def objection(node: onnx_ir.Node) -> str | None:
    """Why a node is not computed in integers whatever its inputs are, or None."""
    if node.domain not in {"", "ai.onnx"} or node.op_type not in OPS:
        return f"{node.op_type} has no integer form"
    if node.op_type in {"Conv", "ConvTranspose", "MaxPool"} and attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return "auto_pad is set; explicit pads are expected"
    if node.op_type == "ConvTranspose" and (
        attribute(node, "output_shape", None) is not None or min(attribute(node, "pads", (0,))) < 0
    ):
        return "ConvTranspose with output_shape or negative pads"
    if node.op_type == "MaxPool" and (attribute(node, "ceil_mode", 0) or len(node.outputs) > 1):
        return "MaxPool with ceil_mode or indices"
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) != (1.0, 1.0):
        return "Gemm with alpha or beta other than 1"
    if node.op_type == "Pad":
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if attribute(node, "mode", "constant") not in PAD_MODES:
            return "Pad with an unknown mode"
        if fill is not None and not np.isfinite(fill.astype(float)).all():
            return "Pad with what is not finite"
    if node.op_type == "Resize" and not repeats_whole(node):
        return "Resize in another form than whole repetitions"
    if node.op_type in {"Reshape", "Pad", "Squeeze", "Unsqueeze", "Slice", "Gather", "Clip", "Tile"} and any(
        value is not None and constant(value) is None for value in node.inputs[1:]
    ):
        return f"{node.op_type} with computed parameters"
    return None


__all__ = [
    "MOVING",
    "OPS",
    "ROUNDINGS",
    "Op",
    "Operand",
    "Requantize",
    "objection",
    "quantize_with",
    "rounding_ops",
]
