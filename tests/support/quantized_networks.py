"""The fuzzer's random networks as Q/DQ models, without the comparison of engines."""

from __future__ import annotations

import onnx_ir
from random_networks import Network

from tqt_onnx.calibrate import calibrate
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.passes import BitWidths, InferShapes, annotate, insert_qdq, lower, optimize


def quantized_network(network: Network) -> onnx_ir.Model | None:
    """The network as the fuzzer quantizes it; None where it is refused."""
    bits = BitWidths(
        layer=network.layer_bits,  # type: ignore[arg-type]  # 16 or 32
        weight=network.weight_bits,
        activation=network.activation_bits,
        relu=network.relu_bits,
        unsigned_input=network.unsigned_input,
    )
    model = network.model.clone()
    optimize(model)
    lower(model, bits.contract, unsigned_input=bits.unsigned_input)
    try:
        graph = annotate(model, bits)
        thresholds = calibrate(model, graph, lambda: iter([network.inputs]), method="max", parallel=True)
        offsets = network.offsets
        moved = {group: value + offsets[place % len(offsets)] for place, (group, value) in enumerate(thresholds.items())}
        quantized = insert_qdq(model, graph.decide(moved))
        InferShapes().apply(quantized)
    except (DataError, UnsupportedError):
        return None
    return quantized
