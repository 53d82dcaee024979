"""A random network as a Q/DQ model, with thresholds moved off those that were calibrated."""

from __future__ import annotations

import onnx_ir
from random_networks import Network

from tqt_onnx.calibrate import calibrate
from tqt_onnx.ir import QuantizerGraph
from tqt_onnx.passes import BitWidths, InferShapes, annotate, insert_qdq, lower, optimize


def quantize_network(network: Network) -> onnx_ir.Model:
    """The network quantized; its own model is not changed.

    Raises:
        DataError: numbers that leave float32.
        UnsupportedError: scales outside the exact range, nothing to quantize, and the like.
    """
    bits = BitWidths(
        layer=network.layer_bits,  # type: ignore[arg-type]
        weight=network.weight_bits,
        activation=network.activation_bits,
        relu=network.relu_bits,
        unsigned_input=network.unsigned_input,
    )
    model = network.model.clone()
    optimize(model)
    lower(model, bits.contract, unsigned_input=bits.unsigned_input)
    graph: QuantizerGraph = annotate(model, bits)
    thresholds = calibrate(model, graph, lambda: iter([network.inputs]), method=network.method, parallel=network.parallel)
    moved = {
        group: log2_t + network.offsets[index % len(network.offsets)] for index, (group, log2_t) in enumerate(thresholds.items())
    }
    quantized = insert_qdq(model, graph.decide(moved))
    InferShapes().apply(quantized)
    return quantized
