"""Target `integer`: integers in and out, float parts at the end and in the middle, refusals, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import NETWORKS, examples, quantized
from integer_runs import compare, exported, followed, run, tapped

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.cli import run as command
from tqt_onnx.export import EXPORTERS, IntegerExporter
from tqt_onnx.ir import UnsupportedError, save
from tqt_onnx.verbs.export import make_source


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_in_and_out(name: str, layer: int, tmp_path: Path) -> None:
    source, proto, _ = exported(quantized(name, layer), tmp_path, integer_io=True)
    network, expected = source.network, source.oracle({"x": examples()})
    assert [value.name for value in proto.graph.input] == [port.tensor for port in network.inputs]
    assert [value.name for value in proto.graph.output] == list(network.ends)
    assert not {"QuantizeLinear", "DequantizeLinear", "Softmax"} & {
        node.op_type for node in proto.graph.node if node.op_type != "QuantizeLinear" or node.input[0] == "x"
    }
    for optimize in (False, True):
        feeds = {port.tensor: expected[port.tensor].astype(np.int8) for port in network.inputs if port.tensor}
        found = run(proto, feeds, optimize=optimize)
        for end in network.ends:
            np.testing.assert_array_equal(found[end], expected[end])
            assert found[end].dtype == (np.int8 if network.tensors[end].signed else np.uint8)


def test_unsigned_inputs_and_inputs_of_few_bits(tmp_path: Path) -> None:
    """What is out of the range of 5 bits is saturated, as the rounding of the float input would."""
    net = Builder(2)
    net.layer("Conv", "x", "y", (3, 2, 3, 3), 3)
    x = np.random.default_rng(0).uniform(0, 3, (6, 2, 5, 5)).astype(np.float32)
    bits = BitWidths(activation=5, unsigned_input=True)
    model = tqt_onnx.quantize(net.model({"x": (2, 5, 5)}, {"y": (3, 3, 3)}), x, bits=bits).model
    source, proto, _ = exported(model, tmp_path, integer_io=True)
    (port,) = source.network.inputs
    assert port.tensor is not None
    tensor, (end,) = source.network.tensors[port.tensor], source.network.ends
    assert (tensor.lower, tensor.upper) == (0, 31)
    given = np.random.default_rng(1).integers(0, 255, x.shape, endpoint=True).astype(np.uint8)
    expected = source.oracle({"x": np.ldexp(given.astype(np.float32), tensor.exponent)})
    assert expected[port.tensor].max() == 31
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, {port.tensor: given}, optimize=optimize)[end], expected[end])


@pytest.mark.parametrize(("bits", "unsigned"), [(10, False), (9, True), (16, False), (16, True)])
def test_inputs_of_more_than_8_bits_are_saturated(bits: int, unsigned: bool, tmp_path: Path) -> None:
    """They are stored in int32, which holds more than they may be, whatever their bits."""
    source = make_source(quantized("residual", 32), "net", None)
    (port,) = source.network.inputs
    assert port.tensor is not None
    lower, upper = (0, (1 << bits) - 1) if unsigned else (-(1 << bits - 1), (1 << bits - 1) - 1)
    tensor = replace(source.network.tensors[port.tensor], bits=bits, signed=not unsigned, lower=lower, upper=upper)
    network = replace(source.network, tensors={tensor.name: tensor}, steps=(), outputs=(), ends=(tensor.name,))
    IntegerExporter(integer_io=True).write(replace(source, network=network), tmp_path)
    proto = onnx.load(tmp_path / "net.integer.onnx")
    borders = [lower - 1, lower, lower + 1, upper - 1, upper, upper + 1, -(1 << 31), (1 << 31) - 1]
    given = np.resize(np.array(borders, np.int32), (2, 8, 8, 3))
    for optimize in (False, True):
        (found,) = run(proto, {tensor.name: given}, optimize=optimize).values()
        np.testing.assert_array_equal(found, np.clip(given, lower, upper))


def inner() -> onnx_ir.Model:
    """Conv -> Softmax -> Conv -> Softmax: one float part in the middle, one at the end."""
    net = Builder(4)
    net.layer("Conv", "x", "first", (4, 3, 3, 3), 4, pads=[1] * 4)
    net.op("Softmax", "first", name="middle", axis=1)
    net.layer("Conv", "middle", "last", (5, 4, 3, 3), 5)
    net.op("Softmax", "last", name="p", axis=1)
    return net.model({"x": (3, 8, 8)}, {"p": (5, 6, 6)})


@pytest.mark.parametrize("layer", [16, 32])
def test_a_float_part_in_the_middle_stays_float_and_the_rest_exact(layer: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    model = tqt_onnx.quantize(inner(), x, bits=BitWidths(layer=layer)).model  # type: ignore[arg-type]  # 16 or 32
    for name in ("float", "integers"):
        (tmp_path / name).mkdir()
    source = compare(model, {"x": x}, tmp_path / "float")
    assert [(part.node, part.is_tail) for part in source.network.float_parts] == [("middle", False), ("p", True)]
    _, _, notes = exported(model, tmp_path / "integers", integer_io=True)
    assert sum("'middle' (Softmax) stays float between DequantizeLinear and QuantizeLinear: " in note for note in notes) == 1
    assert sum("'p' (Softmax): left out, for the host" in note for note in notes) == 1

    proto = onnx.load(tmp_path / "integers" / "net.integer.onnx")
    oracle = source.oracle({"x": x})
    (port,) = source.network.inputs
    assert port.tensor is not None
    found = run(tapped(proto, source), {port.tensor: oracle[port.tensor].astype(np.int8)}, optimize=True)
    expected = followed(source, oracle, found)
    assert [node.op_type for node in proto.graph.node].count("Softmax") == 1
    for end in source.network.ends:
        np.testing.assert_array_equal(found[end], expected[end])


def test_notes_say_what_is_not_plain_integers(tmp_path: Path) -> None:
    cases = (("residual", 32, []), ("residual", 16, ["int32 (4 of them)"]), ("tail", 32, ["'p' (Softmax): float, behind"]))
    for name, layer, wanted in cases:
        folder = tmp_path / f"{name}{layer}"
        folder.mkdir()
        _, _, notes = exported(quantized(name, layer), folder)
        assert [text in note for text, note in zip(wanted, notes, strict=True)] == [True] * len(wanted)


def test_the_softmax_of_the_tail_is_the_models(tmp_path: Path) -> None:
    source, proto, _ = exported(quantized("tail", 16), tmp_path)
    expected = source.oracle({"x": examples()})["y__q"] * 2.0 ** source.network.tensors["y__q"].exponent
    exponentials = np.exp(expected - expected.max(1, keepdims=True))
    found = run(proto, {"x": examples()}, optimize=True)["p"]
    np.testing.assert_allclose(found, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)  # X6


def test_an_output_that_nothing_rounds_is_refused_with_integer_io(tmp_path: Path) -> None:
    """A hand-edited model: an Identity between the last integers and the Softmax."""
    model = quantized("tail", 32).clone()
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    between = onnx_ir.node("Identity", [softmax.inputs[0]], name="between")
    between.outputs[0].name, between.outputs[0].shape, between.outputs[0].type = (
        "between",
        *(getattr(softmax.inputs[0], name) for name in ("shape", "type")),
    )
    model.graph.insert_before(softmax, between)
    softmax.replace_input_with(0, between.outputs[0])
    source, proto, _ = exported(model, tmp_path)
    same = exported(quantized("tail", 32), _folder(tmp_path))[1]
    ours, theirs = (run(each, {"x": examples()}, optimize=True)["p"] for each in (proto, same))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(
        UnsupportedError, match=r"target integer: node 'p': with integer_io, .* Received: 'between', which Identity"
    ):
        IntegerExporter(integer_io=True).check(source)


def _folder(folder: Path) -> Path:
    (folder / "other").mkdir()
    return folder / "other"


def test_sums_beyond_int32_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = make_source(quantized("wide", 32), "net", None)
    steps = tuple(
        replace(
            step,
            operations=tuple(
                replace(item, inputs=(item.inputs[0], "huge"), shifts=(0, 0), bound=None) if item.op == "Gemm" else item
                for item in step.operations
            ),
        )
        for step in source.network.steps
    )
    weights = next(tensor for tensor in source.network.constants if tensor.shape == (3072, 5))
    huge = replace(weights, name="huge", integers=np.full((3072 * 40, 5), -128, np.int64))
    network = replace(source.network, steps=steps, tensors={**source.network.tensors, "huge": huge})
    with pytest.raises(
        UnsupportedError, match=r"layer 'y': Gemm: MatMulInteger adds up in int32, at most 2147483647. Received: partial"
    ):
        IntegerExporter().check(replace(source, network=network))


def test_an_operation_that_is_not_known_is_refused_by_name() -> None:
    source = make_source(quantized("residual", 32), "net", None)
    first, *rest = source.network.steps
    odd = replace(source.network, steps=(replace(first, operations=(replace(_any(first, rest), op="Erf"),)), *rest))
    with pytest.raises(UnsupportedError, match=r"target integer: layer '.*': one of Add, Clip, .* is expected. Received: Erf"):
        IntegerExporter().check(replace(source, network=odd))


def _any(first: object, rest: list[object]) -> object:
    return next(operation for step in (first, *rest) for operation in step.operations)  # type: ignore[attr-defined]


@pytest.mark.parametrize("flags", [(), ("--integer-io",)])
def test_command(tmp_path: Path, flags: tuple[str, ...]) -> None:
    folder = tmp_path / "out"
    model = save(quantized("residual", 32).clone(), tmp_path / "net.q.onnx")
    assert command(["export", str(model), "--target", "integer", "-o", str(folder), *flags]) == 0
    manifest = json.loads((folder / "export.json").read_text())
    paths = {entry["path"] for entry in manifest["files"]}
    assert {"net.integer.onnx", "parameters.json"} <= paths
    assert all(path.startswith("weights/") for path in paths if path.endswith(".npy"))
    assert manifest["options"] == {"integer_io": bool(flags)}
    assert EXPORTERS["integer"] is IntegerExporter
