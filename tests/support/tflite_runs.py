"""TFLite files written for tests, and what they should compute: a second reading of every step of the network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from batch_norm_networks import Builder
from handoff_networks import SHAPE
from integer_reader import run_operation, run_step

from tqt_onnx.export import Source, TfliteExporter
from tqt_onnx.export.tflite_checks.weights import held_weights
from tqt_onnx.verbs.export import make_source


def written(model: onnx_ir.Model, folder: Path, *, narrow: bool = True) -> tuple[Source, bytes, tuple[str, ...]]:
    """The source, the file and the notes."""
    source, exporter = make_source(model, "net", None), TfliteExporter(narrow)
    exporter.check(source)
    notes = exporter.write(source, folder)
    return source, (folder / "net.tflite").read_bytes(), notes


def computed(source: Source, feeds: dict[str, Any]) -> dict[str, Any]:
    """Integers of every tensor from the weights as written, by a second reading; sums of two tensors are rounded half up."""
    network = source.network
    tensors = {name: array for name, array in source.oracle(feeds).items() if network.tensors[name].kind == "input"}
    tensors |= {tensor.name: tensor.integers for tensor in network.constants if tensor.integers is not None}
    for name, held in held_weights(network, narrow=True).items():
        tensors[name] = held.integers * held.factor // held.times
    for step in network.steps:
        output = network.tensors[step.output]
        tensors[step.output] = run_step(asdict(step), tensors, {"lower": output.lower, "upper": output.upper})
        if any(operation.op in {"Add", "Sub"} for operation in step.operations):
            values = dict(tensors)
            for operation in step.operations:
                shifted = [values[name] << shift for name, shift in zip(operation.inputs, operation.shifts, strict=True)]
                values[operation.output] = run_operation(operation.op, shifted, operation.attributes)
            exact = values[step.result] / 2.0**step.shift
            tensors[step.output] = np.clip(np.floor(exact + 0.5), output.lower, output.upper).astype(np.int64)
    return tensors


def expected(source: Source, feeds: dict[str, Any]) -> dict[str, Any]:
    """The outputs of `computed`, dequantized."""
    tensors, network = computed(source, feeds), source.network
    ports = [(port.name, port.tensor) for port in network.outputs if port.tensor is not None]
    return {name: tensors[tensor] * 2.0 ** network.tensors[tensor].exponent for name, tensor in ports}


def network(build: Any, outputs: dict[str, tuple[int, ...]], inputs: dict[str, tuple[int, ...]] | None = None) -> onnx_ir.Model:
    net = Builder(11)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32), "one": np.array(1, np.float32)}
    build(net, net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2]))
    return net.model(inputs or {"x": SHAPE}, outputs)
