"""Room for int32 biases (L11): where weights are so fine that the bias overflows its derived scale, their scale must be coarser.

A `layer32` bias is an int32 at the scale `s_x * s_w`, and the accumulator that it starts is an int32 too. With weights near
zero and a bias near one, `|b| / (s_x * s_w)` can pass 2^31: saturating it would give wrong numbers without a word. The weights
of such a layer contribute next to nothing at the output's resolution, so their threshold is raised until the sum fits.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from ..ir import Quantizer, QuantizerGraph, attribute, channel_totals, constant
from ..kernels import fixed_point

_ROOM = float(1 << 31)


def weight_floors(model: onnx_ir.Model, graph: QuantizerGraph) -> dict[str, float]:
    """Share groups of weights that need a larger threshold, with the smallest `log2 t` that leaves room for the sum.

    Args:
        model: the lowered float graph.
        graph: its quantizers, decided.

    Returns:
        `{group: log2_t}`, empty where every sum fits an int32.
    """
    by_value, by_id = graph.by_value(), graph.by_id()
    floors: dict[str, float] = {}
    for node in model.graph:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        quantizer = None if bias is None else by_value.get(bias.name or "")
        if bias is None or quantizer is None or quantizer.derived_from is None:
            continue
        data, weights = (by_id[source] for source in quantizer.derived_from)
        need = _coarser(node, data, weights, quantizer)
        if need:
            ceiling = float(weights.decided_exponent + need + weights.bits - 1)
            floors[weights.group] = max(ceiling, floors.get(weights.group, ceiling))
    return floors


def _coarser(node: onnx_ir.Node, data: Quantizer, weights: Quantizer, bias: Quantizer) -> int:
    """By how many powers of two the weights' scale must grow."""
    array, added = constant(node.inputs[1]), constant(node.inputs[2])
    assert array is not None and added is not None
    attributes = {name: attribute(node, name, None) for name in node.attributes}
    largest = max(abs(data.lower), abs(data.upper))
    steps = 0
    while True:
        exponent = weights.decided_exponent + steps
        integers = np.abs(fixed_point.quantize(array, exponent, weights.bits, True)).astype(np.float64)
        totals = channel_totals(node.op_type, attributes, integers)
        sums = totals * largest + np.ldexp(np.abs(added.astype(np.float64)), -(bias.decided_exponent + steps))
        if float(sums.max(initial=0.0)) < _ROOM:
            return steps
        steps += 1
