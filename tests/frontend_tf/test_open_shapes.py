"""Placeholders of unknown shape: what the graph behind them tells, what stays open, what has to be asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.ir import ModelError
from tqt_onnx.passes import optimize

v1 = tf.compat.v1
Write = Callable[..., Path]
Check = Callable[..., None]


def constant(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def unknown() -> Any:
    return v1.placeholder(tf.float32, name="x")


def convolution(x: Any) -> Any:
    return tf.nn.conv2d(x, constant(3, 3, 3, 4), 1, "SAME")


def flattened(x: Any, count: int) -> Any:
    return tf.matmul(tf.reshape(x, [-1, count]), constant(count, 5))


def dynamically_flattened(x: Any, count: int) -> Any:
    return tf.matmul(tf.nn.relu(tf.reshape(x, tf.stack([tf.shape(x)[0], -1]))), constant(count, 5))


def pool(x: Any) -> Any:
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def deconvolution(x: Any) -> Any:
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[1, 9, 8, 2], filter=constant(3, 2, 2, 3), out_backprop=x, strides=[1, 2, 2, 1], padding="SAME"
    )


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int | None, ...]]] = {
    "convolution": (lambda: convolution(unknown()), (None, None, None, 3)),
    "depthwise": (lambda: tf.nn.depthwise_conv2d(unknown(), constant(3, 3, 6, 2), (1, 1, 1, 1), "SAME"), (None, None, None, 6)),
    "behind activations": (lambda: convolution(tf.nn.relu6(tf.abs(unknown() / 255.0))), (None, None, None, 3)),
    "behind a mean": (lambda: convolution(unknown() - np.float32([1, 2, 3])), (None, None, None, 3)),
    "behind a pad": (lambda: convolution(tf.pad(unknown(), [[0, 0], [1, 2], [1, 2], [0, 0]])), (None, None, None, 3)),
    "behind a pool": (lambda: convolution(tf.nn.max_pool2d(unknown(), 3, 2, "SAME")), (None, None, None, 3)),
    "behind a transpose": (lambda: convolution(tf.transpose(unknown(), [0, 2, 3, 1])), (None, 3, None, None)),
    "channels first": (
        lambda: tf.nn.conv2d(unknown(), constant(3, 3, 3, 4), 1, "SAME", data_format="NCHW"),
        (None, 3, None, None),
    ),
    "bias": (lambda: tf.nn.bias_add(tf.nn.max_pool2d(unknown(), 2, 2, "SAME"), constant(7)), (None, None, None, 7)),
    "dense": (lambda: tf.raw_ops.MatMul(a=tf.nn.relu(unknown()), b=constant(7, 5)), (None, 7)),
    "dense, transposed": (lambda: tf.raw_ops.MatMul(a=unknown(), b=constant(5, 7), transpose_b=True), (None, 7)),
    "flatten": (lambda: flattened(convolution(unknown()), 6 * 6 * 4), (None, 6, 6, 3)),
    "flatten at run time": (lambda: dynamically_flattened(convolution(unknown()), 6 * 6 * 4), (None, 6, 6, 3)),
    "flatten, valid convolution": (
        lambda: flattened(tf.nn.conv2d(unknown(), constant(3, 2, 3, 4), 1, "VALID"), 4 * 5 * 4),
        (None, 6, 6, 3),
    ),
    "no square fits": (lambda: flattened(convolution(unknown()), 6 * 5 * 4), (None, None, None, 3)),
    "two sizes fit": (lambda: flattened(pool(convolution(unknown())), 3 * 3 * 4), (None, None, None, 3)),
    "a row for each pixel": (lambda: tf.nn.softmax(tf.reshape(convolution(unknown()), [-1, 4])), (None, None, None, 3)),
    "squeeze": (
        lambda: tf.squeeze(tf.nn.avg_pool2d(convolution(unknown()), (7, 5), 1, "VALID"), [1, 2]),
        (None, 7, 5, 3),
    ),
    "deconvolution": (lambda: deconvolution(unknown()), (None, 5, 4, 3)),
    "no operator knows": (lambda: tf.nn.max_pool2d(unknown(), 2, 2, "SAME"), (None, None, None, None)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_the_graph_tells(write_graph: Write, assert_same: Check, kind: str) -> None:
    build, shape = NETWORKS[kind]
    frozen = load(write_graph(build))
    assert frozen.input_shapes == {"x": shape}
    model = to_onnx(frozen)
    assert [isinstance(dim, int) for dim in model.graph.inputs[0].shape] == [dim is not None for dim in shape]
    assert_same(frozen, model)
    optimize(model)
    assert_same(frozen, model)


def test_sizes_that_stay_open_take_any_image(write_graph: Write) -> None:
    import onnx_ir
    import onnxruntime as ort

    frozen = load(write_graph(NETWORKS["convolution"][0]))
    proto = onnx_ir.serde.serialize_model(to_onnx(frozen)).SerializeToString()
    session = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    for size in [(1, 1), (5, 9), (33, 32)]:
        x = constant(2, *size, 3)
        expected = next(iter(frozen.run({"x": x}).values()))
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-5)


def test_what_is_known_and_what_fits_is_said(write_graph: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tqt_onnx"):
        load(write_graph(NETWORKS["two sizes fit"][0]))
    assert "shape [N,?,?,3]" in caplog.text
    assert "--input-shape H,W,C" in caplog.text
    assert "takes sizes 6 to 7" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="tqt_onnx"):
        load(write_graph(NETWORKS["flatten"][0]))
    assert "size 6" in caplog.text
    assert "height and width taken to be equal" in caplog.text


def test_the_user_decides(write_graph: Write, assert_same: Check) -> None:
    path = write_graph(NETWORKS["no square fits"][0])
    frozen = load(path, input_shape=(6, 5, 3))
    assert frozen.input_shapes == {"x": (None, 6, 5, 3)}
    assert_same(frozen, to_onnx(frozen))
    path = write_graph(NETWORKS["flatten"][0])
    assert load(path, input_shape=(4, 9, 3)).input_shapes == {"x": (None, 4, 9, 3)}
    with pytest.raises(ModelError, match="cannot import"):
        load(path, input_shape=(6, 6, 5))


def strided(x: Any) -> Any:
    return flattened(tf.nn.conv2d(x, constant(3, 3, 3, 4), 2, "SAME"), 64)


def test_a_given_shape_that_a_later_operator_does_not_take_is_refused_by_its_name(write_graph: Write) -> None:
    path = write_graph(lambda: strided(unknown()))
    assert load(path, input_shape=(16, 4, 3)).input_shapes == {"x": (None, 16, 4, 3)}
    for shape, count in [((9, 9, 3), 100), ((16, 8, 3), 128), ((2, 2, 3), 4)]:
        with pytest.raises(ModelError, match=rf"Reshape 'Reshape' takes 64 numbers of an image, and gets {count}\. Received"):
            load(path, input_shape=shape)
    path = write_graph(lambda: deconvolution(unknown()))
    assert load(path, input_shape=(5, 4, 3)).input_shapes == {"x": (None, 5, 4, 3)}
    with pytest.raises(ModelError, match=r"Conv2DBackpropInput 'Conv2DBackpropInput' takes 5 columns, and gets 4"):
        load(path, input_shape=(4, 4, 3))


def test_rows_for_each_anchor_contradict_nothing(write_graph: Write, assert_same: Check) -> None:
    path = write_graph(lambda: tf.nn.softmax(tf.reshape(convolution(unknown()), [-1, 2]), name="y"))
    frozen = load(path, input_shape=(6, 5, 3))
    assert frozen.run({"x": constant(2, 6, 5, 3)})["y"].shape == (120, 2)


def test_behind_an_operator_that_nobody_knows(write_graph: Write, assert_same: Check) -> None:
    """To leave it out is what inputs are given for."""

    def build() -> None:
        x = tf.identity(v1.placeholder(tf.float32, (None, 8, 8, 3), name="raw"), name="decode")
        flattened(tf.nn.relu(convolution(x), name="inner"), 6 * 6 * 4)

    def foreign(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.name == "decode").op = "HomeMade"
        next(node for node in graph_def.node if node.name == "raw").attr["shape"].shape.CopyFrom(tf.TensorShape(None).as_proto())

    path = write_graph(build, foreign)
    for name, shape in [("decode", (None, 6, 6, 3)), ("inner", (None, 6, 6, 4))]:
        frozen = load(path, inputs=[name])
        assert frozen.input_shapes == {name: shape}
        assert_same(frozen, to_onnx(frozen))


def test_declared_sizes_are_kept_and_open_ones_deduced(write_graph: Write) -> None:
    def build() -> None:
        flattened(convolution(v1.placeholder(tf.float32, (None, 4, None, None), name="x")), 4 * 9 * 4)

    assert load(write_graph(build)).input_shapes == {"x": (None, 4, 9, 3)}


@pytest.mark.parametrize("target", [[1, 120], [1, -1]])
@pytest.mark.parametrize("input_shape", [None, (6, 5, 3)])
def test_a_batch_size_that_only_the_reshapes_say_is_freed(
    write_graph: Write, assert_same: Check, input_shape: tuple[int, ...] | None, target: list[int]
) -> None:
    def build() -> None:
        x = tf.matmul(tf.reshape(convolution(unknown()), target), constant(120, 6))
        tf.identity(tf.reshape(x, [1, 2, 3]), name="y")

    frozen = load(write_graph(build), input_shape=input_shape)
    assert frozen.run({"x": constant(3, 6, 5, 3)})["y"].shape == (3, 2, 3)
    assert_same(frozen, to_onnx(frozen))


def test_reshapes_that_mix_images_are_left(write_graph: Write) -> None:
    path = write_graph(lambda: tf.reshape(convolution(unknown()), [2, 60], name="y"))
    assert load(path, input_shape=(6, 5, 3)).run({"x": constant(1, 6, 5, 3)})["y"].shape == (2, 60)


def test_a_recorded_shape_comes_first(write_graph: Write) -> None:
    def record(graph_def: Any) -> None:
        node = next(node for node in graph_def.node if node.name == "x")
        node.attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape((None, 8, None, 3)).as_proto())

    assert load(write_graph(NETWORKS["convolution"][0], record)).input_shapes == {"x": (None, 8, None, 3)}


def test_a_rank_that_nothing_tells_is_taken_for_images(write_graph: Write, caplog: pytest.LogCaptureFixture) -> None:
    frozen = load(write_graph(lambda: tf.square(unknown(), name="y")))
    assert frozen.input_shapes == {"x": (None, None, None, None)}
    assert "taken for a batch of images" in caplog.text


def test_a_rank_that_cannot_be_is_asked_for(write_graph: Write) -> None:
    def build() -> None:
        tf.reduce_sum(tf.reshape(tf.concat([unknown(), v1.placeholder(tf.float32, (None, 2, 3), name="z")], 1), [-1, 6]), name="y")

    assert load(write_graph(build)).input_shapes["x"] == (None, None, None)  # rank 3, as the other operand

    def five() -> None:
        tf.transpose(tf.transpose(unknown(), [0, 2, 1]), [0, 1, 2, 3], name="y")

    with pytest.raises((ModelError, ValueError)):
        load(write_graph(five))


def test_example_shapes_fill_what_is_open(write_graph: Write) -> None:
    frozen = load(write_graph(NETWORKS["convolution"][0]))
    assert frozen.example_shapes(2) == {"x": (2, 32, 32, 3)}
    large = load(write_graph(lambda: tf.nn.avg_pool2d(convolution(unknown()), 50, 1, "VALID")))
    assert large.example_shapes(1) == {"x": (1, 64, 64, 3)}


def test_open_sizes_have_names_that_say_what_they_are(write_graph: Write) -> None:
    """And so two conversions of one model are the same, whatever was converted before."""

    def shape_of(build: Callable[[], Any]) -> list[list[Any]]:
        graph = to_onnx(load(write_graph(build))).graph
        named = {str(dim) for node in graph for value in node.outputs for dim in value.shape or ()}
        assert not any("unk__" in name for name in named)
        return [[dim if isinstance(dim, int) else dim.value for dim in value.shape or ()] for value in graph.inputs]

    assert shape_of(lambda: pool(convolution(unknown()))) == [["N", "H", "W", 3]]
    first = lambda: tf.nn.conv2d(unknown(), constant(3, 3, 3, 4), 1, "SAME", data_format="NCHW")  # noqa: E731
    assert shape_of(first) == [["N", 3, "H", "W"]]
    two = lambda: convolution(unknown()) * tf.reduce_mean(convolution(v1.placeholder(tf.float32, name="y")))  # noqa: E731
    assert shape_of(two) == [["N", "x_H", "x_W", 3], ["N", "y_H", "y_W", 3]]
