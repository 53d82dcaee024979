"""What a layer costs: parameters, multiply-accumulates, bytes of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx_ir

from ..ir import COMPUTE, Quantizer, attribute, name_of, static_shape
from ..passes.node_roles import RECIPROCAL_ROLE, SLOPE_ROLE, SUM_ROLE, role_of

FLOAT_BYTES = 4


def parameters(nodes: Iterable[onnx_ir.Node]) -> dict[str, int]:
    """Trained constants the nodes read: name -> number of elements.

    Weights, biases and float addends or factors count; shapes, pads, bounds, the reciprocals of average pools and the slopes
    of leaky relus do not.
    """
    found = {}
    for node in nodes:
        if node.op_type in ("Clip", "Pad", "QuantizeLinear", "Resize") or role_of(node) in (RECIPROCAL_ROLE, SLOPE_ROLE, SUM_ROLE):
            continue
        for value in node.inputs:
            tensor = None if value is None or value.is_graph_input() else value.const_value
            if tensor is not None and (tensor.dtype.is_floating_point() or node.op_type == "DequantizeLinear"):
                found[name_of(value)] = int(math.prod(tensor.shape.numpy()))
    return found


def multiply_accumulates(node: onnx_ir.Node) -> int | None:
    """Products of one example in a compute layer; None where a shape is not known, 0 for all other operators."""
    if node.op_type not in COMPUTE or node.domain not in ("", "ai.onnx"):
        return 0
    output, weight = static_shape(node.outputs[0]), _shape(node.inputs[1])
    if output is None or weight is None:
        return None
    positions = output[1:]  # the first dimension counts examples
    if any(dim is None for dim in positions):
        return None
    if node.op_type == "ConvTranspose":  # every input meets all taps, also those whose outputs are cut off
        positions = (static_shape(node.inputs[0]) or (None, None))[1:] if node.inputs[0] is not None else (None,)
        if any(dim is None for dim in positions):
            return None
    depth = math.prod(weight[1:]) if node.op_type in ("Conv", "ConvTranspose") else _depth(node, weight)
    return math.prod(dim for dim in positions if dim is not None) * depth if depth else None


def weight_bytes(sizes: Mapping[str, int], quantizers: Mapping[str, Quantizer]) -> int:
    """Bytes of constants as a Q/DQ model stores them: 4 bits packed, else whole bytes; float where there is no quantizer."""
    return sum(_bytes(size, quantizers.get(name)) for name, size in sizes.items())


def _bytes(size: int, quantizer: Quantizer | None) -> int:
    if quantizer is None:
        return FLOAT_BYTES * size
    if quantizer.bits == 4:
        return (size + 1) // 2
    return size * (1 if quantizer.bits <= 8 else 2 if quantizer.bits <= 16 else 4)


def _depth(node: onnx_ir.Node, weight: tuple[int, ...]) -> int | None:
    """Length of the sums of a Gemm or MatMul."""
    if len(weight) < 2:
        return weight[0] if weight else None
    return weight[-1] if node.op_type == "Gemm" and attribute(node, "transB", 0) else weight[-2]


def _shape(value: onnx_ir.Value | None) -> tuple[int, ...] | None:
    """Shape of the second operand: a constant's own, or the declared one where it is fixed. No data is read."""
    if value is not None and value.const_value is not None:
        return tuple(int(dim) for dim in value.const_value.shape.numpy())
    shape = None if value is None else static_shape(value)
    return None if shape is None or any(dim is None for dim in shape) else tuple(dim for dim in shape if dim is not None)
