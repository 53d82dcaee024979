"""Target `c`: compiled with gcc and every sanitizer it has, the generated file computes the oracle's integers, `==`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import digits_network
import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from c_programs import FAST, SANITIZED, STRICT, assert_same, build, compiler, export_c, run
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, Phase, given, settings
from random_networks import Network, networks

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import CExporter, Source
from tqt_onnx.export.c import translate
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.verbs.export import export_model, make_source


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_handoff_networks(name: str, layer: Literal[16, 32], tmp_path: Path) -> None:
    assert_same(quantized(name, layer), {"x": examples()}, tmp_path)


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_weights_of_4_bits_are_stored_in_bytes(name: str, tmp_path: Path) -> None:
    source = assert_same(quantized(name, 16, 4), {"x": examples()}, tmp_path)
    assert "of 4 bits" in (tmp_path / "net.c").read_text()
    assert {tensor.bits for tensor in source.network.constants if tensor.role == "weight"} == {4, 8}


@pytest.mark.parametrize("flags", [FAST, (*SANITIZED, "-DNET_SEPARATE_BUFFERS")])
def test_optimized_and_with_arrays_of_their_own(flags: tuple[str, ...], tmp_path: Path) -> None:
    """The latter shows an access beyond an array to the sanitizer, since no other array is behind it."""
    assert_same(quantized("swish", 16), {"x": examples()}, tmp_path, flags)


def test_digits(tmp_path: Path) -> None:
    data = digits_network.digits()
    for layer in (16, 32):
        bits = BitWidths(layer=layer, weight=8)
        model = tqt_onnx.quantize(digits_network.build(), data.calibration, bits=bits).model
        assert_same(model, {"image": data.test[:60]}, tmp_path / str(layer))


def fed(model: onnx_ir.Model, shapes: dict[str, tuple[int, ...]], folder: Path, **bits: Any) -> Any:
    """Quantizes a network on drawn images and compares."""
    rng = np.random.default_rng(3)
    feeds = {name: rng.normal(0, 1.5, (8, *shape)).astype(np.float32) for name, shape in shapes.items()}
    if bits.get("unsigned_input"):
        feeds = {name: np.abs(array) for name, array in feeds.items()}
    return assert_same(tqt_onnx.quantize(model, feeds, bits=BitWidths(**bits)).model, feeds, folder)


def test_two_inputs_three_outputs_and_one_that_is_read_on(tmp_path: Path) -> None:
    net = Builder(2)
    a = net.op("Relu", net.layer("Conv", "x", "a", (3, 3, 3, 3), 3, pads=[1] * 4), name="a_relu")
    net.op("Sub", a, "z", name="difference")
    net.op("Transpose", a, name="turned", perm=[0, 2, 3, 1])
    ends = {"difference": (3, 6, 5), "a_relu": (3, 6, 5), "turned": (6, 5, 3)}
    source = fed(net.model({"x": (3, 6, 5), "z": (3, 1, 5)}, ends), {"x": (3, 6, 5), "z": (3, 1, 5)}, tmp_path)
    assert len(source.network.ends) == 3


@pytest.mark.parametrize(
    "bits", [{"unsigned_input": True}, {"activation": 4, "relu": 4}, {"activation": 6, "weight": 5, "layer": 32}]
)
def test_other_widths(bits: dict[str, Any], tmp_path: Path) -> None:
    fed(NETWORKS["concat"](), {"x": (8, 8, 3)}, tmp_path, **bits)


def test_moves_of_every_kind(tmp_path: Path) -> None:
    """Each as an output of its own: slices backwards, any order, borders of elements and of a number, blocks, repetitions."""
    net = Builder(4)
    x = net.layer("Conv", "x", "a", (4, 3, 1, 1), 4)
    numbers = {
        **{"back": [-1, -1], "stop": [-9, -9], "axes": [2, 3], "steps": [-2, -1], "order": [2, 0, -1, 2], "two": [[0, 2], [1, 1]]},
        **{"wide": [0, 0, 1, 2, 0, 0, 0, 1], "twice": [1, 1, 2, 1]},
    }
    net.constants |= {name: np.array(value, np.int64) for name, value in numbers.items()}
    net.constants |= {"half": np.array(0.3, np.float32), "scales": np.array([1, 1, 3, 2], np.float32)}
    net.op("Slice", x, "back", "stop", "axes", "steps", name="sliced")
    net.op("Gather", x, "order", name="gathered", axis=1)
    net.op("Gather", x, "two", name="matrix", axis=3)
    for mode in ("reflect", "edge", "wrap"):
        net.op("Pad", x, "wide", name=mode, mode=mode)
    net.op("Pad", x, "wide", "half", name="filled")
    net.op("DepthToSpace", x, name="space", blocksize=2, mode="CRD")
    net.op("SpaceToDepth", x, name="depth", blocksize=2)
    net.op("Tile", x, "twice", name="tiled")
    net.op(
        "Resize", x, "", "scales", name="resized", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    names = ["sliced", "gathered", "matrix", "reflect", "edge", "wrap", "filled", "space", "depth", "tiled", "resized"]
    open_ended = net.model({"x": (3, 4, 6)}, dict.fromkeys(names))
    shapes = {value.name: tuple(int(n) for n in list(value.shape or [])[1:]) for value in open_ended.graph.outputs}
    source = fed(net.model({"x": (3, 4, 6)}, shapes), {"x": (3, 4, 6)}, tmp_path)
    used = {operation.op for step in source.network.steps for operation in step.operations}
    assert used >= {"Slice", "Gather", "Pad", "DepthToSpace", "SpaceToDepth", "Tile", "Resize"}


@settings(max_examples=30, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(network=networks())
def compare_random(network: Network, folder: Path, outcomes: list[str]) -> None:
    try:
        model = quantize_network(network)
        source = export_c(model, folder)
    except (DataError, UnsupportedError):
        outcomes.append("refused")
        return
    expected = source.oracle(network.inputs)
    found = run(build(folder), source, expected)
    for tensor in source.network.ends:
        np.testing.assert_array_equal(found[tensor], expected[tensor])
    outcomes.append("compared")


def test_random_networks(tmp_path: Path) -> None:
    outcomes: list[str] = []
    compare_random(folder=tmp_path, outcomes=outcomes)
    assert outcomes.count("compared") > 20


def test_headers_and_files_are_cpp_too(tmp_path: Path) -> None:
    compiler("g++")
    model = quantized("leaky")
    export_c(model, tmp_path)
    (tmp_path / "main.cc").write_text(
        '#include "net.h"\nint main() { static int8_t x[NET_X_SIZE], y[NET_Y_SIZE]; net_run(x, y); }\n'
    )
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler(), *STRICT, "-c", "net.c"], cwd=tmp_path, check=True)
    subprocess.run([compiler("g++"), *strict, "main.cc", "net.o"], cwd=tmp_path, check=True)
    subprocess.run([compiler("g++"), *strict, "-x", "c++", "main.cc", "net.c"], cwd=tmp_path, check=True)


def test_the_self_test_says_ok_and_finds_a_changed_weight(tmp_path: Path) -> None:
    tqt_onnx.save(quantized("tail"), tmp_path / "net.q.onnx")
    np.save(tmp_path / "x.npy", examples(6))
    result = export_model(tmp_path / "net.q.onnx", "c", tmp_path / "out", data=tmp_path / "x.npy")
    assert {file.path for file in result.files} == {"net.c", "net.h", "net_test.c"}
    assert any("p (Softmax)" in note and "left to the host" in note for note in result.notes)
    command = [compiler(), *SANITIZED, "net.c", "net_test.c", "-o", "test"]
    folder = tmp_path / "out"
    subprocess.run(command, cwd=folder, check=True)
    assert subprocess.run([folder / "test"], capture_output=True, check=True).stdout == b"ok: 4 examples\n"
    code = (folder / "net.c").read_text()
    changed = re.sub(r"(y_b_q\[5\] = \{\n +)-?\d+", r"\g<1>9999", code)
    assert changed != code
    (folder / "net.c").write_text(changed)
    subprocess.run(command, cwd=folder, check=True)
    assert subprocess.run([folder / "test"], capture_output=True, check=False).returncode == 1


HOSTILE = (
    "*/ int main(void) { return 1; } /*",
    "a\\\nb",
    "??/\nx",
    '"; }',
    "int",
    "2nd",
    "é\u2028",
    "printf",
    "linux",
    "a_q",
    "a__q",
    "",
    "layer 1 conv",
    "conv_q",
    "golden_image",
    "arena_8",
)


def test_names_of_a_model_stay_names(tmp_path: Path) -> None:
    model = quantized("swish").clone()
    for place, node in enumerate(model.graph):
        node.name = HOSTILE[place % len(HOSTILE)] + str(place)
        node.metadata_props["tqt_onnx.source"] = HOSTILE[place % len(HOSTILE)]
    source = make_source(model, 'my "net"-2.*/', None)
    assert "stdint_network.h" in "".join(translate("stdint", source.network).code.text())
    for turn in range(len(HOSTILE)):  # values are called as nodes are, turned against each other
        written, folder = hostile(source, turn), tmp_path / str(turn)
        folder.mkdir()
        assert "my_net_2" in " ".join(CExporter().write(written, folder))
        code = (folder / "my_net_2.c").read_text()
        assert code.isascii() and "\\" not in code and "??" not in code
        subprocess.run([compiler(), *STRICT, "-fsyntax-only", "my_net_2.c"], cwd=folder, check=True)
    expected = source.oracle({"x": examples()})
    found = run(build(folder, SANITIZED, "my_net_2"), written, expected)
    np.testing.assert_array_equal(found["y__q"], expected["y__q"])


def hostile(source: Source, turn: int) -> Source:
    """The values of a network under other names."""
    network = source.network
    names = {name: HOSTILE[(place + turn) % len(HOSTILE)] for place, name in enumerate(network.tensors)}
    tensors = {name: replace(tensor, value=names[name]) for name, tensor in network.tensors.items()}
    ports = [
        tuple(replace(port, name=names.get(port.tensor or "", port.name)) for port in side)
        for side in (network.inputs, network.outputs)
    ]
    return replace(source, network=replace(network, tensors=tensors, inputs=ports[0], outputs=ports[1]))


def test_a_function_is_not_called_as_a_value_is(tmp_path: Path) -> None:
    """`layer_1_` of the node `conv_q`, and the weights `layer_1_conv`; golden outputs, and an output of that name."""
    net = Builder(0)
    net.constants["layer_1_conv"] = net.rng.normal(size=(2, 3, 1, 1)).astype(np.float32)
    net.op("Conv", "x", "layer_1_conv", name="conv_q")
    net.layer("Conv", "conv_q", "golden_x", (2, 2, 1, 1))
    data = net.rng.normal(size=(4, 3, 4, 4)).astype(np.float32)
    model = tqt_onnx.quantize(net.model({"x": (3, 4, 4)}, {"golden_x": (2, 4, 4)}), data).model
    export_model(model, "c", tmp_path / "out", data=data)
    assert self_test(tmp_path / "out", "model") == (0, "ok: 4 examples\n")


def self_test(folder: Path, name: str) -> tuple[int, str]:
    """Compiles and runs what compares golden outputs: its code and what it prints."""
    subprocess.run([compiler(), *SANITIZED, f"{name}.c", f"{name}_test.c", "-o", "test"], cwd=folder, check=True)
    done = subprocess.run([folder / "test"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("layer", ["Gemm", "Conv"])
def test_a_fixed_batch_is_one_run(layer: str, batch: int, tmp_path: Path) -> None:
    """9 examples are 4 runs of 2 or 3 of 3; what is compared is what the oracle says of each of them."""
    shape, filters = ((3,), (3, 2)) if layer == "Gemm" else ((3, 4, 4), (2, 3, 2, 2))
    net = Builder(1)
    net.layer(layer, "x", "y", filters, 2)
    proto = onnx_ir.to_proto(net.model({"x": shape}, {"y": (2,) if layer == "Gemm" else (2, 3, 3)}))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del proto.graph.value_info[:]
    data = net.rng.normal(size=(9 // batch * batch, *shape)).astype(np.float32)
    model = tqt_onnx.quantize(onnx_ir.from_proto(proto), data).model
    notes = " ".join(export_model(model, "c", tmp_path / "out", data=data).notes)
    runs, one = min(4, 9 // batch), "one example" if batch == 1 else f"one run of {batch} examples"
    compared = f"{runs} examples" if batch == 1 else f"{runs} runs of {batch} examples"
    assert f"model_run takes {one}:" in notes and f"model_test.c compares {compared}:" in notes
    assert f"on {one}. Arguments" in (tmp_path / "out" / "model.h").read_text()
    assert self_test(tmp_path / "out", "model") == (0, f"ok: {compared}\n")
    golden = re.search(r"y_q_golden\[\d+\] = \{([^}]*)\}", (tmp_path / "out" / "model_test.c").read_text())
    assert golden is not None
    source = make_source(model, "model", None)
    expected = [source.oracle({"x": data[start : start + batch]})["y__q"] for start in range(0, runs * batch, batch)]
    assert [int(number) for number in golden[1].split(",") if number.strip()] == np.concatenate(expected).ravel().tolist()


def test_what_is_not_rounded_to_integers_is_refused_by_name(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(4, 3, 4, 4)).astype(np.float32)
    net = Builder(6)
    net.op("Softmax", net.layer("Conv", "x", "a", (2, 3, 1, 1), 2), name="inner", axis=1)
    net.layer("Conv", "inner", "y", (2, 2, 1, 1), 2)
    inner = tqt_onnx.quantize(net.model({"x": (3, 4, 4)}, {"y": (2, 4, 4)}), data).model
    with pytest.raises(UnsupportedError, match="target c: node 'inner'"):
        export_c(inner, tmp_path / "inner")
    net = Builder(7)
    left, right = (net.layer("Conv", "x", name, (3, 3, 1, 1), 3) for name in "ab")
    net.op("MatMul", left, right, name="y")
    for tail in (False, True):
        if tail:
            net.op("Softmax", "y", name="p", axis=-1)
        model = tqt_onnx.quantize(net.model({"x": (3, 4, 4)}, {"p" if tail else "y": (3, 4, 4)}), data).model
        with pytest.raises(UnsupportedError, match="target c: layer 'y' is handed on without being rounded"):
            export_c(model, tmp_path / "unrounded")
    assert not list(tmp_path.iterdir())


CIFAR = "cifar10_test.zip"


@pytest.mark.real
@pytest.mark.parametrize("layer", [16, 32])
def test_resnet8_on_24_images(layer: Literal[16, 32], data: Path, tmp_path: Path) -> None:
    converted = tqt_onnx.convert(data / "models" / "resnet8_cifar10.h5").model
    images = [
        tqt_onnx.open_dataset(data / "images" / name, input_shape=(32, 32, 3), limit=count, seed=0).array()
        for name, count in (("cifar10_train.zip", 32), (CIFAR, 24))
    ]
    model = tqt_onnx.quantize(converted, images[0], bits=BitWidths(layer=layer)).model
    source = assert_same(model, {model.graph.inputs[0].name or "": images[1]}, tmp_path)
    assert len(source.network.ends) == 1


@pytest.mark.real
def test_mobilenet_on_4_images(data: Path, tmp_path: Path) -> None:
    converted = tqt_onnx.convert(data / "models" / "mobilenet_v1_0.25_128_frozen.pb").model
    images = tqt_onnx.open_dataset(
        data / "images" / "imagenet", input_shape=(128, 128, 3), preprocess="signed_unit", limit=8, seed=0
    ).array()
    model = tqt_onnx.quantize(converted, images, bits=BitWidths(layer=32)).model
    assert_same(model, {model.graph.inputs[0].name or "": images[:4]}, tmp_path, FAST)
