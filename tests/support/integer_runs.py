"""The target `integer` run in onnxruntime and compared with the oracle, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from integer_reader import run_operation, run_step
from onnx import TensorProto, helper

from tqt_onnx.export import IntegerExporter, Source
from tqt_onnx.export.integer_onnx.graph import Builder, Carried
from tqt_onnx.verbs.export import make_source
from tqt_onnx.verify import FixedPoint, Oracle

Arrays = Mapping[str, np.ndarray[Any, Any]]

STORED = {
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.int32): TensorProto.INT32,
}


def exported(model: onnx_ir.Model, folder: Path, *, integer_io: bool = False) -> tuple[Source, onnx.ModelProto, tuple[str, ...]]:
    """What the exporter was given, the file it wrote, checked with onnx, and its notes."""
    source = make_source(model, "net", None)
    exporter = IntegerExporter(integer_io=integer_io)
    exporter.check(source)
    notes = exporter.write(source, folder)
    proto = onnx.load(folder / "net.integer.onnx")
    onnx.checker.check_model(proto, full_check=True)
    return source, proto, notes


def run(proto: onnx.ModelProto, feeds: Arrays, *, optimize: bool) -> dict[str, np.ndarray[Any, Any]]:
    """All outputs, in onnxruntime as anybody would run it: no configuration but the level of optimization."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    fed = {entry.name: feeds[entry.name] for entry in session.get_inputs()}
    return dict(zip(names, session.run(None, fed), strict=True))


def tapped(proto: onnx.ModelProto, source: Source) -> onnx.ModelProto:
    """With every integer tensor as an output; the types come from what the file itself infers."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    have = {output.name for output in exposed.graph.output}
    made = {name for node in proto.graph.node for name in node.output}
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=False)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    for name, tensor in source.network.tensors.items():
        if tensor.kind != "constant" and name in made - have:
            exposed.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    return exposed


def followed(source: Source, oracle: Arrays, found: Arrays) -> Arrays:
    """The oracle's integers; behind float parts those that follow from what the engine rounded there (X2)."""
    network = source.network
    tensors: dict[str, Any] = {tensor.name: tensor.integers for tensor in network.constants}
    given = [tensor for tensor in network.tensors.values() if tensor.kind in {"input", "from_float"}]
    if all(tensor.kind == "input" for tensor in given):
        return oracle
    tensors |= {tensor.name: (oracle if tensor.kind == "input" else found)[tensor.name].astype(np.int64) for tensor in given}
    for step in network.steps:
        tensors[step.output] = run_step(asdict(step), tensors, asdict(network.tensors[step.output]))
    return tensors


def unrounded_results(source: Source, tensors: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """What leaves the integer part without a rounding, recomputed from the integers that it reads, as float32 numbers."""
    results = {}
    for part in source.network.unrounded:
        constants = {tensor.name: tensor.integers for tensor in source.network.constants}
        values: dict[str, Any] = {**constants, **tensors}
        for operation in part.operations:
            operands = [values[name] << shift for name, shift in zip(operation.inputs, operation.shifts, strict=True)]
            values[operation.output] = run_operation(operation.op, operands, operation.attributes)
        assert np.abs(values[part.last.output]).max(initial=0) <= 1 << 53
        results[part.last.output] = np.ldexp(values[part.last.output].astype(np.float64), part.last.exponent).astype(np.float32)
    return results


def compare(model: onnx_ir.Model, feeds: Arrays, folder: Path) -> Source:
    """Every integer tensor with no and with all optimizations, and all outputs of the untouched file.

    Outputs of integers, rounded or not, are the nearest float32 numbers, `==`. Those of a float part are compared with what the
    oracle makes of the engine's integers behind other float parts (X2), in the tolerance of X6.
    """
    source, proto, _ = exported(model, folder)
    oracle = source.oracle(feeds)
    network = source.network
    exposed = tapped(proto, source)
    for optimize in (False, True):
        found = run(exposed, feeds, optimize=optimize)
        expected = followed(source, oracle, found)
        for name, tensor in network.tensors.items():
            if tensor.kind != "constant":
                assert found[name].dtype in STORED
                np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        inner = {name: expected[name] for name, tensor in network.tensors.items() if tensor.kind == "from_float"}
        outputs = Oracle(model).run(feeds, inner, keep=[port.name for port in network.outputs if port.tensor is None])
        results = unrounded_results(source, expected)
        alone = run(proto, feeds, optimize=optimize)
        assert list(alone) == [port.name for port in network.outputs]
        for port in network.outputs:
            if port.tensor is not None:
                real = np.ldexp(expected[port.tensor].astype(np.float32), network.tensors[port.tensor].exponent)
                np.testing.assert_array_equal(alone[port.name], real)
                continue
            oracles = outputs[port.name]
            if port.name in results:
                assert isinstance(oracles, FixedPoint)
                np.testing.assert_array_equal(oracles.real().astype(np.float32), results[port.name])
                np.testing.assert_array_equal(alone[port.name], results[port.name])
            else:
                assert not isinstance(oracles, FixedPoint)
                np.testing.assert_allclose(alone[port.name], oracles, rtol=1e-4, atol=1e-6, err_msg=port.name)
    return source


def evaluate(builder: Builder, outputs: Mapping[str, onnx_ir.Value], feeds: Arrays) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What a graph that is being built computes: without optimizations, and with all of them."""
    graph = builder.graph
    graph.outputs.extend(builder.named(value, name) for name, value in outputs.items())
    proto = onnx_ir.to_proto(onnx_ir.Model(graph, ir_version=10))
    return [run(proto, feeds, optimize=optimize) for optimize in (False, True)]


def given(builder: Builder, name: str, array: np.ndarray[Any, Any], low: int, high: int) -> Carried:
    """A graph input of the array's type, which is int64 in the mathematics; its first axis is open."""
    shape = (None, *array.shape[1:])
    value = onnx_ir.Value(name=name, shape=onnx_ir.Shape(shape), type=onnx_ir.TensorType(onnx_ir.DataType.from_numpy(array.dtype)))
    builder.graph.inputs.append(value)
    return Carried(name, shape, low, high, value)
