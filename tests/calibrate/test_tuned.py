"""Weights adjusted during calibration: what a layer sees, what is adjusted and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.calibrate import calibrate, calibrate_tuned
from tqt_onnx.calibrate.tunable import places_of, seen_at, tunable_layers, weights_of
from tqt_onnx.ir import Quantizer, QuantizerGraph
from tqt_onnx.passes import BitWidths, annotate, insert_qdq, lower, optimize

Shape = tuple[int, ...]


def network(nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any]) -> onnx_ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx_ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model))


def normal(*shape: int, scale: float = 1.0, seed: int = 11) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, scale, shape).astype(np.float32)


def depthwise_network() -> onnx_ir.Model:
    """A channel that hardly varies has giant depthwise weights, as folded batch norms leave them."""
    wide = np.array([1, 1, 1, 1, 2, 2, 2, 300], np.float32)[:, None, None, None]
    first = normal(8, 3, 3, 3, scale=0.3)
    first[7] *= 1e-4
    return network(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Clip", ["a", "zero", "six"], ["r"]),
            helper.make_node("Conv", ["r", "w2", "b2"], ["c"], group=8, pads=[1, 1, 1, 1]),
            helper.make_node("Clip", ["c", "zero", "six"], ["s"]),
            helper.make_node("Conv", ["s", "w3", "b3"], ["y"]),
        ],
        {
            "w1": first,
            "b1": np.full(8, 0.5, np.float32),
            "w2": normal(8, 1, 3, 3) * wide,
            "b2": normal(8),
            "w3": normal(5, 8, 1, 1),
            "b3": normal(5),
            "zero": np.float32(0),
            "six": np.float32(6),
        },
        ["N", 3, 9, 9],
    )


def prepared(model: onnx_ir.Model, **widths: Any) -> tuple[onnx_ir.Model, QuantizerGraph]:
    bits = BitWidths(**widths)
    optimize(model)
    lower(model, bits.contract)
    return model, annotate(model, bits)


def batches(images: int, *shape: int, seed: int = 2) -> Any:
    data = np.random.default_rng(seed).normal(0, 1, (images, *shape)).astype(np.float32)

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, images, 7):
            yield {"x": data[start : start + 7]}

    return feeds


def outputs(model: onnx_ir.Model, feeds: Any) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(onnx_ir.serde.serialize_model(model).SerializeToString(), options)
    return np.concatenate([session.run(None, feed)[0] for feed in feeds()])


def noise(
    model: onnx_ir.Model, graph: QuantizerGraph, thresholds: dict[str, float], arrays: dict[str, np.ndarray], feeds: Any
) -> float:
    changed = model.clone()
    for name, array in arrays.items():
        changed.graph.initializers[name].const_value = onnx_ir.tensor(array, name=name)
    exact, rounded = outputs(model, feeds), outputs(insert_qdq(changed, graph.decide(thresholds)), feeds)
    return float(np.square(exact - rounded).mean() / exact.var())


@pytest.mark.parametrize("widths", [{}, {"layer": 32}, {"weight": 4}, {"weight": 4, "layer": 32}])
def test_a_depthwise_network_is_repaired_on_images_it_has_not_seen(widths: dict[str, int]) -> None:
    model, graph = prepared(depthwise_network(), **widths)
    seen, unseen = batches(30, 3, 9, 9), batches(60, 3, 9, 9, seed=3)
    static = calibrate(model, graph, seen)
    tuned = calibrate_tuned(model, graph, seen, static=static)
    before, after = noise(model, graph, static, {}, unseen), noise(model, graph, tuned.thresholds, tuned.constants, unseen)
    assert after < 0.5 * before
    assert tuned.in_time
    assert len(tuned.rows) == 3
    assert all(row.error_after <= row.error_before for row in tuned.rows)


def test_the_same_seed_gives_the_same_numbers_and_a_used_up_budget_a_quick_result() -> None:
    model, graph = prepared(depthwise_network())
    first, second = (calibrate_tuned(model, graph, batches(12, 3, 9, 9), seed=4) for _ in range(2))
    assert first.thresholds == second.thresholds
    assert all((first.constants[name] == second.constants[name]).all() for name in first.constants)
    quick = calibrate_tuned(model, graph, batches(12, 3, 9, 9), deadline=0.0)
    assert not quick.in_time
    assert quick.thresholds.keys() == first.thresholds.keys()
    static = calibrate(model, graph, batches(12, 3, 9, 9))
    assert noise(model, graph, quick.thresholds, quick.constants, batches(40, 3, 9, 9)) < 0.5 * noise(
        model, graph, static, {}, batches(40, 3, 9, 9)
    )


def test_weights_lie_on_their_grid_and_the_model_is_not_changed() -> None:
    model, graph = prepared(depthwise_network())
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    tuned = calibrate_tuned(model, graph, batches(12, 3, 9, 9))
    assert tuned.constants
    for quantizer in graph.decide(tuned.thresholds).quantizers:
        if quantizer.role == "weight" and quantizer.value in tuned.constants:
            integers = np.ldexp(tuned.constants[quantizer.value], -quantizer.decided_exponent)
            assert (integers == np.rint(integers)).all()
            assert quantizer.lower <= integers.min() <= integers.max() <= quantizer.upper
    assert all((value.const_value.numpy() == before[name]).all() for name, value in model.graph.initializers.items())


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_constant_images_leave_a_valid_result(fill: float) -> None:
    model, graph = prepared(depthwise_network())

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        yield {"x": np.full((2, 3, 9, 9), fill, np.float32)}

    tuned = calibrate_tuned(model, graph, feeds)
    assert graph.decide(tuned.thresholds).decided
    assert all(np.isfinite(array).all() for array in tuned.constants.values())


def test_shared_weights_given_thresholds_and_transposed_convolutions_are_left_alone() -> None:
    model = network(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Conv", ["a", "w"], ["b"]),
            helper.make_node("ConvTranspose", ["b", "t"], ["c"]),
            helper.make_node("Conv", ["c", "v"], ["y"]),
        ],
        {"w": normal(4, 4, 1, 1), "t": normal(4, 4, 2, 2), "v": normal(4, 4, 1, 1)},
        ["N", 4, 5, 5],
    )
    model, graph = prepared(model)
    assert [layer.weight.name for layer in tunable_layers(model, graph.by_value()).values()] == ["v"]
    assert calibrate_tuned(model, graph, batches(3, 4, 5, 5)).constants.keys() == {"v"}
    own = graph.by_value()["v"].group
    kept = calibrate_tuned(model, graph, batches(3, 4, 5, 5), given={own: 3.0})
    assert kept.thresholds[own] == 3.0
    assert not kept.constants


def test_branches_sums_and_a_dense_end() -> None:
    model = network(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Conv", ["r", "w2", "b1"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["c", "r"], ["s"]),
            helper.make_node("Concat", ["s", "r"], ["k"], axis=1),
            helper.make_node("MaxPool", ["k"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["m"], ["f"]),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
        ],
        {"w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(4, 4, 3, 3), "w3": normal(6, 32), "b3": normal(6)},
        ["N", 3, 8, 8],
    )
    model, graph = prepared(model, weight=4)
    static = calibrate(model, graph, batches(40, 3, 8, 8))
    tuned = calibrate_tuned(model, graph, batches(40, 3, 8, 8), static=static)
    assert [row.layer for row in tuned.rows] == ["w1", "w2", "w3"]
    assert {"w1", "w2"} <= tuned.constants.keys()
    unseen = batches(80, 3, 8, 8, seed=3)
    assert noise(model, graph, tuned.thresholds, tuned.constants, unseen) <= noise(model, graph, static, {}, unseen)


def layer_in_front_of(*behind: Any, conv: tuple[str, ...] = ("x", "w"), **constants: np.ndarray) -> tuple[float, float, str | None]:
    """Bounds and bias of a convolution followed by other nodes, the first of which reads `a`."""
    contents = {"w": normal(4, 4, 1, 1), **constants}
    model = network([helper.make_node("Conv", conv, ["a"]), *behind], contents, ["N", 4, 5, 4])
    layers = tunable_layers(model, {"w": Quantizer("w", "w", 8, True, "weight", "w")})
    layer = next(layer for node, layer in layers.items() if node.outputs[0].name == "a")
    return layer.low, layer.high, None if layer.bias is None else layer.bias.name


def test_the_activation_is_found_behind_identities_and_behind_a_bias() -> None:
    relu, infinity = helper.make_node("Relu", ["s"], ["y"]), float("inf")
    requantize, add = helper.make_node("Identity", ["a"], ["s"]), helper.make_node("Add", ["b", "a"], ["s"])
    twice = [helper.make_node("Identity", ["a"], ["i"]), helper.make_node("Identity", ["i"], ["s"])]
    assert layer_in_front_of(requantize, relu) == (0, infinity, None)
    assert layer_in_front_of(*twice, relu) == (0, infinity, None)
    assert layer_in_front_of(add, relu, b=normal(1, 4, 1, 1)) == (0, infinity, "b")
    assert layer_in_front_of(helper.make_node("Relu", ["a"], ["y"]), conv=("x", "w", "b"), b=normal(4)) == (0, infinity, "b")


def test_behind_an_addend_that_is_no_bias_nothing_is_known_to_be_clipped() -> None:
    relu, unbounded = helper.make_node("Relu", ["s"], ["y"]), (-float("inf"), float("inf"), None)
    add = helper.make_node("Add", ["a", "b"], ["s"])
    assert layer_in_front_of(add, relu, b=normal(1, 4, 5, 4)) == unbounded
    assert layer_in_front_of(add, relu, b=normal(4)) == unbounded  # along the width
    again = helper.make_node("Add", ["s", "b"], ["t"])
    assert layer_in_front_of(add, again, helper.make_node("Relu", ["t"], ["y"]), b=normal(1, 4, 1, 1)) == unbounded  # not its own
    shared = helper.make_node("Conv", ["s", "w2", "b"], ["y"])
    found = layer_in_front_of(
        helper.make_node("Relu", ["a"], ["s"]), shared, conv=("x", "w", "b"), b=normal(4), w2=normal(4, 4, 1, 1)
    )
    assert found == unbounded


@pytest.mark.parametrize(("most", "count"), [(16, 1), (15, 0)])
def test_layers_of_too_many_weights_are_left_alone(monkeypatch: pytest.MonkeyPatch, most: int, count: int) -> None:
    monkeypatch.setattr("tqt_onnx.calibrate.tunable.MOST_WEIGHTS", most)
    model = network([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": normal(4, 4, 1, 1)}, ["N", 4, 5, 5])
    assert len(tunable_layers(model, {"w": Quantizer("w", "w", 8, True, "weight", "w")})) == count


def test_lowered_layers_without_bias_know_their_activation() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model, graph = prepared(network(nodes, {"w": normal(4, 4, 1, 1)}, ["N", 4, 5, 5]))
    [layer] = tunable_layers(model, graph.by_value()).values()
    assert (layer.low, layer.high) == (0, float("inf"))


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 6), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((2, 4, 7, 7), (6, 2, 2, 3), {"group": 2, "dilations": [2, 1]}),
    ((2, 4, 5, 5), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    ((3, 2, 9), (3, 2, 4), {"strides": [3], "pads": [2, 1]}),
    ((2, 2, 4, 3, 5), (3, 2, 2, 2, 2), {"strides": [1, 1, 2]}),
]


@pytest.mark.parametrize(("shape", "kernel", "attributes"), CONVOLUTIONS)
def test_what_a_convolution_sees_gives_what_it_gives(shape: Shape, kernel: Shape, attributes: dict[str, Any]) -> None:
    check(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), shape, kernel)


@pytest.mark.parametrize(
    ("op", "shape", "kernel", "attributes"),
    [("Gemm", (5, 3), (4, 3), {"transB": 1}), ("Gemm", (5, 3), (3, 4), {}), ("MatMul", (2, 6, 3), (3, 4), {})],
)
def test_what_a_product_sees_gives_what_it_gives(op: str, shape: Shape, kernel: Shape, attributes: dict[str, Any]) -> None:
    check(helper.make_node(op, ["x", "w"], ["y"], **attributes), shape, kernel)


def check(node: Any, shape: Shape, kernel: Shape) -> None:
    weight = normal(*kernel)
    model = network([node], {"w": weight}, list(shape))
    [layer] = tunable_layers(model, {"w": Quantizer("w", "w", 8, True, "weight", "w")}).values()
    data = normal(*shape)
    expected = outputs(model, lambda: iter([{"x": data}]))
    places = places_of(layer, data)
    count = int(np.prod(places))
    rows, index = np.repeat(np.arange(shape[0]), count), np.tile(np.arange(count), shape[0])
    stacked = layer.stacked(weights_of(layer))
    found = np.matmul(seen_at(layer, data, rows, index), stacked)  # [G, P, O]
    found = np.moveaxis(found, 0, 1).reshape(shape[0], *places, -1)
    assert places == (expected.shape[2:] if node.op_type == "Conv" else expected.shape[1:-1])
    assert found == pytest.approx(np.moveaxis(expected, 1, -1) if node.op_type == "Conv" else expected, abs=1e-4)
    assert (layer.unstacked(stacked, weight.shape) == weight).all()
