"""The guard of O5: pairs that onnxruntime would merge are found before a user's numbers change.

onnxruntime removes the middle of `Q(A) -> DQ -> Q(B) -> DQ` where both have one dtype and the first DQ has one reader,
rounding once instead of twice; Identity, Relu and Clip between the two do not hold it off.
"""

from __future__ import annotations

import onnx_ir

from ..ir import UnsupportedError, only_consumer

_TRANSPARENT = frozenset({"Identity", "Relu", "Clip"})


def check_no_merged_pairs(graph: onnx_ir.Graph) -> None:
    """Refuses a graph in which two quantizers of one dtype follow each other with nothing real in between.

    Raises:
        UnsupportedError: names the two values.
    """
    for node in graph:
        if node.op_type != "DequantizeLinear":
            continue
        quantized = node.inputs[0]
        value = node.outputs[0]
        reader = only_consumer(value)
        while reader is not None and reader.op_type in _TRANSPARENT:
            value = reader.outputs[0]
            reader = only_consumer(value)
        if reader is None or reader.op_type != "QuantizeLinear":
            continue
        second = reader.outputs[0]
        same_scale = node.inputs[1] is reader.inputs[1]  # merging those changes nothing
        if quantized is not None and quantized.producer() is not None and quantized.dtype == second.dtype and not same_scale:
            raise UnsupportedError(
                f"values {node.outputs[0].name!r} and {second.name!r} are quantized twice in a row with one dtype, "
                "which onnxruntime merges into one rounding (O5); a shared scale or a second reader is needed"
            )
