"""Results that leave the integer part without a rounding: integers all the same, then the nearest float32 numbers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from batch_norm_networks import Array, Builder
from integer_reader import run_operation
from integer_runs import compare, exported, run

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import IntegerExporter
from tqt_onnx.export.integer_onnx.graph import F32, Carried
from tqt_onnx.export.integer_onnx.graph import Builder as Graph
from tqt_onnx.export.integer_onnx.rounding import real_numbers
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verify import FixedPoint, Oracle

FEATURES = 4096
TWICE = (1 << 33) + (1 << 10) + 1
"""Times 2^-160 it lies above a tie of subnormal numbers; rounded to float32 first, on it."""


@cache
def product(layer: int, tail: str = "") -> tuple[onnx_ir.Model, dict[str, Array]]:
    """Two computed tensors of 4,096 features multiplied, as the output or in front of a float tail; sums leave 2^24."""
    net = Builder(0)
    for name in "ab":
        net.constants[f"w{name}"] = np.abs(net.rng.normal(size=(16, FEATURES))).astype(np.float32)
        net.op("MatMul", name, f"w{name}", name=f"l{name}")
    net.op("MatMul", "la", net.op("Transpose", "lb", name="t", perm=[0, 2, 1]), name="y")
    outputs = {"y": (4, 4)}
    if tail:
        net.op(tail, "y", name="tail")
        outputs = {"tail": (4, 4)}
    rng = np.random.default_rng(0)
    feeds = {name: rng.uniform(0.5, 1, (8, 4, 16)).astype(np.float32) for name in "ab"}
    bits = BitWidths(layer=layer)  # type: ignore[arg-type]  # 16 or 32
    return tqt_onnx.quantize(net.model({"a": (4, 16), "b": (4, 16)}, outputs), feeds, bits=bits).model, feeds


@pytest.mark.parametrize("layer", [16, 32])
def test_a_product_of_computed_tensors_as_the_output(layer: int, tmp_path: Path) -> None:
    model, feeds = product(layer)
    source = compare(model, feeds, tmp_path)
    assert [part.last.node for part in source.network.unrounded] == ["y"]
    oracles = Oracle(model).run(feeds)["y"]
    assert isinstance(oracles, FixedPoint)
    assert (np.abs(oracles.integers) > 1 << 24).any() and (oracles.integers % 2 == 1).any()
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.integer.onnx").graph.node]
    assert (kinds.count("MatMul"), kinds.count("MatMulInteger"), kinds.count("DequantizeLinear")) == (0, 3, 0)


@pytest.mark.parametrize("layer", [16, 32])
def test_a_float_tail_behind_it(layer: int, tmp_path: Path) -> None:
    model, feeds = product(layer, "Softmax")
    source = compare(model, feeds, tmp_path)
    assert [part.last.node for part in source.network.unrounded] == ["y"]
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.integer.onnx").graph.node]
    assert (kinds.count("MatMul"), kinds.count("MatMulInteger"), kinds.count("Softmax")) == (0, 3, 1)


def test_notes_and_refusals_name_it(tmp_path: Path) -> None:
    model, _ = product(32)
    source, _, notes = exported(model, tmp_path)
    assert notes == ("handed on without a rounding: computed in integers, then the nearest float32 numbers: 'y' (MatMul)",)
    with pytest.raises(UnsupportedError, match=r"node 'y': with integer_io, .* Received: 'y', which MatMul computes"):
        IntegerExporter(integer_io=True).check(source)
    with pytest.raises(UnsupportedError, match=r"target c: layer 'y' is handed on without being rounded.* Received: MatMul"):
        source.network.require_integers("c")


def test_both_descriptions_hold_it(tmp_path: Path) -> None:
    """A reader of the files alone computes the oracle's integers; both targets say the same."""
    model, feeds = product(16)
    export_model(model, "integer", tmp_path / "i")
    notes = export_model(model, "vectors", tmp_path / "v", data=feeds).notes
    assert notes[1] == "What is handed on without a rounding is described, its numbers are left out (y)."
    ours, theirs = (
        json.loads((tmp_path / path).read_text("utf-8"))["unrounded"] for path in ("i/parameters.json", "v/manifest.json")
    )
    assert ours == theirs
    (entry,) = ours
    assert (entry["name"], entry["result"]) == ("y", "y")
    assert set(entry) == {"name", "source", "reads", "operations", "result", "exponent", "accumulator_bits"}
    tensors: dict[str, Any] = dict(make_source(model, "net", None).oracle(feeds))
    for operation in entry["operations"]:
        assert set(operation["inputs"]) <= set(tensors)
        operands = [tensors[name] << shift for name, shift in zip(operation["inputs"], operation["shifts"], strict=True)]
        tensors[operation["output"]] = run_operation(operation["op"], operands, operation["attributes"])
    oracles = Oracle(model).run(feeds)["y"]
    assert isinstance(oracles, FixedPoint)
    np.testing.assert_array_equal(tensors[entry["result"]], oracles.integers)
    assert entry["exponent"] == oracles.exponent


@pytest.mark.parametrize("exponent", [-160, -140, -30, 0, 3, 90])
def test_real_numbers_are_the_nearest_float32(exponent: int) -> None:
    """Ties beyond 2^24 and beyond 2^53 / 2, subnormal numbers, and numbers that leave float32."""
    integers = np.array(
        [0, 1, -3, (1 << 24) + 1, (1 << 24) + 3, TWICE, -(1 << 40) - (1 << 16), (1 << 53) - 1, -(1 << 53)], np.float64
    )
    graph = Graph(set())
    value = onnx_ir.Value(name="x", shape=onnx_ir.Shape((None,)), type=onnx_ir.TensorType(onnx_ir.DataType.DOUBLE))
    graph.graph.inputs.append(value)
    real = real_numbers(graph, Carried("x", (None,), -(1 << 53), 1 << 53, value), exponent, "y")
    assert real.dtype == F32
    graph.graph.outputs.append(graph.named(real, "y"))
    proto = onnx_ir.to_proto(onnx_ir.Model(graph.graph, ir_version=10))
    with np.errstate(over="ignore"):
        expected = np.ldexp(integers, exponent).astype(np.float32)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, {"x": integers}, optimize=optimize)["y"], expected)
