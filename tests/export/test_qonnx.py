"""Target `qonnx`: what is written, run with a `Quant` of three lines, is the oracle's; what is refused is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from handoff_networks import NETWORKS, examples, quantized
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import EXPORTERS
from tqt_onnx.export.integers.network import Step
from tqt_onnx.export.qonnx_dialect import file
from tqt_onnx.export.qonnx_dialect.file import _INPUTS, _NEWER, SAME_FORM, opset_for, with_batch_one, write_file
from tqt_onnx.export.qonnx_dialect.quant import QuantForm, check_constants, is_exact_copy, quant_bits, write_quants
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import export_model, make_source

DOMAIN = "qonnx.custom_op.general"
OUTER = {"x", "y", "p"}


class Quant(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Any, scale: Any, zero: Any, bits: Any, signed: int = 1, narrow: int = 1, rounding_mode: str = "") -> Any:
        assert (narrow, rounding_mode, float(zero.reshape(-1)[0]), bits.shape) == (0, "ROUND", 0.0, ())
        low, high = (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1) if signed else (0, 2 ** int(bits) - 1)
        return ((np.clip(np.rint(x / scale), low, high) * scale).astype(np.float32),)


def written(model: onnx_ir.Model, folder: Path) -> onnx.ModelProto:
    tqt_onnx.save(model, folder / "net.q.onnx", force=True)
    export_model(folder / "net.q.onnx", "qonnx", folder / "net", force=True)
    return onnx.load(folder / "net" / "net.onnx")


def compare(model: onnx_ir.Model, proto: onnx.ModelProto, image: np.ndarray[Any, Any]) -> int:
    """Every tensor that the file computes is the oracle's, and the float end too; how many those are."""
    source = make_source(model, "net", None)
    (port,) = source.network.inputs
    made = {name for node in proto.graph.node for name in node.output}
    tensors = [item for item in source.network.tensors.values() if item.kind != "constant" and item.value in made]
    tapped = onnx.ModelProto.FromString(proto.SerializeToString())
    known = {info.name: info for info in [*proto.graph.value_info, *proto.graph.output]}
    del tapped.graph.output[:]
    tapped.graph.output.extend(known[tensor.value] for tensor in tensors)
    session = ReferenceEvaluator(tapped, new_ops=[Quant])
    for row in image:
        feeds = {port.name: row[None]}
        expected = source.oracle(feeds)
        for tensor, found in zip(tensors, session.run(None, feeds), strict=True):
            reals = np.ldexp(expected[tensor.name].astype(np.float64), tensor.exponent)
            np.testing.assert_array_equal(found, reals, err_msg=tensor.value)
    return len(tensors)


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def quants(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.output[0]: node for node in proto.graph.node if node.op_type == "Quant"}


def bits_of(proto: onnx.ModelProto, value: str) -> int:
    return int(constants(proto)[quants(proto)[value].input[3]])


@pytest.mark.parametrize(("layer", "weight"), [(16, 8), (32, 8), (16, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_the_oracles(name: str, layer: int, weight: int, tmp_path: Path) -> None:
    model = quantized(name, layer, weight)
    assert compare(model, written(model, tmp_path), examples(2)) >= 3


def test_activations_of_four_bits_and_unsigned_inputs(tmp_path: Path) -> None:
    bits = BitWidths(layer=32, activation=4, relu=4, unsigned_input=True)
    model = tqt_onnx.quantize(NETWORKS["concat"](), np.abs(examples(32, 0)), bits=bits).model
    proto = written(model, tmp_path)
    assert compare(model, proto, np.abs(examples(2))) >= 3
    assert bits_of(proto, "relu") == 4
    assert not [node for node in proto.graph.node if node.op_type == "Clip"]  # 4 bits saturate by themselves


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_form_of_the_file(name: str, layer: int, tmp_path: Path) -> None:
    proto = written(quantized(name, layer), tmp_path)
    stored = constants(proto)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 13, DOMAIN: 1}
    assert proto.ir_version == 8
    assert not {node.op_type for node in proto.graph.node} & {"QuantizeLinear", "DequantizeLinear", "Gemm"}
    assert {value.name for value in [*proto.graph.input, *proto.graph.output]} <= OUTER
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim), value.name
    for array in stored.values():
        assert array.dtype in (np.float32, np.int64)
    for output, node in quants(proto).items():
        assert node.domain == DOMAIN
        assert {item.name for item in node.attribute} == {"signed", "narrow", "rounding_mode"}
        bias = output.endswith("/b")
        assert [stored[name].shape for name in node.input[1:]] == [(1,) if bias else ()] * 2 + [()]
        if bias:
            assert stored[node.input[3]] == layer
    assert "tqt_onnx.quantizers" not in {entry.key for entry in proto.metadata_props}


def test_weights_of_four_bits(tmp_path: Path) -> None:
    proto = written(quantized("residual", 32, 4), tmp_path)
    assert [bits_of(proto, f"{layer}/w") for layer in ("conv", "a", "b", "y")] == [8, 4, 4, 8]  # L9
    assert abs(constants(proto)["a/w__float"] / constants(proto)[quants(proto)["a/w"].input[1]]).max() <= 8


def test_leaky_relus_have_sixteen_bits_and_a_slope_of_ten(tmp_path: Path) -> None:
    proto = written(quantized("leaky", 32), tmp_path)
    widths = [int(constants(proto)[node.input[3]]) for node in quants(proto).values()]
    assert widths.count(16) == 4
    assert widths.count(10) == 2


def test_relu6_is_a_clip_on_the_grid(tmp_path: Path) -> None:
    proto = written(quantized("depthwise", 32), tmp_path)
    stored = constants(proto)
    clips = [node for node in proto.graph.node if node.op_type == "Clip"]
    assert [node.output[0] for node in clips] == ["relu6", "dw_relu6"]
    for node in clips:
        scale = stored[quants(proto)[node.input[0]].input[1]]
        bounds = [float(stored[name]) for name in node.input[1:]]
        assert bounds[0] == 0
        assert bounds[1] == scale * np.rint(6 / scale) <= 6 + scale / 2


def test_pairs_that_only_carry_are_left_out_unless_they_are_asked_for() -> None:
    counts = {}
    for copies in (False, True):
        source = make_source(quantized("concat", 32), "net", None)
        model = with_batch_one(source.model, "qonnx")
        write_quants(model, source.network, QuantForm(copies=copies))
        counts[copies] = {node.outputs[0].name for node in model.graph if node.op_type == "Quant"}
    assert counts[True] - counts[False] == {"nchw", "right", "joined", "flat"}


def test_plain_biases_lie_on_their_grid() -> None:
    source = make_source(quantized("residual", 32), "net", None)
    model = with_batch_one(source.model, "qonnx")
    write_quants(model, source.network, QuantForm(biases="plain"))
    values = model.graph.initializers
    for tensor in source.network.constants:
        if tensor.role == "bias":
            assert tensor.integers is not None
            found = values[tensor.value].const_value
            assert found is not None
            np.testing.assert_array_equal(np.ldexp(found.numpy().astype(np.float64), -tensor.exponent), tensor.integers)


def test_a_source_is_not_changed(tmp_path: Path) -> None:
    model = quantized("residual", 32)
    before = onnx_ir.to_proto(model).SerializeToString()
    written(model.clone(), tmp_path)
    source = make_source(model, "net", None)
    write_quants(with_batch_one(source.model, "qonnx"), source.network, QuantForm())
    assert onnx_ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(
    ("value", "held"), [(1 << 24, True), ((1 << 24) + 1, False), (-(1 << 24) - 1, False), ((1 << 24) + 2, True)]
)
def test_a_bias_that_float32_does_not_hold_is_refused(value: int, held: bool) -> None:
    network = make_source(quantized("residual", 32), "net", None).network
    bias = replace(network.tensors["a/b__q"], integers=np.array([0, value], np.int64))
    changed = replace(network, tensors={**network.tensors, "a/b__q": bias})
    if held:
        check_constants(changed, "qonnx")
    else:
        with pytest.raises(UnsupportedError, match=rf"target qonnx: layer 'a': .*'a/b'.*Received: {value}"):
            check_constants(changed, "qonnx")


def test_a_copy_that_saturates_or_rectifies_is_none() -> None:
    network = make_source(quantized("concat", 32), "net", None).network
    step = next(step for step in network.steps if step.output == "right__q")
    assert is_exact_copy(step, network)
    narrow = replace(network.tensors["right__q"], upper=network.tensors["right__q"].upper - 1)
    assert not is_exact_copy(step, replace(network, tensors={**network.tensors, "right__q": narrow}))
    relu = replace(step.operations[0], op="Relu")
    assert not is_exact_copy(Step(step.name, None, (relu,), step.result, step.output, 0), network)
    assert not is_exact_copy(replace(step, shift=1), network)


def test_a_carried_width_is_that_of_its_bounds() -> None:
    network = make_source(quantized("concat", 32), "net", None).network
    carried = network.tensors["right__q"]
    assert carried.role is None
    assert quant_bits(carried) == 8
    assert quant_bits(replace(carried, upper=15)) == 4
    assert quant_bits(replace(carried, upper=16)) == 8
    assert quant_bits(replace(carried, upper=15, role="activation")) == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [("residual", []), ("wide", ["2^24", "y"]), ("tail", ["floating point: p"]), ("swish", ["float32: swish, excited"])],
)
def test_notes_name_what_a_float_executor_may_get_wrong(name: str, words: list[str], tmp_path: Path) -> None:
    tqt_onnx.save(quantized(name, 32), tmp_path / "net.q.onnx")
    result = export_model(tmp_path / "net.q.onnx", "qonnx", tmp_path / "net")
    assert result.notes[0] == "written for one example (batch 1) in opset 13"
    assert len(result.notes) == 1 + bool(words)
    assert all(word in result.notes[-1] for word in words)
    assert [file.path for file in result.files] == ["net.onnx"]
    assert json.loads((tmp_path / "net" / "export.json").read_text())["rounding"] == "half_even"


def test_operators_of_the_old_opset_have_the_form_of_the_new() -> None:
    for op in SAME_FORM - {"Quant", "MultiThreshold"}:
        old, new = (onnx.defs.get_schema(op, version) for version in (13, 21))
        assert set(new.attributes) - set(old.attributes) == _NEWER.get(op, set()), op
        assert set(old.attributes) <= set(new.attributes), op
        assert _INPUTS.get(op, len(new.inputs)) == len(old.inputs), op


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("y = Relu(x)", 13),
        ("y = Gelu(x)", 21),
        ("y = Reshape <allowzero=0> (x, s)", 13),
        ("y = Reshape <allowzero=1> (x, s)", 21),
        ("y = Pad (x, s)", 13),
        ("y = Pad <mode='wrap'> (x, s)", 21),
        ("y = Pad (x, s, , s)", 21),
    ],
)
def test_the_opset_is_13_where_that_says_the_same(node: str, opset: int, tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[1, 2] x) => (float[1, 2] y) <int64[2] s = {1, 2}> { %s }'
    model = onnx_ir.from_onnx_text(text % node.replace("'", '"'))
    assert opset_for(model) == opset
    assert write_file(model, tmp_path / "m.onnx") == opset
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def fixed_batch(batch: int) -> onnx_ir.Model:
    """A network whose input is for that many examples."""
    network = NETWORKS["residual"]()
    network.graph.inputs[0].shape = onnx_ir.Shape([batch, *list(network.graph.inputs[0].shape or ())[1:]])
    return tqt_onnx.quantize(network, examples(batch, 0), bits=BitWidths(layer=32)).model


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_a_fixed_batch_other_than_one_is_refused(target: str, tmp_path: Path) -> None:
    message = rf"target {target}: input 'x': .* batch that is open or 1 is expected. Received: shape \[4, 8, 8, 3\]"
    with pytest.raises(UnsupportedError, match=message):
        EXPORTERS[target]().check(make_source(fixed_batch(4), "net", None))
    export_model(fixed_batch(1), target, tmp_path / "one")
    shape = onnx.load(tmp_path / "one" / "model.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 8, 8, 3]


@pytest.mark.parametrize("target", ["qonnx", "finn"])
def test_what_one_file_does_not_hold_is_refused_by_check(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, exporter = make_source(quantized("residual", 32), "net", None), EXPORTERS[target]()
    monkeypatch.setattr(file, "_MOST_BYTES", 0)
    with pytest.raises(UnsupportedError, match=rf"target {target}: .* 2 GB .* Received: \d+ bytes") as error:
        exporter.check(source)
    size = int(str(error.value).split()[-2])
    monkeypatch.setattr(file, "_MOST_BYTES", size - 1)
    with pytest.raises(UnsupportedError, match=f"Received: {size} bytes"):
        exporter.check(source)
    monkeypatch.setattr(file, "_MOST_BYTES", size)
    exporter.check(source)
    exporter.write(source, tmp_path)
    for path in tmp_path.glob("*.onnx"):
        assert sum(array.nbytes for array in constants(onnx.load(path)).values()) <= size


def test_an_open_shape_is_refused_in_the_name_of_the_target() -> None:
    model = quantized("residual", 32).clone()
    model.graph.inputs[0].shape = None
    with pytest.raises(UnsupportedError, match=r"target finn: .* shapes must be numbers for one example"):
        with_batch_one(model, "finn")
