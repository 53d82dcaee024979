"""Pools and means: from TensorFlow the whole road (L6, L7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from whole_road import ALL, NETWORK, record, take

nn = tf.nn
IMAGE = (7, 6, 3)
ONLY_IMAGES = "only means over height and width have a fixed-point form (L6)"

Body = Callable[[tf.Tensor], tf.Tensor]


def weights(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32))


def between(body: Body) -> Any:
    """The pool between two layers; what it pools may be negative."""

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE])])
    def net(x: tf.Tensor) -> tf.Tensor:
        y = body(nn.conv2d(x, weights(1, 1, 3, 4), 1, "VALID"))
        return nn.conv2d(y, weights(1, 1, 4, 2), 1, "VALID") if y.shape.rank == 4 else tf.tensordot(y, weights(y.shape[-1], 2), 1)

    return net


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, *IMAGE)).astype(np.float32)


POOLS: dict[str, Body] = {
    "MaxPool VALID": lambda x: nn.max_pool2d(x, 2, 2, "VALID"),
    "MaxPool SAME": lambda x: nn.max_pool2d(x, 3, 2, "SAME"),
    "MaxPool SAME, Relu": lambda x: nn.relu(nn.max_pool2d(x, (2, 3), 1, "SAME")),
    "AvgPool VALID": lambda x: nn.avg_pool2d(x, 3, 2, "VALID"),
    "AvgPool SAME": lambda x: nn.avg_pool2d(x, 3, 1, "SAME"),
    "AvgPool SAME, strides 2": lambda x: nn.avg_pool2d(x, (3, 2), 2, "SAME"),
    "AvgPool SAME, Relu in front": lambda x: nn.avg_pool2d(nn.relu(x), 3, 1, "SAME"),
    "AvgPool SAME, Relu6 behind": lambda x: nn.relu6(nn.avg_pool2d(x, 3, 1, "SAME")),
    "AvgPool SAME, LeakyRelu": lambda x: nn.leaky_relu(nn.avg_pool2d(x, 3, 1, "SAME"), 0.1),
    "AvgPool SAME, larger than the image": lambda x: nn.avg_pool2d(x, 9, 1, "SAME"),
    "AvgPool SAME, ConcatV2": lambda x: tf.concat([nn.avg_pool2d(x, 3, 1, "SAME"), x], 2),
    "AvgPool SAME, AddV2": lambda x: nn.avg_pool2d(x, 3, 1, "SAME") + x,
    "Mean over H, W": lambda x: tf.reduce_mean(x, [1, 2]),
    "Mean over H, W, keepdims": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
    "Max over H, W": lambda x: tf.reduce_max(x, [1, 2]),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    journey = take(between(POOLS[name]), images(), settings=NETWORK)
    journey.assert_exact()
    record("operators", name, journey)


def test_an_average_pool_of_the_image_at_every_setting():
    """In front of the first layer, which keeps its 8 bits; four branches of an inception block behind."""

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE])])
    def net(x: tf.Tensor) -> tf.Tensor:
        y = nn.relu(nn.conv2d(nn.avg_pool2d(x, 2, 1, "SAME"), weights(3, 3, 3, 4), 1, "SAME"))
        branches = [
            nn.conv2d(y, weights(1, 1, 4, 2), 1, "SAME"),
            nn.conv2d(nn.avg_pool2d(y, 3, 1, "SAME"), weights(1, 1, 4, 3), 1, "SAME"),
        ]
        return tf.concat([nn.relu(branch) for branch in branches] + [nn.max_pool2d(y, 3, 1, "SAME")], 3)

    journey = take(net, images(), settings=ALL)
    journey.assert_exact()
    record("topologies", "inception block with an average pool", journey)


def test_a_window_beyond_24_bits_is_an_island():
    """259 elements of 8 bits times a reciprocal of 8 bits can pass 2^24."""

    @tf.function(input_signature=[tf.TensorSpec([None, 20, 20, 1])])
    def net(x: tf.Tensor) -> tf.Tensor:
        return nn.avg_pool2d(nn.relu(nn.conv2d(x, weights(1, 1, 1, 2), 1, "SAME")), 33, 1, "SAME")

    journey = take(net, np.random.default_rng(0).normal(size=(2, 20, 20, 1)).astype(np.float32), settings=[(8, 16)])
    journey.assert_exact(["AveragePool"])
    (island,) = journey.quantizations[8, 16].float_layers
    assert "windows of up to 400 elements are too large" in island.reason


@pytest.mark.parametrize(
    ("name", "body", "islands", "reason"),
    [
        ("Mean over channels", lambda x: tf.reduce_mean(x, 3, keepdims=True), ["ReduceMean"], ONLY_IMAGES),
        ("Mean over H", lambda x: tf.reduce_mean(x, 1, keepdims=True), ["ReduceMean"], ONLY_IMAGES),
    ],
)
def test_means_over_other_axes_are_islands(name, body, islands, reason):
    journey = take(
        between(lambda x: tf.concat([x, x - body(x)], 3)[..., :4]), images(), settings=[(8, 16)], engines=("oracle", "ort")
    )
    journey.assert_exact(islands)
    assert {island.reason for island in journey.quantizations[8, 16].float_layers} == {reason}
    record("operators", name, journey)


def onnx_file(op: str, **attributes: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["c"]),
        helper.make_node(op, ["c"], ["p"], kernel_shape=[3, 3], strides=[2, 2], **attributes),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    arrays = {"v": (4, 3, 1, 1), "w": (2, 4, 1, 1)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(rng.normal(0, 0.5, size).astype(np.float32), name) for name, size in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize(
    ("name", "op", "attributes"),
    [
        ("MaxPool, ceil_mode (ONNX)", "MaxPool", {"ceil_mode": 1}),
        ("MaxPool, ceil_mode, pads (ONNX)", "MaxPool", {"ceil_mode": 1, "pads": [1, 0, 0, 1]}),
        ("AveragePool, ceil_mode (ONNX)", "AveragePool", {"ceil_mode": 1}),
        ("AveragePool, dilations (ONNX)", "AveragePool", {"dilations": [2, 2], "pads": [1, 1, 1, 1]}),
        ("AveragePool, count_include_pad (ONNX)", "AveragePool", {"pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ],
)
def test_onnx_files(tmp_path, name, op, attributes):
    onnx.save(onnx_file(op, **attributes), tmp_path / "model.onnx")
    journey = take(tmp_path / "model.onnx", np.random.default_rng(2).normal(size=(3, 3, 8, 6)).astype(np.float32), settings=NETWORK)
    journey.assert_exact()
    record("styles", name, journey)
