"""Target `integer`: what onnxruntime computes of the file is the oracle's integers, `==`, with all optimizations and with none."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from batch_norm_networks import Array, Builder
from handoff_networks import NETWORKS, examples, quantized
from integer_reader import run_step
from integer_runs import compare, exported, run, tapped

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import IntegerExporter
from tqt_onnx.export.integers.network import SUMS
from tqt_onnx.ir import quantizers_of
from tqt_onnx.verbs.export import make_source
from tqt_onnx.verify import certify, run_optimized, run_tapped

CASES = [(layer, weight) for layer in (16, 32) for weight in (8, 4)]


@pytest.mark.parametrize(("layer", "weight"), CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_oracles_integers(name: str, layer: int, weight: int, tmp_path: Path) -> None:
    compare(quantized(name, layer, weight), {"x": examples()}, tmp_path)


def model_of_ties(layer: int) -> tuple[onnx_ir.Model, Array]:
    """A MatMul of 4,096 inputs, and examples whose sums are a tie and one more, beyond 2^24: float32 drops the one.

    Weights are the integers 64 and, for the last input, 1; inputs are 128, one remainder, and 1. The quotient is even in front
    of the tie: what lies on it is rounded down, what lies above it up.
    """
    net = Builder()
    net.constants["w"] = np.full((4096, 8), 0.5, np.float32)
    net.constants["w"][-1] = 2.0**-7
    net.op("MatMul", "x", "w", name="y")
    model = net.model({"x": (4096,)}, {"y": (8,)})
    bits = BitWidths(layer=layer, unsigned_input=True)  # type: ignore[arg-type]  # 16 or 32
    quantized = tqt_onnx.quantize(model, np.full((1, 4096), 0.5, np.float32), bits=bits, method="max").model
    shift = {16: 11, 32: 19}[layer]
    integers = np.zeros((16, 4096), np.int64)
    for row, even in enumerate(np.linspace((1 << 24 - shift) + 2, 62 << 19 - shift, 16).astype(int) // 2 * 2):
        tie = (int(even) << shift) + (1 << shift - 1)
        integers[row, : tie >> 13] = 128
        integers[row, 4094] = (tie & (1 << 13) - 1) >> 6
        integers[row, 4095] = 1
    return quantized, np.ldexp(integers, -9).astype(np.float32)


@pytest.mark.parametrize("layer", [16, 32])
def test_sums_that_float32_does_not_hold_are_exact(layer: int, tmp_path: Path) -> None:
    """The Q/DQ model gives another integer for every example, with and without optimizations; the file gives the oracle's."""
    model, x = model_of_ties(layer)
    assert [certificate.certified for certificate in certify(model)] == [False]
    source = compare(model, {"x": x}, tmp_path)
    rounded = source.network.steps[0].output
    expected = source.oracle({"x": x})[rounded]
    assert (expected % 2 == 1).all()
    assert (np.abs(expected) < source.network.tensors[rounded].upper).all()
    np.testing.assert_array_equal(run_tapped(model, {"x": x}, [rounded])[rounded], expected - 1)
    if layer == 32:
        (found,) = run_optimized(model, {"x": x}).values()
        np.testing.assert_array_equal(np.ldexp(found, -source.network.tensors[rounded].exponent), expected - 1)


def test_a_layer_without_certificate_is_exact_on_large_inputs(tmp_path: Path) -> None:
    for layer in (16, 32):
        model = quantized("wide", layer)
        assert not all(certificate.certified for certificate in certify(model))
        folder = tmp_path / str(layer)
        folder.mkdir()
        compare(model, {"x": 4 * examples(32, 3)}, folder)


def test_a_relu_in_front_of_a_signed_rounding_is_not_left_out(tmp_path: Path) -> None:
    """In front of an unsigned one it is: the lower bound does the same."""
    source = make_source(quantized("residual", 32), "net", None)
    step = next(step for step in source.network.steps if step.operations and step.operations[-1].op == "Relu")
    signed = replace(source.network.tensors[step.output], signed=True, lower=-128, upper=127)
    network = replace(source.network, tensors={**source.network.tensors, step.output: signed})
    odd = replace(source, network=network)
    IntegerExporter().write(odd, tmp_path)
    proto = onnx.load(tmp_path / "net.integer.onnx")
    found = run(tapped(proto, odd), {"x": examples()}, optimize=True)
    tensors = {tensor.name: tensor.integers for tensor in network.constants} | source.oracle({"x": examples()})
    expected = run_step(asdict(step), tensors, asdict(signed))
    np.testing.assert_array_equal(found[step.output], expected)
    assert expected.min() == 0
    plain = exported(quantized("residual", 32), _within(tmp_path))[1]
    bounds = [[node.op_type for node in each.graph.node].count("Clip") for each in (proto, plain)]
    assert bounds[0] == bounds[1] + 1


def _within(folder: Path) -> Path:
    (folder / "within").mkdir()
    return folder / "within"


def test_names_shapes_and_the_batch_stay_as_in_the_model(tmp_path: Path) -> None:
    model = quantized("tail", 16)
    _, proto, _ = exported(model, tmp_path)
    before, opset = onnx_ir.to_proto(model).graph, [(entry.domain, entry.version) for entry in proto.opset_import]
    assert list(proto.graph.input) == list(before.input)
    assert [(out.name, out.type) for out in proto.graph.output] == [(out.name, out.type) for out in before.output]
    assert (opset, proto.ir_version) == ([("", 21)], 10)
    assert {prop.key for prop in proto.metadata_props} == {"tqt_onnx.contract", "tqt_onnx.version"}
    assert quantizers_of(onnx_ir.from_proto(proto)) is None
    for count in (1, 5):
        found = run(proto, {"x": examples(count)}, optimize=True)
        whole = run(proto, {"x": examples(5)}, optimize=True)
        np.testing.assert_array_equal(found["p"], whole["p"][:count])


def test_every_sum_is_computed_in_integers(tmp_path: Path) -> None:
    """No Conv, Gemm or MatMul is left, whatever the network."""
    for name in NETWORKS:
        folder = tmp_path / name
        folder.mkdir()
        source, proto, _ = exported(quantized(name, 16), folder)
        kinds = [node.op_type for node in proto.graph.node]
        assert not SUMS & set(kinds)
        sums = sum(
            operation.op in {"Conv", "ConvTranspose", "Gemm", "MatMul"}
            for step in source.network.steps
            for operation in step.operations
        )
        assert sums == kinds.count("ConvInteger") + kinds.count("MatMulInteger")


def test_taps_are_called_as_in_the_model(tmp_path: Path) -> None:
    """Every integer tensor can be read from the file under the name that `check` and golden vectors give it."""
    source, proto, _ = exported(quantized("residual", 16), tmp_path)
    names = {output.name for output in tapped(proto, source).graph.output}
    assert {name for name, tensor in source.network.tensors.items() if tensor.kind != "constant"} <= names


def test_nodes_know_their_tensorflow_nodes(tmp_path: Path) -> None:
    model = quantized("depthwise", 32).clone()
    for node in model.graph:
        node.metadata_props["tqt_onnx.source"] = f"tf/{node.op_type}"
    _, proto, _ = exported(model, tmp_path)
    sources = {node.op_type: {prop.key: prop.value for prop in node.metadata_props} for node in proto.graph.node}
    assert sources["ConvInteger"]["tqt_onnx.source"] == "tf/Conv"
    assert sources["MatMulInteger"]["tqt_onnx.source"] == "tf/Gemm"


def test_several_inputs_and_outputs_and_few_bits(tmp_path: Path) -> None:
    """Two images, a product and a sum of both, outputs in the middle; 4-bit activations and weights, unsigned inputs."""
    net = Builder(3)
    left = net.layer("Conv", "a", "left", (4, 2, 3, 3), 4, pads=[1] * 4)
    right = net.op("Relu", net.layer("Conv", "b", "right", (4, 3, 3, 3), 4, pads=[1] * 4), name="rectified")
    both = net.op("Mul", left, right, name="product")
    net.op("Concat", net.op("Add", left, right, name="sum"), both, name="joined", axis=1)
    net.layer("Conv", "joined", "last", (3, 8, 1, 1))
    shapes = {"a": (2, 6, 6), "b": (3, 6, 6)}
    model = net.model(shapes, {"sum": (4, 6, 6), "last": (3, 6, 6), "rectified": (4, 6, 6)})
    rng = np.random.default_rng(0)
    feeds = {name: np.abs(rng.normal(size=(6, *shape))).astype(np.float32) for name, shape in shapes.items()}
    for place, bits in enumerate((BitWidths(), BitWidths(weight=4, activation=4, relu=3, layer=32, unsigned_input=True))):
        folder = tmp_path / str(place)
        folder.mkdir()
        source = compare(tqt_onnx.quantize(model, feeds, bits=bits).model, feeds, folder)
        assert [port.name for port in source.network.outputs] == ["sum", "last", "rectified"]


def test_attention_multiplies_computed_factors(tmp_path: Path) -> None:
    """Queries times keys: both are computed, both signed; the keys are transposed by a move; a layer reads the rounded product."""
    net = Builder(1)
    for name in ("queries", "keys"):
        net.constants[f"{name}/w"] = net.rng.normal(size=(6, 5)).astype(np.float32)
        net.op("MatMul", "x", f"{name}/w", name=name)
    net.op("MatMul", "queries", net.op("Transpose", "keys", name="turned", perm=[0, 2, 1]), name="scores")
    net.constants["values"] = net.rng.normal(size=(7, 3)).astype(np.float32)
    net.op("MatMul", "scores", "values", name="y")
    model = net.model({"x": (7, 6)}, {"y": (7, 3)})
    x = np.random.default_rng(0).normal(size=(5, 7, 6)).astype(np.float32)
    for layer in (16, 32):
        folder = tmp_path / str(layer)
        folder.mkdir()
        source = compare(tqt_onnx.quantize(model, x, bits=BitWidths(layer=layer)).model, {"x": x}, folder)  # type: ignore[arg-type]
        (step,) = [step for step in source.network.steps if step.name == "scores" and step.operations]
        assert not {tensor.name for tensor in source.network.constants} & set(step.reads)
        assert (source.network.unrounded, source.network.float_parts) == ((), ())
        kinds = [node.op_type for node in onnx.load(folder / "net.integer.onnx").graph.node]
        assert (kinds.count("MatMulInteger"), kinds.count("MatMul")) == (4, 0)


@pytest.mark.real
@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", ["resnet8_cifar10.h5", "mobilenet_v1_0.25_128_frozen.pb"])
def test_real_networks(data: Path, name: str, layer: int, tmp_path: Path) -> None:
    model = tqt_onnx.convert(data / "models" / name).model
    shape = tuple(int(size) for size in list(model.graph.inputs[0].shape or ())[1:])
    images, preset = ("cifar10_train.zip", "none") if shape[0] == 32 else ("imagenet", "signed_unit")
    x = tqt_onnx.open_dataset(data / "images" / images, input_shape=shape, preprocess=preset, limit=8, seed=0).array()
    bits = BitWidths(layer=layer)  # type: ignore[arg-type]  # 16 or 32
    compare(tqt_onnx.quantize(model, x[:4], bits=bits).model, {model.graph.inputs[0].name or "": x[4:]}, tmp_path)
