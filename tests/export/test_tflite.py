"""Target `tflite`: every layer rounds the model's own numbers, and TFLite's kernels differ from it on ties alone.

Run are the reference kernels, whose requantization is the specification and rounds twice (the last bit of the sum, then the rest),
and XNNPACK, which rounds products half to even, as the model does, and sums of two tensors half up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from fuzz_road import quantize_network
from handoff_networks import SHAPE, examples, quantized
from hypothesis import HealthCheck, given, settings
from integer_reader import run_operation, run_step
from random_networks import Network, networks
from tflite_reader import EXACT_IN_XNNPACK, every_layer, outputs

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import Source, TfliteExporter
from tqt_onnx.export.tflite_checks.weights import held_weights, weighted
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.verbs.export import make_source

HELD = ("residual", "depthwise", "concat", "transposed", "swish", "tail", "wide")
"""Networks that TFLite holds; `leaky` is refused."""


def written(model: onnx_ir.Model, folder: Path, *, narrow: bool = True) -> tuple[Source, bytes, tuple[str, ...]]:
    """The source, the file and the notes."""
    source, exporter = make_source(model, "net", None), TfliteExporter(narrow)
    exporter.check(source)
    notes = exporter.write(source, folder)
    return source, (folder / "net.tflite").read_bytes(), notes


def expected(source: Source, feeds: dict[str, Any]) -> dict[str, Any]:
    """The outputs from the weights as written, by a second reading of every step; sums of two tensors are rounded half up."""
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
    ports = [(port.name, port.tensor) for port in network.outputs if port.tensor is not None]
    return {name: tensors[tensor] * 2.0 ** network.tensors[tensor].exponent for name, tensor in ports}


def compare_layers(content: bytes, feeds: dict[str, Any]) -> Counter[str]:
    """Every layer from the integers TFLite fed it; counts numbers, ties and differences."""
    counts: Counter[str] = Counter()
    for layer in every_layer(content, feeds, "reference"):
        np.testing.assert_array_equal(layer.given, layer.specified, err_msg=layer.name)
        different = layer.given != layer.expected
        assert np.abs(layer.given - layer.expected).max(initial=0) <= 1
        assert not (different & ~layer.nearly).any()
        counts.update({"layers": 1, "ties": int(layer.ties.sum()), "differences": int(different.sum())})
    for layer in every_layer(content, feeds, "xnnpack"):
        up = np.clip(np.floor(layer.exact + 0.5), layer.lower, layer.upper)
        np.testing.assert_array_equal(layer.given, layer.expected if layer.op in EXACT_IN_XNNPACK else up, err_msg=layer.name)
    return counts


@pytest.mark.parametrize("weight", [8, 4])
@pytest.mark.parametrize("name", HELD)
def test_layers_differ_on_ties_alone_and_xnnpack_gives_the_models_integers(name: str, weight: int, tmp_path: Path) -> None:
    source, content, _ = written(quantized(name, 32, weight), tmp_path)
    counts = compare_layers(content, {"x": examples(1, 3)})
    assert counts["layers"] >= len([step for step in source.network.steps if step.shift and step.operations])
    if name != "tail":
        feeds = {"x": examples(12, 9)}
        found = outputs(content, feeds, "xnnpack")
        for port, values in expected(source, feeds).items():
            assert found[port].dtype == np.float32
            np.testing.assert_array_equal(found[port], values)


def test_the_reference_kernels_do_round_otherwise(tmp_path: Path) -> None:
    """Or the tests above would compare a rounding with itself."""
    _, content, _ = written(quantized("concat", 32), tmp_path)
    counts = compare_layers(content, {"x": examples(1, 3)})
    assert counts["ties"] > 50
    assert counts["differences"] > 20


def test_a_softmax_stays_float_behind_the_last_dequantize(tmp_path: Path) -> None:
    source, content, notes = written(quantized("tail", 32), tmp_path)
    assert notes == (
        "Weights of -128 were written as -127, which changes the network: conv (1).",
        "Behind the last DEQUANTIZE TFLite computes in floating point: p (Softmax).",
    )
    found = outputs(content, {"x": examples(8, 9)}, "xnnpack")["p"]
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found * 256 != np.round(found * 256)).any()  # an int8 Softmax would have steps of 1/256
    assert source.network.outputs[0].name == "p"


def network(build: Any, outputs: dict[str, tuple[int, ...]], inputs: dict[str, tuple[int, ...]] | None = None) -> onnx_ir.Model:
    net = Builder(11)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32), "one": np.array(1, np.float32)}
    build(net, net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2]))
    return net.model(inputs or {"x": SHAPE}, outputs)


def _grouped(net: Builder, x: str) -> None:
    x = net.op("Relu", net.layer("Conv", x, "c", (6, 3, 3, 2), 6, strides=[2, 1], pads=[1, 0, 0, 1]), name="c_relu")
    x = net.op("Relu", net.layer("Conv", x, "g", (4, 3, 3, 3), 4, group=2, pads=[1] * 4, dilations=[1, 2]), name="g_relu")
    x = net.layer("Conv", x, "d", (8, 1, 3, 3), 8, group=4, strides=[2, 1], pads=[1] * 4)
    net.op("Transpose", x, name="y", perm=[0, 2, 3, 1])


def _bounded(net: Builder, x: str) -> None:
    x = net.op("Clip", net.layer("Conv", x, "c", (4, 3, 1, 1), 4), "one", "six", name="c_clip")
    net.constants |= {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 0]), "filling": np.array(2.7, np.float32)}
    x = net.op("Pad", x, "pads", "filling", name="p")
    net.op("Transpose", x, name="y", perm=[0, 2, 3, 1])


def _forked(net: Builder, x: str) -> None:
    a = net.op("Relu", net.layer("Conv", x, "a", (4, 3, 3, 3), 4, pads=[1] * 4), name="a_relu")
    b = net.layer("Conv", a, "b", (4, 4, 1, 1), 4)
    c = net.layer("Conv", a, "c", (4, 4, 1, 1), 4)
    first = net.op("Add", a, b, name="first")
    second = net.op("Relu", net.op("Sub", net.op("Add", a, c, name="sum"), first, name="less"), name="second")
    net.op("Transpose", net.op("Max", first, second, name="max"), name="y", perm=[0, 2, 3, 1])
    net.op("Transpose", net.op("Mul", a, b, name="times"), name="z", perm=[0, 2, 3, 1])


OWN = {
    "grouped": network(_grouped, {"y": (2, 6, 8)}),
    "forked": network(_forked, {"y": (8, 8, 4), "z": (8, 8, 4)}),
    "bounded": network(_bounded, {"y": (10, 9, 4)}),
}
BITS = {
    "int8": BitWidths(layer=32),
    "int4": BitWidths(layer=32, activation=4, relu=4, weight=4),
    "unsigned": BitWidths(layer=32, unsigned_input=True),
}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", OWN)
def test_so_it_is_for_groups_bounds_forks_and_other_widths(name: str, bits: str, tmp_path: Path) -> None:
    shift = np.abs if bits == "unsigned" else np.asarray
    model = tqt_onnx.quantize(OWN[name], shift(examples(16, 0)), bits=BITS[bits]).model
    source, content, _ = written(model, tmp_path)
    feeds = {"x": shift(examples(6, 9))}
    compare_layers(content, feeds)
    found = outputs(content, feeds, "xnnpack")
    for port, values in expected(source, feeds).items():
        np.testing.assert_array_equal(found[port], values, err_msg=port)


def test_several_inputs_keep_their_names(tmp_path: Path) -> None:
    net = Builder(3)
    net.layer("Gemm", net.op("Flatten", "a:0", name="f"), "left", (12, 5), 5)
    net.layer("Gemm", net.op("Flatten", "b/c", name="g"), "right", (12, 5), 5)
    net.op("Concat", "left", "right", name="both", axis=1)
    model = net.model({"a:0": (2, 2, 3), "b/c": (2, 2, 3)}, {"both": (10,), "right": (5,)})
    feeds = {name: examples(16, seed)[:, :2, :2].copy() for seed, name in enumerate(("a:0", "b/c"))}
    source, content, _ = written(tqt_onnx.quantize(model, feeds, bits=BitWidths(layer=32)).model, tmp_path)
    found = outputs(content, feeds, "xnnpack")
    for port, values in expected(source, feeds).items():
        np.testing.assert_array_equal(found[port], values)
    assert set(found) == {"both", "right"}


def test_random_networks_are_exact_or_refused(tmp_path: Path) -> None:
    compared = 0

    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn=networks())
    def every(drawn: Network) -> None:
        nonlocal compared
        try:
            source, content, _ = written(quantize_network(replace(drawn, layer_bits=32)), tmp_path)
        except (DataError, UnsupportedError):
            return
        found = outputs(content, drawn.inputs, "xnnpack")
        for port, values in expected(source, drawn.inputs).items():
            np.testing.assert_array_equal(found[port], values)
            compared += 1

    every()
    assert compared >= 10


def test_weights_of_minus_128_are_refused_and_counted() -> None:
    source = make_source(quantized("residual", 32), "net", None)
    with pytest.raises(UnsupportedError, match=r"layer 'b': 1 of 324 weights are -128, .*--narrow-weights.*Received: -128"):
        TfliteExporter().check(source)
    TfliteExporter(narrow_weights=True).check(source)


def test_nothing_is_narrowed_where_a_common_factor_or_doubling_helps() -> None:
    held = held_weights(make_source(quantized("residual", 32, 4), "net", None).network, narrow=False)
    pool = next(one for name, one in held.items() if name.startswith("average"))
    assert (pool.integers == 2).all()  # a reciprocal of 128 to 255: a one, doubled
    assert pool.tensor.integers is not None
    assert (pool.tensor.integers * 2.0**pool.tensor.exponent == pool.integers * pool.scale).all()
    small = next(one for name, one in held.items() if one.step == "a")
    assert small.times == 2
    assert all(not one.clipped for one in held.values() if one.tensor.bits < 8)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("residual", 16, r"target tflite: .*layer32.*--layer-bits 32\. Received: layer16"),
        ("leaky", 32, r"target tflite: layer 'conv': .*leaky relu of 16 bits; .*Received: 16 bits"),
    ],
)
def test_what_the_target_does_not_hold_is_refused(name: str, layer: int, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        TfliteExporter(narrow_weights=True).check(make_source(quantized(name, layer), "net", None))


def test_two_operators_with_one_rounding_are_refused() -> None:
    def pooled(net: Builder, x: str) -> None:
        x = net.op("AveragePool", x, name="average", kernel_shape=[3, 3], pads=[1] * 4)
        net.op("Transpose", x, name="y", perm=[0, 2, 3, 1])

    model = tqt_onnx.quantize(network(pooled, {"y": (8, 8, 3)}), examples(16, 0), bits=BitWidths(layer=32)).model
    with pytest.raises(UnsupportedError, match=r"target tflite: layer .*: Conv -> Mul with one rounding .*Received: 2 operators"):
        TfliteExporter().check(make_source(model, "net", None))


def test_a_float_part_in_the_middle_is_refused() -> None:
    def normalized(net: Builder, x: str) -> None:
        x = net.op("Softmax", net.layer("Conv", x, "c", (4, 3, 1, 1), 4), name="soft", axis=1)
        net.op("Transpose", net.layer("Conv", x, "d", (4, 4, 1, 1), 4), name="y", perm=[0, 2, 3, 1])

    model = tqt_onnx.quantize(network(normalized, {"y": (8, 8, 4)}), examples(16, 0), bits=BitWidths(layer=32)).model
    with pytest.raises(UnsupportedError, match=r"target tflite: node 'soft' is computed in floating point.*Received: Softmax"):
        TfliteExporter(narrow_weights=True).check(make_source(model, "net", None))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"group": 2}, r"layer 'up': TFLite's TRANSPOSE_CONV has neither .*Received: group 2, dilations \[1, 1\]"),
        ({"pads": [1, 0, 0, 1]}, r"layer 'up': TFLite's TRANSPOSE_CONV cuts as .*Received: pads \[1, 0, 0, 1\]"),
    ],
)
def test_transposed_convolutions_of_other_forms_are_refused(attributes: Any, message: str, tmp_path: Path) -> None:
    def upwards(net: Builder, x: str) -> None:
        x = net.op("Relu", net.layer("Conv", x, "c", (4, 3, 1, 1), 4), name="relu")
        per_group = 4 // attributes.get("group", 1)
        x = net.layer("ConvTranspose", x, "up", (4, per_group, 3, 3), 4, **({"strides": [2, 2], "pads": [0] * 4} | attributes))
        net.op("Transpose", x, name="y", perm=[0, 2, 3, 1])

    size = 16 if "pads" in attributes else 17
    model = tqt_onnx.quantize(network(upwards, {"y": (size, size, 4)}), examples(16, 0), bits=BitWidths(layer=32)).model
    with pytest.raises(UnsupportedError, match=message):
        written(model, tmp_path)


def _of(operators: tuple[Any, ...], op: str) -> dict[str, Any]:
    found: dict[str, Any] = next(operator for operator in operators if operator["op"] == op)
    return found


def _other_scale(operators: Any) -> None:
    _of(operators, "CONV_2D")["outputs"][0]["scales"] *= 2


def _other_weight(operators: Any) -> None:
    weights = _of(operators, "CONV_2D")["inputs"][1]
    weights["constant"] = weights["constant"] + (weights["constant"] == weights["constant"].min())


def _other_bias(operators: Any) -> None:
    _of(operators, "FULLY_CONNECTED")["inputs"][2]["constant"] = np.ones(5, np.int32)


def _no_rescale(operators: Any) -> None:
    _of(operators, "MUL")["op"] = "RESHAPE"


def _float_layer(operators: Any) -> None:
    _of(operators, "ADD")["outputs"][0]["type"] = "float32"


def _second_rounding(operators: Any) -> None:
    _of(operators, "DEQUANTIZE").update(op="QUANTIZE", outputs=_of(operators, "ADD")["outputs"])


@pytest.mark.parametrize("change", [_other_scale, _other_weight, _other_bias, _no_rescale, _float_layer, _second_rounding])
def test_a_file_that_is_not_the_network_is_refused(change: Any, tmp_path: Path) -> None:
    """What the converter might do one day."""
    source = make_source(quantized("residual", 32), "net", None)

    def write(file: Path, weights: Any) -> Any:
        operators = source.write_tflite(file, weights)
        change(operators)
        return operators

    with pytest.raises(UnsupportedError, match=r"target tflite: (layer|tensor) '.*': TF's converter .*Received: "):
        TfliteExporter(narrow_weights=True).write(replace(source, write_tflite=write), tmp_path)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "pictures", "preset"),
    [
        ("resnet8_cifar10.h5", "cifar10_test.zip", "none"),
        ("mobilenet_v1_0.25_128_frozen.pb", "imagenet", "inception"),
    ],
)
def test_real_networks(name: str, pictures: str, preset: str, data: Path, tmp_path: Path) -> None:
    """Every layer of one image; and where no weight was changed, XNNPACK computes the outputs of 20 images as the oracle does."""
    conversion = tqt_onnx.convert(data / "models" / name)
    shape = tuple(int(dim) for dim in list(conversion.model.graph.inputs[0].shape)[1:])
    opened = tqt_onnx.open_dataset(data / "images" / pictures, input_shape=shape, preprocess=preset, limit=20, seed=0)
    images = opened.array()
    model = tqt_onnx.quantize(conversion.model, images, bits=BitWidths(layer=32)).model
    source, content, _ = written(model, tmp_path)
    (port,) = source.network.inputs
    counts = compare_layers(content, {port.name: images[:1]})
    assert counts["layers"] >= len(list(weighted(source.network)))
    held = held_weights(source.network, narrow=True)
    if any(one.clipped for one in held.values()):
        return
    found = outputs(content, {port.name: images}, "xnnpack")
    (end,) = source.network.ends
    logits = source.oracle({port.name: images})[end].reshape(20, -1) * 2.0 ** source.network.tensors[end].exponent
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(next(iter(found.values())).reshape(20, -1), wanted, rtol=1e-4, atol=1e-6)
