"""Which first dimension is the batch, and whether a comparison would notice a wrong answer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.frontend_tf.inference import settle_batch
from tqt_onnx.frontend_tf.nodes import make_constant
from tqt_onnx.ir import DataError

v1 = tf.compat.v1
Write = Callable[..., Path]
Check = Callable[..., None]


def constant(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def placeholder(*shape: int | None, name: str = "x") -> Any:
    return v1.placeholder(tf.float32, shape, name=name)


@pytest.mark.parametrize("target", [[20, -1], [2, -1], [120, -1]])
def test_another_number_in_front_is_no_batch(write_graph: Write, assert_same: Check, target: list[int]) -> None:
    """Boxes, groups, pixels: what was written for an open batch is not written for 20 examples."""
    frozen = load(write_graph(lambda: tf.reshape(tf.nn.relu(placeholder(None, 6, 5, 4)), target, name="y")))
    x = constant(2, 6, 5, 4)
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], np.maximum(x, 0).reshape(target))
    assert_same(frozen, to_onnx(frozen), batch=2)


def test_rows_that_are_not_the_batch_stay(write_graph: Write, assert_same: Check) -> None:
    """[1,4,4,1] -> transposed to [1,4,4,batch]: the 1 in front of the Reshape is the channel."""

    def build() -> None:
        x = tf.transpose(placeholder(1, 4, 4, 1), [3, 1, 2, 0])
        tf.identity(tf.reshape(x, [1, 16], name="flat"), name="y")

    frozen = load(write_graph(build))
    assert not any(node.name.startswith("flat/any_batch") and node.op != "Const" for node in frozen.graph_def.node)
    flat = next(node for node in frozen.graph_def.node if node.name == "flat")
    assert "any_batch" not in flat.input[1]
    assert frozen.input_shapes == {"x": (1, 4, 4, 1)}
    assert_same(frozen, to_onnx(frozen))


def for_two(graph: str) -> None:
    x = tf.nn.relu(placeholder(2, 6, 6, 2))
    if graph == "reshape":
        tf.reshape(tf.matmul(tf.reshape(x, [2, -1]), constant(72, 6)), [2, 3, 2], name="y")
    elif graph == "deconvolution":
        tf.nn.conv2d_transpose(x, constant(3, 3, 4, 2), [2, 12, 12, 4], 2, "SAME", name="y")
    else:
        tf.reshape(tf.nn.conv2d_transpose(x, constant(3, 3, 4, 2), [2, 12, 12, 4], 2, "SAME"), [2, -1], name="y")


@pytest.mark.parametrize("graph", ["reshape", "deconvolution", "both"])
def test_the_reference_is_the_graph_as_it_was_written(write_graph: Write, assert_same: Check, graph: str) -> None:
    path = write_graph(lambda: for_two(graph))
    frozen = load(path)
    assert (frozen.rows, frozen.inputs, frozen.input_shapes["x"]) == (2, ("x",), (None, 6, 6, 2))
    x = constant(4, 6, 6, 2)
    graph_def = v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        pairs = [session.run("y:0", {"x:0": x[[row, row]]})[:1] for row in range(4)]
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], np.concatenate(pairs))
    assert_same(frozen, to_onnx(frozen), batch=4)


def test_a_batch_that_was_freed_wrongly_is_noticed(write_graph: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake in the converted graph must not be in the reference too."""

    def free_wrongly(graph_def: Any, batch: int, graph: Any) -> set[str]:
        graph_def.node.append(make_constant("wrong", np.int32([-1, 36, 2])))
        next(node for node in graph_def.node if node.name == "pairs").input[1] = "wrong"
        return set()

    def build() -> None:
        pairs = tf.reshape(tf.nn.relu(placeholder(1, 6, 6, 2)), [1, 2, 36], name="pairs")
        tf.reduce_max(pairs, axis=2, name="y")

    path = write_graph(build)
    right = load(path)
    monkeypatch.setattr(settle_batch, "free_reshapes", free_wrongly)
    frozen = load(path)
    x = constant(3, 6, 6, 2)
    np.testing.assert_array_equal(frozen.run({"x": x})["y"], right.run({"x": x})["y"])
    assert dataclasses.replace(frozen, written={}).run({"x": x})["y"].shape == (3, 36)


def test_an_input_that_is_no_batch_is_left(write_graph: Write, assert_same: Check, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> None:
        tf.matmul(placeholder(None, 4), placeholder(7, 4, name="anchors"), transpose_b=True, name="y")

    with caplog.at_level(logging.INFO, logger="tqt_onnx"):
        frozen = load(write_graph(build))
    assert frozen.input_shapes == {"x": (None, 4), "anchors": (7, 4)}
    assert "'anchors': its first dimension stays 7" in caplog.text
    assert frozen.example_shapes(3) == {"x": (3, 4), "anchors": (7, 4)}
    assert [str(value.shape) for value in to_onnx(frozen).graph.inputs] == ["[N,4]", "[7,4]"]
    assert_same(frozen, to_onnx(frozen))
    with pytest.raises(DataError):
        frozen.run({"x": constant(3, 4), "anchors": constant(3, 4)})


@pytest.mark.parametrize("first", ["x", "anchors"])
def test_one_size_is_the_batch_and_the_other_is_not(write_graph: Write, assert_same: Check, first: str) -> None:
    def build() -> None:
        shapes = {"x": (1, 4), "anchors": (7, 4)}
        made = {name: placeholder(*shapes[name], name=name) for name in sorted(shapes, key=lambda name: name != first)}
        tf.add(tf.matmul(made["x"], made["anchors"], transpose_b=True), constant(1, 7), name="y")

    frozen = load(write_graph(build))
    assert frozen.input_shapes == {"x": (None, 4), "anchors": (7, 4)}
    assert_same(frozen, to_onnx(frozen))


def test_inputs_of_one_size_are_opened_together(write_graph: Write, assert_same: Check) -> None:
    frozen = load(write_graph(lambda: tf.add(placeholder(3, 4), placeholder(3, 4, name="z"), name="y")))
    assert frozen.input_shapes == {"x": (None, 4), "z": (None, 4)}
    assert_same(frozen, to_onnx(frozen))


ENDS: dict[str, Callable[[Any], Any]] = {
    "squeeze": lambda x: tf.squeeze(x, [0], name="y"),
    "first": lambda x: tf.identity(x[0], name="y"),
    "over the batch": lambda x: tf.reduce_max(x, name="y"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_where_the_batch_ends_inside_it_stays(
    write_graph: Write, assert_same: Check, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = write_graph(lambda: ENDS[kind](tf.reduce_mean(placeholder(1, 4, 4, 6), [1, 2])))
    with caplog.at_level(logging.WARNING, logger="tqt_onnx"):
        frozen = load(path, outputs=["y"])
    assert frozen.input_shapes == {"x": (1, 4, 4, 6)}
    assert "the batch size stays as it is" in caplog.text
    assert frozen.example_shapes(4) == {"x": (1, 4, 4, 6)}
    if kind != "over the batch":
        assert_same(frozen, to_onnx(frozen))
