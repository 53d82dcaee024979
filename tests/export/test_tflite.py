"""Target `tflite`: every layer rounds the model's own numbers, and TFLite's kernels differ from it on ties alone.

Run are the reference kernels, whose requantization is the specification and rounds twice (the last bit of the sum, then the rest),
and XNNPACK, which rounds products half to even, as the model does, and sums of two tensors half up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_norm_networks import Builder
from fuzz_road import quantize_network
from handoff_networks import examples, quantized
from hypothesis import HealthCheck, given, settings
from random_networks import Network, networks
from tflite_reader import EXACT_IN_XNNPACK, every_layer, outputs
from tflite_runs import computed, expected, network, written

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export.tflite_checks.weights import weighted
from tqt_onnx.ir import DataError, UnsupportedError

HELD = ("residual", "depthwise", "concat", "transposed", "swish", "tail", "wide")
"""Networks that TFLite holds; `leaky` is refused."""


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
def test_default_kernels_differ_on_ties_and_reference_ones_also_one_unit_below(name: str, weight: int, tmp_path: Path) -> None:
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
    assert compared >= 18


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "pictures", "preset"),
    [
        ("resnet8_cifar10.h5", "cifar10_test.zip", "none"),
        ("mobilenet_v1_0.25_128_frozen.pb", "imagenet", "inception"),
    ],
)
def test_real_networks(name: str, pictures: str, preset: str, data: Path, tmp_path: Path) -> None:
    """Every layer of one image, and XNNPACK's outputs of 20 images from the weights as written."""
    conversion = tqt_onnx.convert(data / "models" / name)
    shape = tuple(int(dim) for dim in list(conversion.model.graph.inputs[0].shape)[1:])
    opened = tqt_onnx.open_dataset(data / "images" / pictures, input_shape=shape, preprocess=preset, limit=20, seed=0)
    images = opened.array()
    model = tqt_onnx.quantize(conversion.model, images, bits=BitWidths(layer=32)).model
    source, content, _ = written(model, tmp_path)
    (port,) = source.network.inputs
    counts = compare_layers(content, {port.name: images[:1]})
    assert counts["layers"] >= len(list(weighted(source.network)))
    found = outputs(content, {port.name: images}, "xnnpack")
    (end,) = source.network.ends
    logits = computed(source, {port.name: images})[end].reshape(20, -1) * 2.0 ** source.network.tensors[end].exponent
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(next(iter(found.values())).reshape(20, -1), wanted, rtol=1e-4, atol=1e-6)
