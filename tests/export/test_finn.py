"""Target `finn`: thresholds are roundings with ties to even; both models are the oracle's; what FINN lacks is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import NETWORKS, SHAPE, examples, quantized
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import IntegerNetwork
from tqt_onnx.export.finn_model.moves import flattens, transposition
from tqt_onnx.export.finn_model.thresholds import Ties, threshold, threshold_tables
from tqt_onnx.verbs.export import export_model, make_source

DOMAIN = "qonnx.custom_op.general"
HELD = ("residual", "depthwise", "concat", "tail")


class MultiThreshold(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Any, edges: Any, out_bias: float = 0, out_scale: float = 1, out_dtype: str = "") -> Any:
        assert out_scale == 1
        assert edges.shape[1] == 2 ** int(out_dtype.removeprefix("U").removeprefix("INT")) - 1
        last = np.moveaxis(x, 1, -1)[..., None]
        return (np.moveaxis((last >= edges).sum(-1) + out_bias, -1, 1).astype(np.float32),)


def written(model: onnx_ir.Model, folder: Path) -> Path:
    tqt_onnx.save(model, folder / "net.q.onnx", force=True)
    export_model(folder / "net.q.onnx", "finn", folder / "net", force=True)
    return folder / "net"


def network_of(model: onnx_ir.Model) -> IntegerNetwork:
    return make_source(model, "net", None).network


def differing(model: onnx_ir.Model, proto: onnx.ModelProto, image: np.ndarray[Any, Any]) -> dict[str, int]:
    """Computed tensor -> how many integers of a MultiThreshold model are not the oracle's."""
    source = make_source(model, "net", None)
    (port,) = source.network.inputs
    steps = source.network.steps
    known = {info.name: info for info in [*proto.graph.value_info, *proto.graph.output]}
    del proto.graph.output[:]
    proto.graph.output.extend(known[step.output] for step in steps)
    session = ReferenceEvaluator(proto, new_ops=[MultiThreshold])
    counts = dict.fromkeys((step.output for step in steps), 0)
    for row in image:
        expected = source.oracle({port.name: row[None]})
        found = session.run(None, {port.name: expected[port.tensor or ""].astype(np.float32)})
        for step, array in zip(steps, found, strict=True):
            counts[step.output] += int(np.count_nonzero(array != expected[step.output]))
    return counts


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 2, 5])
def test_counting_thresholds_is_rounding(shift: int, signed: bool, bits: int) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    reach = (1 << bits) << max(shift, 0)
    a = np.arange(-reach - 3, reach + 4)
    rules: tuple[tuple[Ties, Any], ...] = (("even", np.rint(a / 2.0**shift)), ("up", np.floor(a / 2.0**shift + 0.5)))
    for ties, rounded in rules:
        edges = np.array([threshold(level, shift, ties) for level in range(low + 1, high + 1)])
        counted = low + (a[:, None] >= edges).sum(1)
        np.testing.assert_array_equal(counted, np.clip(rounded, low, high))


def test_a_threshold_of_any_size_is_exact() -> None:
    assert threshold(3, 70, "even") == 5 * 2**69 + 1
    assert threshold(2, 70, "even") == threshold(2, 70, "up") == 3 * 2**69
    assert threshold(-127, 1, "even") == -254
    assert threshold(-127, 1, "up") == -255
    assert threshold(5, -70, "even") == 1


@pytest.mark.parametrize(("name", "weight"), [*((name, 8) for name in HELD), ("residual", 4)])
def test_thresholds_give_the_oracles_integers(name: str, weight: int, tmp_path: Path) -> None:
    model = quantized(name, 32, weight)
    counts = differing(model, onnx.load(written(model, tmp_path) / "net.multithreshold.onnx"), examples(2))
    assert counts
    assert not any(counts.values())


def test_ties_rounded_up_would_not(tmp_path: Path) -> None:
    model = quantized("residual", 32)
    proto = onnx.load(written(model, tmp_path) / "net.multithreshold.onnx")
    tables = threshold_tables(network_of(model))
    for tensor in proto.graph.initializer:
        table = tables.get(tensor.name.removesuffix("__thresholds"))
        if table is not None:
            tensor.CopyFrom(numpy_helper.from_array(table.up.astype(np.float32), tensor.name))
    counts = differing(model, proto, examples(2))
    assert counts["b__q"] > 0
    assert counts["sum_relu__q"] > 0


def test_activations_of_four_bits_and_unsigned_inputs(tmp_path: Path) -> None:
    bits = BitWidths(layer=32, activation=4, relu=4, unsigned_input=True)
    model = tqt_onnx.quantize(NETWORKS["residual"](), np.abs(examples(32, 0)), bits=bits).model
    folder = written(model, tmp_path)
    assert not any(differing(model, onnx.load(folder / "net.multithreshold.onnx"), np.abs(examples(2))).values())
    assert {entry["type"] for entry in json.loads((folder / "thresholds.json").read_text())["inputs"]} == {"UINT4"}


@pytest.mark.parametrize("name", HELD)
def test_the_dialect_of_its_conversion(name: str, tmp_path: Path) -> None:
    proto = onnx.load(written(quantized(name, 32), tmp_path) / "net.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    made = {node.output[0]: node for node in proto.graph.node}
    reads = [value for node in proto.graph.node for value in node.input]
    ops = [node.op_type for node in proto.graph.node]
    assert set(ops) <= {"Add", "Clip", "Concat", "Conv", "Flatten", "MatMul", "MaxPool", "Quant", "Relu", "Softmax", "Transpose"}
    assert all(len(node.input) == 2 for node in proto.graph.node if node.op_type == "Conv")
    activations = 0
    for node in proto.graph.node:
        if node.op_type != "Quant":
            continue
        signed = next(item.i for item in node.attribute if item.name == "signed")
        assert all(stored[value].shape == () for value in node.input[1:])
        assert stored[node.input[3]] <= 8
        assert next(item.i for item in node.attribute if item.name == "narrow") == 0
        if node.input[0] in stored:
            assert reads.count(node.output[0]) == 1
        else:
            activations += 1
            above = made.get(node.input[0])
            assert (above is not None and above.op_type == "Relu") == (not signed), node.output[0]
    assert activations >= 3


@pytest.mark.parametrize("name", HELD)
def test_the_tables_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    folder = written(quantized(name, 32), tmp_path)
    text = json.loads((folder / "thresholds.json").read_text())
    proto = onnx.load(folder / "net.multithreshold.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    network = network_of(quantized(name, 32))
    assert text["schema"] == "tqt_onnx.finn_thresholds/1"
    assert [entry["tensor"] for entry in text["tensors"]] == list(threshold_tables(network))
    for entry in text["tensors"]:
        table = np.load(folder / entry["file"])
        assert table.dtype == np.int64
        np.testing.assert_array_equal(stored[f"{entry['tensor']}__thresholds"], table)
        assert entry["shape"] == list(table.shape)
        assert (np.diff(table) >= 0).all()
        assert table.shape[1] == 2 ** entry["bits"] - 1
        tensor = network.tensors[entry["tensor"]]
        assert (entry["lowest"], entry["highest"], entry["exponent"]) == (tensor.lower, tensor.upper, tensor.exponent)
    kinds = {item.tensor_name: item.quant_parameter_tensor_names[0].value for item in proto.graph.quantization_annotation}
    assert kinds["x"] == "INT8"
    assert kinds["conv__weights"] == "INT8"
    assert kinds["y__q"] == "INT8"


def test_what_streamlining_makes_is_the_column_of_ties_up() -> None:
    """Thresholds at `(k - 1/2) s`, divided by the scale of the sum, the bias taken away, rounded up."""
    network = network_of(quantized("residual", 32))
    table = threshold_tables(network)["b__q"]
    output, bias = network.tensors["b__q"], network.tensors[table.bias or ""].integers
    assert bias is not None
    reals = (np.arange(-127, 128) - 0.5) * 2.0**output.exponent
    sums = np.ceil(reals / 2.0 ** (output.exponent - table.step.shift) - bias[:, None])
    inside = (table.up > table.up.min()) & (table.up < table.up.max())
    assert inside.any()
    np.testing.assert_array_equal(table.up[inside], sums[inside])
    odd = np.arange(-127, 128) % 2 != 0
    np.testing.assert_array_equal((table.even - table.up)[inside], np.broadcast_to(odd, inside.shape)[inside])


def test_levels_above_a_relu6_are_never_reached() -> None:
    network = network_of(quantized("depthwise", 32))
    table, output = threshold_tables(network)["relu6__q"], network.tensors["relu6__q"]
    assert output.upper < 255
    bound = max(operation.bound or 0 for operation in table.step.operations)
    assert (table.even[:, output.upper :] == bound + 1).all()
    assert (table.even[:, output.upper - 1] <= bound).all()


def enlarged() -> onnx_ir.Model:
    """A stride with one-sided padding, dilation, repetition, two outputs of which one is an inner tensor."""
    net = Builder(3)
    x = net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.constants |= {"scales": np.array([1, 1, 2, 2], np.float32)}
    x = net.op("Relu", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[0, 0, 1, 1], strides=[2, 2]), name="relu")
    x = net.op("Resize", x, "", "scales", name="large", mode="nearest")
    x = net.op("Relu", net.layer("Conv", x, "wide", (4, 4, 3, 3), 4, pads=[2] * 4, dilations=[2, 2]), name="wide_relu")
    net.layer("Gemm", net.op("Flatten", x, name="flat"), "y", (256, 5), 5)
    return net.model({"x": SHAPE}, {"y": (5,), "wide": (4, 8, 8)})


def test_other_layers(tmp_path: Path) -> None:
    model = tqt_onnx.quantize(enlarged(), examples(32, 0), bits=BitWidths(layer=32)).model
    proto = onnx.load(written(model, tmp_path) / "net.multithreshold.onnx")
    assert {"Resize", "Conv", "MatMul"} <= {node.op_type for node in proto.graph.node}
    assert len(proto.graph.output) == 2
    counts = differing(model, proto, examples(2))
    assert counts
    assert not any(counts.values())


def test_notes(tmp_path: Path) -> None:
    tqt_onnx.save(quantized("depthwise", 32), tmp_path / "net.q.onnx")
    result = export_model(tmp_path / "net.q.onnx", "finn", tmp_path / "net")
    tables = threshold_tables(network_of(quantized("depthwise", 32))).values()
    moved, count = sum(table.moved for table in tables), sum(table.even.size for table in tables)
    assert 0 < moved < count
    assert f"{moved} of {count} thresholds" in result.notes[0]
    assert "bounds 2 tensors by a Clip (relu6, ...)" in result.notes[1]
    assert result.rounding == "half_up"


@pytest.mark.parametrize(
    ("before", "after", "perm"),
    [
        ([None, 8, 8, 1], [None, 1, 8, 8], [0, 3, 1, 2]),
        ([None, 1, 8, 8], [None, 8, 8, 1], [0, 2, 3, 1]),
        ([None, 1, 1, 5], [None, 5, 1, 1], [0, 3, 1, 2]),
        ([None, 8, 8, 2], [None, 2, 8, 8], None),
        ([None, 4, 4, 4], [None, 4, 4, 4], None),
        ([None, 16], [None, 4, 2, 2], None),
    ],
)
def test_a_reshape_that_is_a_change_of_layout(before: list[int], after: list[int], perm: list[int] | None) -> None:
    assert transposition(before, after) == perm
    if perm is not None:
        shape = [2 if size is None else size for size in before]
        array = np.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(array.transpose(perm), array.reshape([2, *after[1:]]))


def test_flattening_keeps_the_batch() -> None:
    assert flattens([None, 2, 2, 3], [None, 12])
    assert not flattens([None, 2, 2, 3], [12, None])
    assert not flattens([None, 12], [None, 3, 4])
