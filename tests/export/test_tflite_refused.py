"""Target `tflite`: what is refused by name, files that are not the network, weights as int8 holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_norm_networks import Builder
from handoff_networks import NETWORKS, examples, quantized
from tflite_reader import outputs, rounded_twice
from tflite_runs import expected, network, written

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import TfliteExporter
from tqt_onnx.export.tflite_checks.weights import held_weights
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import make_source


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
        ("residual", 16, r"target tflite: layer '.+': .*layer32.*--layer-bits 32\. Received: layer16"),
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


def _dropped_activation(operators: Any) -> None:
    _of(operators, "DEPTHWISE_CONV_2D")["options"]["fusedActivationFunction"] = 0


def _other_stride(operators: Any) -> None:
    _of(operators, "CONV_2D")["options"]["strideW"] = 3


def _other_padding(operators: Any) -> None:
    _of(operators, "CONV_2D")["options"]["padding"] ^= 1


def _other_dilation(operators: Any) -> None:
    _of(operators, "CONV_2D")["options"]["dilationHFactor"] = 2


def _other_operand(operators: Any) -> None:
    add = _of(operators, "ADD")
    add["inputs"] = (add["inputs"][0],) * 2


def _other_bound(operators: Any) -> None:
    bound = next(one for one in _of(operators, "MINIMUM")["inputs"] if one["constant"] is not None)
    bound["constant"] = bound["constant"] + 5


NARROW = {"layer": 32, "activation": 4, "relu": 4}


@pytest.mark.parametrize(
    ("change", "name", "bits"),
    [
        *((change, "residual", {"layer": 32}) for change in (_other_scale, _other_weight, _other_bias, _no_rescale)),
        *((change, "residual", {"layer": 32}) for change in (_float_layer, _second_rounding, _other_operand, _other_dilation)),
        *((change, "depthwise", {"layer": 32}) for change in (_dropped_activation, _other_stride, _other_padding)),
        (_other_bound, "residual", NARROW),
    ],
)
def test_a_file_that_is_not_the_network_is_refused(change: Any, name: str, bits: Any, tmp_path: Path) -> None:
    """What the converter might do one day."""
    source = make_source(tqt_onnx.quantize(NETWORKS[name](), examples(32, 0), bits=BitWidths(**bits)).model, "net", None)
    TfliteExporter(narrow_weights=True).write(source, tmp_path)

    def write(file: Path, weights: Any) -> Any:
        operators = source.write_tflite(file, weights)
        change(operators)
        return operators

    with pytest.raises(UnsupportedError, match=r"target tflite: (layer|tensor) '.*': TF's converter .*Received: "):
        TfliteExporter(narrow_weights=True).write(replace(source, write_tflite=write), tmp_path)


def _scaled(factor: float) -> Any:
    def build(net: Builder, x: str) -> None:
        net.op("Transpose", net.layer("Conv", x, "c", (4, 3, 1, 1), 4), name="y", perm=[0, 2, 3, 1])
        for name in ("c/w", "c/b"):
            net.constants[name] *= np.float32(factor)

    return build


def test_scales_that_the_converter_widens_are_refused() -> None:
    model = tqt_onnx.quantize(network(_scaled(2.0**-22), {"y": (8, 8, 4)}), examples(16, 0), bits=BitWidths(layer=32)).model
    with pytest.raises(UnsupportedError, match=r"target tflite: tensor '.*': TF's converter widens .*Received: 2\^-\d+"):
        TfliteExporter(narrow_weights=True).check(make_source(model, "net", None))


def test_a_fixed_batch_of_several_is_refused() -> None:
    source = make_source(quantized("residual", 32), "net", None)
    ports = tuple(replace(port, shape=(4, *port.shape[1:])) for port in source.network.inputs)
    with pytest.raises(UnsupportedError, match=r"target tflite: input 'x' is fixed .*Received: 4"):
        TfliteExporter(narrow_weights=True).check(replace(source, network=replace(source.network, inputs=ports)))


def test_weights_that_two_layers_share_suit_both(tmp_path: Path) -> None:
    """The sums of the second reader leave no room for doubling."""

    def build(net: Builder, x: str) -> None:
        a = net.op("Relu", net.layer("Conv", x, "a", (3, 3, 1, 1), 3), name="a_relu")
        net.op("Transpose", net.op("Conv", a, "a/w", "a/b", name="b"), name="y", perm=[0, 2, 3, 1])

    model = tqt_onnx.quantize(network(build, {"y": (8, 8, 3)}), examples(16, 0), bits=BitWidths(layer=32)).model
    source, content, _ = written(model, tmp_path)
    feeds = {"x": examples(4, 9)}
    for port, values in expected(source, feeds).items():
        np.testing.assert_array_equal(outputs(content, feeds, "xnnpack")[port], values)
    tensors = dict(source.network.tensors)
    assert tensors["a/w__q"].integers is not None
    tensors["a/w__q"] = replace(tensors["a/w__q"], integers=tensors["a/w__q"].integers // 4)
    small = replace(source.network, tensors=tensors)
    (held,) = held_weights(small, narrow=True).values()
    assert held.times == 2
    for layer in [step for step in small.steps if any(one.op == "Conv" for one in step.operations)]:
        wide = replace(layer, operations=(replace(layer.operations[0], bound=1 << 30), *layer.operations[1:]))
        steps = tuple(wide if step is layer else step for step in small.steps)
        (held,) = held_weights(replace(small, steps=steps), narrow=True).values()
        assert held.times == 1


def test_the_changed_model_has_the_weights_that_are_written() -> None:
    source, exporter = make_source(quantized("tail", 32), "net", None), TfliteExporter(narrow_weights=True)
    changed = make_source(exporter.changed_model(source), "net", None).network.tensors
    assert any(one.clipped for one in held_weights(source.network, narrow=True).values())
    for name, held in held_weights(source.network, narrow=True).items():
        np.testing.assert_array_equal(changed[name].integers, held.integers * held.factor // held.times)
    whole = make_source(exporter.changed_model(source), "net", None)
    assert exporter.changed_model(whole) is whole.model


@pytest.mark.parametrize("shift", [2, 5, 9])
def test_rounding_twice_differs_on_ties_and_one_unit_below_alone(shift: int) -> None:
    sums = np.arange(-(1 << 12), 1 << 12)
    exact = sums / 2.0**shift
    below = 0.5 - (exact - np.floor(exact))
    different = rounded_twice(sums, 2.0**-shift) != np.rint(exact)
    assert set(below[different] * 2**shift) == {0, 1}
