"""Target `qdq`: what onnxruntime makes of the written file, with all optimizations, is the oracle's numbers, in integer kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from batch_norm_networks import Builder
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, event, given, settings
from random_networks import Network, networks

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.ir import DataError, UnsupportedError, name_of
from tqt_onnx.verbs.export import Export, export_model
from tqt_onnx.verify import FixedPoint, Oracle, certify, run_optimized
from tqt_onnx.verify.runtime import session_options
from tqt_onnx.verify.truncate import truncated

Array = np.ndarray[Any, np.dtype[Any]]

FLOAT_KERNELS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"})
TESTED = [name for name in NETWORKS if name != "wide"]  # which has no certificate


def file_of(result: Export) -> Path:
    assert [item.path for item in result.files] == ["model.onnx"]
    return result.folder / "model.onnx"


def left_in_float(model: Path | bytes, folder: Path, *settings: tuple[str, str]) -> set[str]:
    """Compute layers that the optimized session runs in float kernels."""
    options = session_options(optimize=True, optimized_model=folder / "optimized.onnx")
    for key, value in settings:
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(model if isinstance(model, bytes) else model.read_bytes(), options)
    return {node.name for node in onnx.load(folder / "optimized.onnx").graph.node if node.op_type in FLOAT_KERNELS}


def named(result: Export) -> dict[str, str]:
    """Layers that the notes say run in float, and why."""
    found = (re.fullmatch(r"layer '(.*)' runs in float there: (.*)\.", note) for note in result.notes)
    return {match[1]: match[2] for match in found if match}


def assert_exact(model: onnx_ir.Model, written: Path, feeds: Mapping[str, Array]) -> None:
    """The file as users load it against the oracle of the model: integers by `==`, floats behind a Softmax within X6."""
    expected = Oracle(model).run(feeds, keep=[value.name or "" for value in model.graph.outputs])
    assert set(expected) == {value.name for value in model.graph.outputs}
    for options in (session_options(optimize=True), session_options(optimize=False)):
        session = onnxruntime.InferenceSession(written.read_bytes(), options)
        received = dict(zip(expected, session.run(list(expected), dict(feeds)), strict=True))
        for name, value in expected.items():
            if isinstance(value, FixedPoint):
                np.testing.assert_array_equal(received[name], value.real(), err_msg=name)
                assert np.ptp(value.integers) > 0
            else:
                np.testing.assert_allclose(received[name], value, rtol=1e-4, atol=1e-6)


def inverted(seed: int = 0) -> onnx_ir.Model:
    """Inverted residuals: linear 1x1 layers whose int8 output is read by the next layer and by a sum; two outputs."""
    net = Builder(seed)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}

    def layer(x: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        return net.layer("Conv", x, name, shape, shape[0], **attributes)

    def relu6(x: str) -> str:
        return net.op("Clip", x, "zero", "six", name=f"{x}_relu6")

    x = net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    x = layer(relu6(layer(x, "stem", (8, 3, 3, 3), pads=[1] * 4, strides=[2, 2])), "start", (8, 8, 1, 1))
    for block in range(2):
        y = relu6(layer(x, f"wide{block}", (16, 8, 1, 1)))
        y = relu6(layer(y, f"depth{block}", (16, 1, 3, 3), pads=[1] * 4, group=16))
        x = net.op("Add", x, layer(y, f"narrow{block}", (8, 16, 1, 1)), name=f"sum{block}")
    net.op("Relu", layer(x, "side", (4, 8, 1, 1)), name="z")
    x = net.op("Flatten", net.op("GlobalAveragePool", relu6(layer(x, "head", (16, 8, 1, 1))), name="mean"), name="flat")
    net.layer("Gemm", x, "y", (16, 5), 5)
    return net.model({"x": (8, 8, 3)}, {"y": (5,), "z": (4, 4, 4)})


@pytest.mark.parametrize("weight", [8, 4])
@pytest.mark.parametrize("name", TESTED)
def test_the_file_gives_the_oracles_numbers_in_integer_kernels(name: str, weight: int, tmp_path: Path) -> None:
    model = quantized(name, 32, weight)
    result = export_model(model, "qdq", tmp_path / "out")
    assert_exact(model, file_of(result), {"x": examples(64, 5)})
    expected = {
        "leaky": {"conv": "its sum is rounded to 16 bits", "conv2": "its sum is rounded to 16 bits"},
        "transposed": {"up": "onnxruntime has no integer ConvTranspose"},
    }
    assert named(result) == expected.get(name, {})
    assert left_in_float(file_of(result), tmp_path) == set(named(result))


def test_layer16_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"target qdq: layer 'conv': .*16 bits.*--layer-bits 32.*Received: contract layer16"):
        export_model(quantized("residual", 16), "qdq", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bits",
    [
        BitWidths(layer=32),
        BitWidths(layer=32, weight=4),
        BitWidths(layer=32, activation=4, relu=4),
        BitWidths(layer=32, activation=5, relu=6),
        BitWidths(layer=32, unsigned_input=True),
    ],
    ids=["8", "int4 weights", "4-bit activations", "5 and 6 bits", "unsigned input"],
)
def test_an_int8_tensor_with_two_readers_keeps_no_layer_in_float(bits: BitWidths, tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(0, 1.5, (64, 8, 8, 3)).astype(np.float32)
    images = np.abs(images) if bits.unsigned_input else images
    model = tqt_onnx.quantize(inverted(), images[:32], bits=bits).model
    before = onnx_ir.serde.serialize_model(model).SerializeToString()
    assert left_in_float(before, tmp_path)  # what is written is needed: as it is, the model does not fuse
    result = export_model(model, "qdq", tmp_path / "out")
    assert onnx_ir.serde.serialize_model(model).SerializeToString() == before
    assert result.notes[0] == "12 of 12 compute layers run in integers in onnxruntime."
    assert left_in_float(file_of(result), tmp_path) == set()
    assert left_in_float(file_of(result), tmp_path, ("session.qdqisint8allowed", "1")) == set()
    assert_exact(model, file_of(result), {"x": images})
    assert [note for note in result.notes if "constants of 4 bits" in note] == (
        ["9 constants of 4 bits are stored in whole bytes: the same integers, and their layers fuse."] if bits.weight == 4 else []
    )


def test_the_file_is_standard_and_its_ends_are_those_of_the_model(tmp_path: Path) -> None:
    model = quantized("concat", 32, 4)
    written = onnx.load(file_of(export_model(model, "qdq", tmp_path / "out")))
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", 21)]
    assert written.ir_version == 10
    assert {node.domain for node in written.graph.node} == {""}
    original = onnx_ir.to_proto(model).graph
    assert [*written.graph.input] == [*original.input]
    assert [*written.graph.output] == [*original.output]
    types = {array.data_type for array in written.graph.initializer}
    assert not types & {onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
    read = {name for node in written.graph.node for name in node.input}
    assert {array.name for array in written.graph.initializer} <= read
    keys = {entry.key for entry in written.metadata_props}
    assert "tqt_onnx.contract" in keys
    assert "tqt_onnx.quantizers" not in keys  # they describe other integers


def test_two_inputs_of_which_one_is_read_twice(tmp_path: Path) -> None:
    net = Builder(3)
    a = net.layer("Conv", "a", "first", (4, 2, 3, 3), 4, pads=[1] * 4)
    b = net.layer("Conv", "b", "second", (4, 2, 1, 1), 4)
    total = net.op("Sub", a, b, name="y")
    net.op("Concat", net.layer("Conv", total, "third", (2, 4, 1, 1)), "b", name="z", axis=1)
    floats = net.model({"a": (2, 6, 6), "b": (2, 6, 6)}, {"y": (4, 6, 6), "z": (4, 6, 6)})
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(24, 2, 6, 6)).astype(np.float32) for name in "ab"}
    model = tqt_onnx.quantize(floats, feeds, bits=BitWidths(layer=32)).model
    result = export_model(model, "qdq", tmp_path / "out")
    assert (named(result), left_in_float(file_of(result), tmp_path)) == ({}, set())
    assert_exact(model, file_of(result), feeds)


def test_what_is_not_promised_is_said(tmp_path: Path) -> None:
    notes = export_model(quantized("wide", 32), "qdq", tmp_path / "wide").notes
    assert any(re.match(r"layer 'y' has no certificate: its sums can reach [\d,]+, beyond 2\^24", note) for note in notes)
    notes = export_model(quantized("swish", 32), "qdq", tmp_path / "swish").notes
    assert any(note.startswith("2 functions of one tensor") for note in notes)
    assert not any("certificate" in note for note in export_model(quantized("residual", 32), "qdq", tmp_path / "residual").notes)


@settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(network=networks())
def test_random_networks(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """Where all layers are certified the numbers are the oracle's, and the notes name what runs in float."""
    network.layer_bits = 32
    try:
        model = quantize_network(network)
        oracle = Oracle(model)
        expected = oracle.run(network.inputs, keep=[value.name or "" for value in model.graph.outputs])
    except (DataError, UnsupportedError):
        event("refused")
        return
    folder = tmp_path_factory.mktemp("qdq")
    result = export_model(model, "qdq", folder / "out")
    assert left_in_float(file_of(result), folder) == set(named(result))
    if oracle.islands or not all(layer.certified for layer in certify(model, oracle.plan)):
        event("not promised")
        return
    event("exact")
    received = run_optimized(onnx_ir.load(file_of(result)), network.inputs)
    for name, value in expected.items():
        assert isinstance(value, FixedPoint)
        np.testing.assert_array_equal(received[name], value.real(), err_msg=name)


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "layers"), [("resnet8_cifar10.h5", 11), ("mobilenet_v1_0.25_128_frozen.pb", 29)], ids=["resnet8", "mobilenet"]
)
def test_real_networks_run_in_integers(file: str, layers: int, data: Path, tmp_path: Path) -> None:
    (path,) = data.rglob(file)
    floats = tqt_onnx.convert(path).model
    size = tuple(int(dim) for dim in floats.graph.inputs[0].shape[1:])  # type: ignore[union-attr]
    images = np.random.default_rng(0).uniform(-1, 1, (8, *size)).astype(np.float32)
    model = tqt_onnx.quantize(floats, images, bits=BitWidths(layer=32)).model
    result = export_model(model, "qdq", tmp_path / "out")
    assert result.notes[0] == f"{layers} of {layers} compute layers run in integers in onnxruntime."
    assert left_in_float(file_of(result), tmp_path) == set()
    feeds = {floats.graph.inputs[0].name or "": images}
    assert_exact(model, file_of(result), feeds)
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    logits = name_of(softmax.inputs[0])
    expected = Oracle(model).run(feeds, keep=[value.name or "" for value in model.graph.outputs] + [logits])[logits]
    assert isinstance(expected, FixedPoint)
    received = run_optimized(truncated(onnx_ir.load(file_of(result)), [logits]), feeds)[logits]
    np.testing.assert_array_equal(received, expected.real())
