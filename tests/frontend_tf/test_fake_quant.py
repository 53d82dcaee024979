"""FakeQuant nodes go, their ranges stay; graphs quantized for good are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.ir import RANGES_KEY, UnsupportedError
from tqt_onnx.passes import optimize

v1 = tf.compat.v1
Write = Callable[..., Path]
Check = Callable[..., None]
fake_quant = tf.quantization.fake_quant_with_min_max_vars
per_channel = tf.quantization.fake_quant_with_min_max_vars_per_channel


def constant(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def network() -> None:
    """As tf.contrib.quantize left them: weights, activations, the logits."""
    x = fake_quant(v1.placeholder(tf.float32, (None, 4, 4, 2), name="x"), -1.0, 1.0, name="x_quant")
    weights = fake_quant(tf.constant(constant(3, 3, 2, 3), name="weights"), -0.75, 0.5, name="weights_quant")
    y = tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), constant(3), name="bias")
    y = tf.raw_ops.FakeQuantWithMinMaxArgs(inputs=tf.nn.relu6(y, name="act"), min=0.0, max=6.0, name="act_quant")
    dense = per_channel(tf.constant(constant(48, 2), name="dense"), np.float32([-1, -3]), np.float32([2, 1]), name="dense_quant")
    y = tf.matmul(tf.reshape(y, [-1, 48]), dense, name="logits")
    tf.raw_ops.QuantizeAndDequantizeV2(input=y, input_min=-8.0, input_max=8.0, range_given=True, name="y")


def test_they_go_and_their_ranges_are_known_by_the_names_of_the_onnx_model(write_graph: Write, assert_same: Check) -> None:
    frozen = load(write_graph(network))
    assert not [node.op for node in frozen.graph_def.node if "Quant" in node.op]
    assert frozen.ranges["act"] == (0.0, 6.0)
    model = to_onnx(frozen)
    assert_same(frozen, model)
    expected = {"x": [-1, 1], "weights": [-0.75, 0.5], "act": [0, 6], "dense": [-3, 2], "y": [-8, 8]}
    assert json.loads(model.metadata_props[RANGES_KEY]) == expected
    optimize(model)
    assert json.loads(model.metadata_props[RANGES_KEY]) == expected


def test_several_ranges_of_a_tensor_are_joined(write_graph: Write) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        tf.add(fake_quant(x, -1.0, 2.0), fake_quant(x, -3.0, 1.0), name="y")

    assert load(write_graph(build)).ranges["x"] == (-3.0, 2.0)


def test_a_network_without_them_has_no_metadata(write_graph: Write) -> None:
    path = write_graph(lambda: tf.nn.relu(v1.placeholder(tf.float32, (None, 4), name="x"), name="y"))
    assert load(path).ranges == {}
    assert RANGES_KEY not in to_onnx(load(path)).metadata_props


def test_an_input_behind_one_has_no_range_of_what_is_cut_off(write_graph: Write) -> None:
    assert "x" not in load(write_graph(network), inputs=["act_quant"]).ranges


@pytest.mark.parametrize("kind", ["computed", "not given"])
def test_ranges_of_run_time_are_refused(write_graph: Write, kind: str) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        if kind == "computed":
            fake_quant(x, tf.reduce_min(x), tf.reduce_max(x), name="y")
        else:
            tf.raw_ops.QuantizeAndDequantizeV2(input=x, input_min=0.0, input_max=0.0, range_given=False, name="y")

    with pytest.raises(UnsupportedError, match="'y' computes its range at run time"):
        load(write_graph(build))


def test_graphs_quantized_for_good_are_refused_with_the_way_out(write_graph: Write) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        q = tf.raw_ops.QuantizeV2(input=x, min_range=-1.0, max_range=1.0, T=tf.quint8)
        q = tf.raw_ops.QuantizedRelu(features=q[0], min_features=q[1], max_features=q[2])
        tf.raw_ops.Dequantize(input=q[0], min_range=q[1], max_range=q[2], name="y")

    with pytest.raises(
        UnsupportedError, match=r"quantized already.*the float graph it was made from is expected, or one with FakeQuant"
    ):
        load(write_graph(build))
