"""Thresholds that the source already knew: ranges of its FakeQuant nodes, by share group.

A network trained with TensorFlow's fake quantization says what range each tensor was trained for. Reading the graph takes
those nodes out and records `{value name: [smallest, largest]}` (`RANGES_KEY`); here they become the thresholds that
calibration would otherwise measure. The power of two above them is this project's (Q4): the ranges are where to start.

A group takes its ranges only where every member has one; a rescale or input Identity has that of the tensor in front of it,
and a FakeQuant node behind a reshape or a pool speaks of the tensor in front of these too.
Weights are not among them: folding changes them, and their thresholds follow from themselves (C1). Neither are the 16-bit
tensors of a layer, which no FakeQuant node ever described.
"""

from __future__ import annotations

import json
import math

import onnx_ir

from ..ir import PASS_THROUGH, RANGES_KEY, ROLE_KEY, ModelError, QuantizerGraph, only_consumer
from ..kernels.fixed_point import log2_threshold


def recorded_ranges(model: onnx_ir.Model) -> dict[str, tuple[float, float]]:
    """Value name -> (smallest, largest); empty where the model records none.

    Raises:
        ModelError: the record is not of this form.
    """
    text = model.metadata_props.get(RANGES_KEY)
    if text is None:
        return {}
    try:
        found = {name: (low, high) for name, (low, high) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{RANGES_KEY} must be {{value name: [smallest, largest]}}. Received: {type(error).__name__}") from None
    for name, (low, high) in found.items():
        if not (_is_finite(low) and _is_finite(high) and low <= high):
            raise ModelError(f"{RANGES_KEY}: a finite range is expected for {name!r}. Received: [{low}, {high}]")
    return found


def _is_finite(number: object) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)


def recorded_thresholds(model: onnx_ir.Model, graph: QuantizerGraph) -> dict[str, float]:
    """Share group -> `log2 t` where every member's range is known and not empty.

    Args:
        model: lowered.
        graph: its quantizers, as `annotate` gives them.
    """
    ranges = recorded_ranges(model)
    if not ranges:
        return {}
    values = {value.name: value for node in model.graph for value in node.outputs}
    largest: dict[str, float] = {}
    unknown: set[str] = set()
    for quantizer in graph.quantizers:
        known = _range_of(values.get(quantizer.value), ranges)
        if known is None or quantizer.bits > 8 or quantizer.role in ("weight", "bias", "reciprocal", "alpha"):
            unknown.add(quantizer.group)
            continue
        low, high = known
        magnitude = max(abs(low), abs(high)) if quantizer.signed else high
        largest[quantizer.group] = max(largest.get(quantizer.group, 0.0), magnitude)
    return {group: log2_threshold(top) for group, top in largest.items() if group not in unknown and top > 0}


def _range_of(value: onnx_ir.Value | None, ranges: dict[str, tuple[float, float]]) -> tuple[float, float] | None:
    """The range of the value, of what it merely carries, or of what merely carries it on (L7)."""
    behind = value
    while behind is not None and (reader := only_consumer(behind)) is not None and reader.op_type in PASS_THROUGH:
        if reader.inputs[0] is not behind or ROLE_KEY in reader.metadata_props:
            break
        behind = reader.outputs[0]
        if value is not None and value.name not in ranges and behind.name in ranges:
            return ranges[behind.name]
    while value is not None:
        if value.name in ranges:
            return ranges[value.name]
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type == "Identity" and ROLE_KEY in node.metadata_props else None
    return None
