"""Frozen GraphDefs: finding the ends, cutting, shapes, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.ir import SOURCE_KEY, DataError, ModelError, UnsupportedError

v1 = tf.compat.v1
Check = Callable[..., None]


def write(path: Path, build: Callable[[], Any], edit: Callable[[Any], None] | None = None) -> Path:
    with tf.Graph().as_default() as graph:
        build()
    graph_def = graph.as_graph_def()
    if edit is not None:
        edit(graph_def)
    path.write_bytes(graph_def.SerializeToString())
    return path


def constant(shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(low, high, shape).astype(np.float32)


def small(name: str = "input", shape: Any = (None, 6, 6, 2)) -> None:
    x = v1.placeholder(tf.float32, shape, name=name)
    tf.identity(tf.nn.relu(tf.nn.conv2d(x, constant((3, 3, 2, 4)), 1, "SAME", name="conv"), name="relu"), name="out")


def slim(op: str) -> None:
    """A separable block as TF-slim froze it: relu6, depthwise, batch norm of either age, pooling, logits behind Squeeze."""
    x = v1.placeholder(tf.float32, (None, 16, 16, 3), name="input")
    for index, (inner, outer) in enumerate([(3, 8), (8, 12)]):
        with v1.name_scope(f"Net/block_{index}"):
            x = tf.nn.depthwise_conv2d(x, constant((3, 3, inner, 1)), (1, 2, 2, 1), "SAME", name="depthwise")
            x = normalize(op, x, inner)
            x = tf.nn.relu6(x, name="Relu6")
            x = tf.nn.conv2d(x, constant((1, 1, inner, outer)), 1, "SAME", name="Conv2D")
            x = normalize(op, x, outer)
            x = tf.nn.relu6(x, name="Relu6_1")
    with v1.name_scope("Net/Logits"):
        x = tf.nn.avg_pool2d(x, 4, 2, "VALID", name="AvgPool")
        x = tf.nn.bias_add(tf.nn.conv2d(x, constant((1, 1, 12, 5)), 1, "SAME", name="Conv2D"), constant((5,)), name="BiasAdd")
        x = tf.squeeze(x, [1, 2], name="SpatialSqueeze")
    with v1.name_scope("Net/Predictions"):
        softmax = tf.nn.softmax(tf.reshape(x, [-1, 5]), name="Softmax")
        tf.reshape(softmax, tf.shape(x), name="Reshape_1")


def normalize(op: str, x: Any, channels: int) -> Any:
    parameters = [tf.constant(constant((channels,), 0.5, 2.0)) for _ in range(4)]
    if op == "small":
        gamma, beta, mean, variance = parameters
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
    return getattr(tf.raw_ops, op)(
        x=x, scale=parameters[0], offset=parameters[1], mean=parameters[2], variance=parameters[3], is_training=False, epsilon=1e-3
    )[0]


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV3", "small"])
def test_slim_network(tmp_path: Path, op: str, assert_same: Check) -> None:
    frozen = load(write(tmp_path / "net.pb", lambda: slim(op)))
    assert (frozen.inputs, frozen.outputs) == (("input",), ("Net/Predictions/Reshape_1",))
    model = to_onnx(frozen)
    assert_same(frozen, model)
    found = Counter(node.op_type for node in model.graph)
    assert found == {
        "Transpose": 1, "Conv": 5, "BatchNormalization": 4, "Clip": 4, "AveragePool": 1, "Squeeze": 1, "Softmax": 1
    }  # fmt: skip
    assert all(node.metadata_props[SOURCE_KEY].startswith("Net/") for node in model.graph)
    assert "Net/block_0/depthwise" in {value.name for node in model.graph for value in node.outputs}
    assert str(model.graph.outputs[0].shape) == "[N,5]"


def test_batch_norm_at_the_end_keeps_its_name(tmp_path: Path, assert_same: Check) -> None:
    def build() -> None:
        tf.identity(normalize("small", v1.placeholder(tf.float32, (None, 3, 3, 4), name="x"), 4), name="y")

    frozen = load(write(tmp_path / "net.pb", build), outputs=["batchnorm/add_1"])
    model = to_onnx(frozen)
    assert [value.name for value in model.graph.outputs] == ["batchnorm/add_1"]
    assert_same(frozen, model)


def test_names_as_users_write_them(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pb", small)
    for inputs, outputs in [(["input"], ["out"]), (["input:0"], ["out:0"]), (None, ["out"]), (["input"], None)]:
        frozen = load(path, inputs, outputs)
        assert (frozen.inputs, frozen.outputs) == (("input",), ("out",))


def test_cut_inside(tmp_path: Path, assert_same: Check) -> None:
    frozen = load(write(tmp_path / "net.pb", small), ["conv"], ["relu"])
    assert frozen.input_shapes == {"conv": (None, 6, 6, 4)}
    x = constant((2, 6, 6, 4))
    np.testing.assert_array_equal(frozen.run({"conv": x})["relu"], np.maximum(x, 0))
    assert_same(frozen, to_onnx(frozen))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (None, ["outt"], "close names: out"),
        (["inptu"], None, "close names: input"),
        (None, [], "distinct output names"),
        (None, ["out", "out:0"], "distinct output names"),
        (["out"], ["out"], "input and output at once"),
        (["input", "relu"], ["conv"], "no output depends on input 'relu:0'"),
        (["input"], ["out:3"], "out:3"),
    ],
)
def test_wrong_names(tmp_path: Path, inputs: list[str] | None, outputs: list[str] | None, message: str) -> None:
    path = write(tmp_path / "net.pb", small)
    with pytest.raises(ModelError, match=message):
        load(path, inputs, outputs)


def test_ambiguous_ends_are_listed(tmp_path: Path) -> None:
    def two() -> None:
        small("a")
        small("b")

    path = write(tmp_path / "net.pb", two)
    with pytest.raises(ModelError, match=r"give the outputs.*out, out_1"):
        load(path)
    assert load(path, outputs=["out_1"]).inputs == ("b",)

    def sum_of_two() -> None:
        tf.add(v1.placeholder(tf.float32, (None, 3), name="a"), v1.placeholder(tf.float32, (None, 3), name="b"), name="sum")

    path = write(tmp_path / "sum.pb", sum_of_two)
    assert load(path).inputs == ("a", "b")  # just those that the output needs: nothing to choose
    with pytest.raises(ModelError, match="also depend on placeholder 'b'"):
        load(path, inputs=["a"])
    assert load(path, inputs=["b", "a"]).inputs == ("b", "a")
    assert [value.name for value in to_onnx(load(path, inputs=["b", "a"])).graph.inputs] == ["b", "a"]


def test_placeholder_with_default_becomes_its_default(tmp_path: Path, assert_same: Check) -> None:
    def build() -> None:
        keep = v1.placeholder_with_default(np.float32(0.5), (), name="keep")
        tf.multiply(v1.placeholder(tf.float32, (None, 3), name="x"), keep, name="y")

    frozen = load(write(tmp_path / "net.pb", build))
    assert frozen.inputs == ("x",)
    np.testing.assert_array_equal(frozen.run({"x": np.ones((1, 3), np.float32)})["y"], np.full((1, 3), 0.5))
    assert_same(frozen, to_onnx(frozen))


def test_unknown_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pb", lambda: small(shape=None))
    assert load(path).input_shapes == {"input": (None, None, None, 2)}
    assert load(path, input_shape=(6, 7, 2)).input_shapes == {"input": (None, 6, 7, 2)}
    with pytest.raises(ModelError, match="cannot import"):
        load(path, input_shape=(6, 7, 5))

    def recorded(graph_def: Any) -> None:
        node = next(node for node in graph_def.node if node.name == "input")
        node.attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape((None, 8, 8, 2)).as_proto())

    path = write(tmp_path / "net.pb", lambda: small(shape=None), recorded)
    assert load(path).input_shapes == {"input": (None, 8, 8, 2)}

    def old_scalar(graph_def: Any) -> None:
        graph_def.versions.producer = 22
        next(node for node in graph_def.node if node.name == "input").attr["shape"].shape.CopyFrom(tf.TensorShape([]).as_proto())

    path = write(tmp_path / "net.pb", lambda: small(shape=None), old_scalar)
    assert load(path, input_shape=(6, 6, 2)).input_shapes == {"input": (None, 6, 6, 2)}


def test_fixed_batch_becomes_dynamic_and_devices_are_forgotten(tmp_path: Path, assert_same: Check) -> None:
    def on_a_gpu(graph_def: Any) -> None:
        for node in graph_def.node:
            node.device = "/gpu:0"

    frozen = load(write(tmp_path / "net.pb", lambda: small(shape=(1, 6, 6, 2)), on_a_gpu))
    assert frozen.input_shapes == {"input": (None, 6, 6, 2)}
    assert_same(frozen, to_onnx(frozen))


def test_unfrozen_is_refused(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 3), name="x")
        tf.matmul(x, v1.get_variable("weights", (3, 2), use_resource=False), name="y")

    with pytest.raises(ModelError, match=r"not frozen.*'weights'"):
        load(write(tmp_path / "net.pb", build), outputs=["y"])


def test_training_mode_batch_norm_is_refused(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, (None, 3, 3, 2), name="x")
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=np.ones(2, np.float32), offset=np.ones(2, np.float32), mean=[0.0, 0.0], variance=[1.0, 1.0], is_training=True
        )
        tf.identity(outputs[0], name="y")

    with pytest.raises(UnsupportedError, match="training mode"):
        load(write(tmp_path / "net.pb", build), outputs=["y"])


def test_unconvertible_operator_is_named(tmp_path: Path) -> None:
    def build() -> None:
        tf.math.igamma(v1.placeholder(tf.float32, (None, 3), name="x"), np.float32(2.0), name="odd_one")

    with pytest.raises(UnsupportedError, match=r"'Igamma'.*'odd_one'"):
        to_onnx(load(write(tmp_path / "net.pb", build)))


def test_operator_unknown_to_tensorflow_is_named(tmp_path: Path) -> None:
    def edit(graph_def: Any) -> None:
        next(node for node in graph_def.node if node.name == "relu").op = "HomeMade"

    with pytest.raises(UnsupportedError, match=r"'HomeMade'.*'relu'"):
        load(write(tmp_path / "net.pb", small, edit))


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pb", small)
    whole = path.read_bytes()
    damaged = [b"", whole[: len(whole) // 2], whole[:-7], b"not a graph at all", bytes(range(256)), whole[whole.index(b"conv") :]]
    for index, content in enumerate(damaged):
        bad = tmp_path / f"bad{index}.pb"
        bad.write_bytes(content)
        with pytest.raises(ModelError, match=f"bad{index}"):
            load(bad)
    for name, message in [("none.pb", "no such file"), ("net.txt", "Received: '.txt'"), ("folder", "is a folder")]:
        (tmp_path / "net.txt").touch()
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(ModelError, match=message):
            load(tmp_path / name)
    with pytest.raises(ModelError, match="Received: int"):
        load(3)


def test_feeds_are_checked(tmp_path: Path) -> None:
    frozen = load(write(tmp_path / "net.pb", small))
    with pytest.raises(DataError, match="Received: \\['x'\\]"):
        frozen.run({"x": np.zeros((1, 6, 6, 2), np.float32)})
    with pytest.raises(DataError, match="Received: \\(1, 6, 5, 2\\)"):
        frozen.run({"input": np.zeros((1, 6, 5, 2), np.float32)})


@pytest.mark.parametrize("batch", [1, 2])
def test_a_graph_frozen_for_one_batch_size_takes_any(tmp_path, assert_same, batch):
    def build() -> None:
        x = v1.placeholder(tf.float32, (batch, 6, 6, 2), name="input")
        x = tf.nn.relu(tf.nn.conv2d(x, constant((3, 3, 2, 4)), 2, "SAME"))
        x = tf.reshape(tf.matmul(tf.reshape(x, [batch, -1]), constant((36, 6))), [batch, 3, 2])
        tf.identity(tf.reshape(x, [-1, 6]), name="out")

    frozen = load(write(tmp_path / "net.pb", build))
    model = to_onnx(frozen)
    assert frozen.input_shapes == {"input": (None, 6, 6, 2)}
    assert_same(frozen, model, batch=3)


def test_reshapes_that_mix_images_are_left(tmp_path, assert_same):
    """[2, 8] -> [4, 4]: the first dimension is no batch; the graph is what it was, for two examples."""

    def build() -> None:
        x = v1.placeholder(tf.float32, (2, 8), name="input")
        tf.identity(tf.reshape(x, [4, 4], name="mixed"), name="out")

    frozen = load(write(tmp_path / "net.pb", build))
    assert not any(node.name.startswith("mixed/") and "any_batch" in node.name for node in frozen.graph_def.node)
    assert frozen.input_shapes == {"input": (2, 8)}
    assert_same(frozen, to_onnx(frozen))


def test_an_input_that_is_not_float32_is_refused_with_the_way_out(tmp_path, assert_same):
    def build() -> None:
        x = tf.cast(v1.placeholder(tf.uint8, (None, 6, 6, 2), name="bytes"), tf.float32, name="cast")
        tf.identity(tf.nn.conv2d(x, constant((3, 3, 2, 4)), 1, "SAME"), name="out")

    path = write(tmp_path / "net.pb", build)
    with pytest.raises(UnsupportedError, match=r"'bytes': float32 is expected.*\(--inputs cast\)\. Received: uint8"):
        to_onnx(load(path))
    frozen = load(path, inputs=["cast"])
    assert_same(frozen, to_onnx(frozen))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda nodes: nodes["out"].input.pop(), r"'out': Identity reads 1 tensors or more\. Received: \[\]"),
        (lambda nodes: nodes["conv"].input.pop(), r"'conv': Conv2D reads 2 tensors or more\. Received: \['input'\]"),
        (lambda nodes: nodes["relu"].input.__setitem__(0, "conv:zz"), r"m\.pb: node 'relu': .*a number.*Received: 'conv:zz'"),
    ],
)
def test_nodes_that_read_too_little_and_tensors_without_a_number(tmp_path: Path, edit: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(write(tmp_path / "m.pb", small, lambda graph_def: edit({node.name: node for node in graph_def.node})))
