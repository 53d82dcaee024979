"""What a graph in a file may make TensorFlow do while it is read: arithmetic on small numbers, and nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load
from tqt_onnx.frontend_tf.inference.outside_ops import acts_outside
from tqt_onnx.frontend_tf.rewrites.pure_ops import PURE
from tqt_onnx.frontend_tf.rewrites.static_values import SMALLEST_BUDGET, Evaluation, static_values
from tqt_onnx.ir import ModelError, TqtOnnxError, UnsupportedError

v1 = tf.compat.v1
Write = Callable[..., Path]


def x_of(*shape: int) -> Any:
    return v1.placeholder(tf.float32, (None, *shape), name="x")


def half(value: Any) -> Any:
    """Through float16: decoders of constants are computed."""
    return tf.cast(tf.cast(value, tf.float16), tf.float32)


def canary_read(folder: Path) -> Any:
    (folder / "canary").write_bytes(bytes(range(1, 9)))
    content = tf.raw_ops.ReadFile(filename=str(folder / "canary"))
    return tf.cast(tf.io.decode_raw(content, tf.uint8), tf.float32)


def canary_written(folder: Path, value: Any) -> Any:
    return tf.raw_ops.DebugIdentity(input=value, tensor_name="canary:0", debug_urls=[f"file://{folder}/dump"])


def canary_counted(folder: Path, value: Any) -> Any:
    """The same by an operator that no rewrite takes away."""
    count = tf.raw_ops.DebugNanCount(input=tf.constant([1.0]), tensor_name="canary:0", debug_urls=[f"file://{folder}/dump"])
    return value + tf.cast(count, value.dtype)


def predicate(folder: Path) -> Any:
    return tf.reduce_all(canary_written(folder, tf.constant([1.0, 2.0])) > 0)


def by_switch(folder: Path) -> None:
    x = x_of(8)
    branches = tf.raw_ops.Switch(data=x, pred=predicate(folder))
    tf.identity(tf.raw_ops.Merge(inputs=[branches[0] + 1.0, branches[1] * 2.0])[0], name="y")


def by_if(folder: Path) -> None:
    x = x_of(8)
    tf.identity(tf.cond(predicate(folder), lambda: x + 1.0, lambda: x * 2.0), name="y")


def by_range(folder: Path) -> None:
    bound = canary_counted(folder, tf.constant(-1.0))
    tf.quantization.fake_quant_with_min_max_vars(x_of(8), bound, 1.0, name="y")


def by_shape(folder: Path) -> None:
    tf.reshape(x_of(8), canary_counted(folder, tf.constant([-1, 4])), name="y")


def by_decoder(folder: Path) -> None:
    tf.add(x_of(2), half(canary_counted(folder, tf.constant([1.0, 2.0]))), name="y")


def by_stats(folder: Path) -> None:
    stats = tf.raw_ops.DebugNumericSummary(input=tf.constant([1.0]), debug_urls=[f"file://{folder}/dump"])
    tf.add(x_of(14), half(stats), name="y")


def upstream(folder: Path) -> None:
    """In front of the cut, where a shape has to be inferred."""
    images = tf.reshape(x_of(8), canary_counted(folder, tf.constant([-1, 4])), name="images")
    tf.nn.relu(images, name="y")


def beside(folder: Path) -> None:
    """Off the path from input to output."""
    x = x_of(8)
    tf.nn.relu(x, name="y")
    tf.reduce_sum(tf.reshape(x, canary_counted(folder, tf.constant([-1, 4]))), name="loss")


WRITERS: dict[str, Callable[[Path], None]] = {
    "Switch": by_switch, "If": by_if, "range": by_range, "shape": by_shape, "decoder": by_decoder, "stats": by_stats,
    "upstream": upstream, "beside": beside,
}  # fmt: skip


def test_the_canary_sings(tmp_path: Path) -> None:
    """TensorFlow itself does write the file."""
    with tf.Graph().as_default(), v1.Session() as session:
        assert session.run(predicate(tmp_path))
    assert (tmp_path / "dump").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_written(write_graph: Write, tmp_path: Path, kind: str) -> None:
    path = write_graph(lambda: WRITERS[kind](tmp_path))
    shutil.rmtree(tmp_path / "dump", ignore_errors=True)  # to build the graph TensorFlow inferred shapes, and wrote it
    inputs = ["images"] if kind == "upstream" else None
    for outputs in (["y"], None):
        try:
            frozen = load(path, inputs=inputs, outputs=outputs)
            for name, shape in frozen.example_shapes(2).items():
                frozen.run({name: np.zeros(shape, np.float32)})
        except TqtOnnxError:
            pass
        assert not (tmp_path / "dump").exists()


@pytest.mark.parametrize("decode", [tf.identity, half])
def test_nothing_is_read(write_graph: Write, tmp_path: Path, decode: Callable[[Any], Any]) -> None:
    path = write_graph(lambda: tf.add(x_of(8), decode(canary_read(tmp_path)), name="y"))
    with pytest.raises(ModelError, match="'ReadFile' reads the data itself"):
        load(path)


def test_python_is_not_called(write_graph: Write) -> None:
    called = []
    path = write_graph(lambda: tf.add(x_of(1), tf.numpy_function(called.append, [1.0], tf.float32, stateful=False), name="y"))
    with pytest.raises(UnsupportedError, match=r"PyFuncStateless .* reaches outside the graph"):
        load(path)
    assert not called


REFUSED: dict[str, Callable[[], Any]] = {
    "MatchingFiles": lambda: tf.strings.length(tf.raw_ops.MatchingFiles(pattern="/*")),
    "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name="file:///dev/zero"),
}


@pytest.mark.parametrize("op", ["MatchingFiles", "ImmutableConst"])
def test_what_opens_files_is_refused_by_name(write_graph: Write, op: str) -> None:
    path = write_graph(lambda: tf.add(x_of(1), tf.cast(REFUSED[op](), tf.float32), name="y"))
    with pytest.raises(UnsupportedError, match=f"{op} '{op}' reaches outside the graph"):
        load(path, outputs=["y"])


def test_the_two_lists_have_nothing_in_common() -> None:
    def node(op: str) -> Any:
        return v1.NodeDef(name="node", op=op)

    assert not [op for op in PURE if acts_outside(node(op))]
    assert all(acts_outside(node(op)) for op in ("WriteFile", "EagerPyFunc", "XlaLaunch", "DebugNanCount", "TFRecordReaderV2"))
    assert all(acts_outside(node(op)) for op in ("RpcCall", "SnapshotDataset", "_Recv", "RestoreV2", "Assign"))


def filled() -> Any:
    """A Fill that `arm` makes large: TensorFlow computes it for whoever builds the graph, to infer shapes."""
    return tf.fill(tf.constant([2, 3], name="dims"), tf.constant(1, tf.int32))


def arm(graph_def: Any) -> None:
    dims = next(node for node in graph_def.node if node.name == "dims")
    dims.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.int32([6000, 100000])))


BOMBS: dict[str, Callable[[], Any]] = {
    "decoded": lambda: tf.reduce_max(tf.cast(filled(), tf.float32)),
    "plain": lambda: tf.cast(tf.reduce_max(filled()), tf.float32),
    "in steps": lambda: tf.cast(tf.reduce_max(tf.tile(filled(), [1, 2])), tf.float32),
    "as a shape": lambda: tf.zeros(tf.reduce_max(filled())[None]),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_does_not_ask_for_gigabytes(write_graph: Write, kind: str) -> None:
    path = write_graph(lambda: tf.add(x_of(1), BOMBS[kind](), name="y"), arm)
    assert path.stat().st_size < 2000
    begun = time.monotonic()
    with pytest.raises(ModelError, match="makes a constant out of next to nothing"):
        load(path)
    assert time.monotonic() - begun < 5


def test_nor_in_front_of_a_cut(write_graph: Write) -> None:
    """There it is of no account, but TensorFlow would compute it to know the shape of `images`."""

    def build() -> None:
        images = tf.reshape(x_of(8), tf.stack([-1, 4 * tf.reduce_max(filled())]), name="images")
        tf.nn.relu(images, name="y")

    path = write_graph(build, arm)
    begun = time.monotonic()
    assert load(path, inputs=["images"], outputs=["y"]).inputs == ("images",)
    assert time.monotonic() - begun < 5


def test_nor_does_one_number_for_many(write_graph: Write) -> None:
    with pytest.raises(ModelError, match="makes a constant out of next to nothing"):
        load(write_graph(lambda: tf.add(x_of(1), tf.reduce_max(tf.constant(1.0, shape=[6000, 100000])), name="y")))


def evaluation(build: Callable[[], Any]) -> tuple[dict[str, Any], str]:
    with tf.Graph().as_default() as graph:
        tensor = build()
    return {node.name: node for node in graph.as_graph_def().node}, tensor.name


def test_what_is_computed_stays_below_the_budget() -> None:
    count = SMALLEST_BUDGET // 4
    nodes, tensor = evaluation(lambda: tf.cast(tf.fill([count + 1], np.int8(1)), tf.float32))
    assert static_values(nodes, [tensor]) == {}
    assert list(Evaluation(nodes, [tensor]).too_large.values()) == [SMALLEST_BUDGET + 4]
    nodes, tensor = evaluation(lambda: tf.cast(tf.constant(np.arange(6, dtype=np.float16)), tf.float32))
    np.testing.assert_array_equal(static_values(nodes, [tensor])[tensor], np.arange(6, dtype=np.float32))


def test_one_constant_that_fails_does_not_disable_the_others(write_graph: Write) -> None:
    def build() -> None:
        tf.cast(tf.math.floordiv(tf.constant([1, 2]), tf.constant([0, 1])), tf.float32)
        tf.matmul(x_of(4), tf.cast(tf.constant(np.ones((4, 3), np.float16)), tf.float32, name="weights"), name="y")

    frozen = load(write_graph(build), outputs=["y"])
    assert {node.op for node in frozen.graph_def.node} == {"Placeholder", "Const", "MatMul"}


@pytest.mark.parametrize("op", ["Identity", "StopGradient", "Relu"])
def test_circles_are_refused(write_graph: Write, op: str) -> None:
    def circle(graph_def: Any) -> None:
        for name, read in (("a", "b"), ("b", "a")):
            node = graph_def.node.add(name=name, op=op, input=[read])
            node.attr["T"].type = tf.float32.as_datatype_enum
        next(node for node in graph_def.node if node.name == "y").input[0] = "a"

    with pytest.raises(ModelError, match="without circles"):
        load(write_graph(lambda: tf.add(x_of(4), 1.0, name="y"), circle))
