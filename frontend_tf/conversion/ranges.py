"""Ranges that FakeQuant nodes recorded -> metadata of the ONNX model, by value name."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx_ir

from ...ir import RANGES_KEY


def record_ranges(model: onnx_ir.Model, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Writes `{value name: [min, max]}` under `RANGES_KEY`, where there are any.

    Args:
        model: float model; values have their final names.
        ranges: by TensorFlow names. One that no value of the model has (a tensor that the conversion merged into another) is
            left out: the numbers are initial thresholds, which calibration finds as well.
    """
    values = {value.name for node in model.graph for value in node.outputs}
    values |= {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    found = {name: [low, high] for name, (low, high) in ranges.items() if name in values}
    if found:
        model.metadata_props[RANGES_KEY] = json.dumps(found, sort_keys=True)
