"""Rewrites of what TensorFlow on a CPU or tf2onnx cannot do, and graphs that are long."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.frontend_tf.conversion import convert
from tqt_onnx.frontend_tf.nodes import make_node
from tqt_onnx.frontend_tf.readers.graph_files import read_graph
from tqt_onnx.frontend_tf.rewrites import settle_moves
from tqt_onnx.frontend_tf.rewrites.patches_to_space_to_depth import patches_to_space_to_depth
from tqt_onnx.frontend_tf.rewrites.raise_batch_norm import raise_batch_norm
from tqt_onnx.frontend_tf.rewrites.remove_checks import remove_checks
from tqt_onnx.frontend_tf.rewrites.surgery import Surgery
from tqt_onnx.frontend_tf.rewrites.table import REWRITES
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.passes.resizes import Side, nearest

v1 = tf.compat.v1
Write = Callable[..., Path]
Check = Callable[..., None]


def constant(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def x_of(*shape: int | None, dtype: Any = tf.float32, name: str = "x") -> Any:
    return v1.placeholder(dtype, (None, *shape), name=name)


def test_the_table() -> None:
    assert len({row.name for row in REWRITES}) == len(REWRITES)
    assert all(row.summary and "\n" not in row.summary and len(row.summary) < 100 for row in REWRITES)


def everything() -> None:
    """Something for most rewrites."""
    x = tf.stop_gradient(x_of(3, 8, 8))
    x = tf.nn.dropout(tf.nn.conv2d(x, constant(3, 3, 3, 4), 1, "SAME", data_format="NCHW"), rate=0.5)
    x = tf.cond(v1.placeholder(tf.bool, (), "is_training"), lambda: x, lambda: tf.math.erfc(x))
    tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 1.0, name="y")


def test_each_rewrite_leaves_nothing_to_itself(write_graph: Write) -> None:
    surgery = Surgery("net", read_graph(write_graph(everything)))
    for row in REWRITES:
        row.apply(surgery)
        assert not row.apply(surgery), row.name


def test_channels_first_runs_and_converts(write_graph: Write, assert_same: Check) -> None:
    def build() -> None:
        statistics = {key: np.abs(constant(4)) + 0.5 for key in ("scale", "offset", "mean", "variance")}
        x = tf.nn.conv2d(x_of(3, 9, 8), constant(3, 2, 3, 4), [1, 1, 2, 1], [[0, 0], [0, 0], [1, 2], [0, 1]], data_format="NCHW")
        x = tf.nn.bias_add(x, constant(4), data_format="NCHW")
        x = tf.raw_ops.FusedBatchNormV3(x=x, **statistics, is_training=False, data_format="NCHW")[0]
        x = tf.nn.depthwise_conv2d(tf.nn.relu(x), constant(3, 3, 4, 1), [1, 1, 1, 1], "SAME", data_format="NCHW")
        x = tf.nn.max_pool2d(x, [2, 1], [1, 2], "VALID", data_format="NCHW")
        tf.nn.avg_pool2d(x, 2, 1, "SAME", data_format="NCHW", name="y")

    frozen = load(write_graph(build))
    model = to_onnx(frozen)
    assert_same(frozen, model)
    assert Counter(node.op_type for node in model.graph)["Transpose"] == 0
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_bias_of_rank_3_channels_first(write_graph: Write, assert_same: Check) -> None:
    frozen = load(write_graph(lambda: tf.nn.bias_add(x_of(3, 5), constant(3), data_format="NCHW", name="y")))
    assert_same(frozen, to_onnx(frozen))


EXPLICIT = [0, 0, 1, 2, 1, 1, 0, 0]
DECONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], tuple[int, ...], Any]] = {
    "same": ((3, 4, 3), (3, 3, 2, 3), (2, 2), (6, 8, 2), "SAME"),
    "same, odd": ((3, 4, 3), (3, 3, 2, 3), (2, 2), (5, 7, 2), "SAME"),
    "same, kernel smaller than stride": ((3, 2, 3), (2, 2, 2, 3), (3, 3), (9, 6, 2), "SAME"),
    "valid": ((3, 4, 3), (3, 2, 2, 3), (2, 1), (7, 5, 2), "VALID"),
    "valid, beyond the kernel": ((3, 3, 3), (3, 3, 2, 3), (2, 2), (8, 8, 2), "VALID"),
    "explicit": ((2, 3, 3), (3, 3, 2, 3), (3, 2), (3, 5, 2), EXPLICIT),
    "explicit, beyond the kernel": ((2, 3, 3), (3, 3, 2, 3), (3, 2), (5, 6, 2), EXPLICIT),
}


@pytest.mark.parametrize("kind", DECONVOLUTIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_transposed_convolutions(write_graph: Write, assert_same: Check, kind: str, batch: int) -> None:
    shape, kernel, strides, target, padding = DECONVOLUTIONS[kind]
    explicit = [] if isinstance(padding, str) else padding

    def build() -> None:
        x = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[batch, *target],
            filter=constant(*kernel),
            out_backprop=v1.placeholder(tf.float32, (batch, *shape), name="x"),
            strides=[1, *strides, 1],
            padding=padding if isinstance(padding, str) else "EXPLICIT",
            explicit_paddings=explicit,
        )
        tf.nn.relu(tf.nn.bias_add(x, constant(2)), name="y")

    path = write_graph(build)
    frozen = load(path)
    assert_same(frozen, to_onnx(frozen), batch=3)
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    graph = tf.Graph()  # the file itself, in TensorFlow
    with graph.as_default():
        tf.import_graph_def(read_graph(path), name="")
    with v1.Session(graph=graph) as session:
        np.testing.assert_allclose(frozen.run({"x": x})["y"], session.run("y:0", {"x:0": x}), atol=1e-5)


@pytest.mark.parametrize("slopes", [np.float32([0.1, 0.5, -0.25]), np.float32([0.1])])
def test_a_maximum_with_several_slopes_is_converted(write_graph: Write, assert_same: Check, slopes: Any) -> None:
    """tf2onnx takes it for a leaky relu with one slope; both orders of the operands."""

    def relus() -> None:
        x = x_of(3)
        h = tf.maximum(slopes * x, x)
        tf.maximum(h, h * slopes, name="y")

    frozen = load(write_graph(relus))
    assert_same(frozen, to_onnx(frozen))


def test_moves_are_written_with_constant_positions(write_graph: Write, assert_same: Check) -> None:
    """Reversals, symmetric borders, and a size that float32(7 / 6) * 6 does not reach."""

    def moves() -> None:
        h = tf.reverse(x_of(6, 5, 2), (1, -1))
        h = tf.pad(h, ((0, 0), (2, 0), (1, 5), (0, 0)), "SYMMETRIC")[:, :6]
        h = v1.image.resize_nearest_neighbor(h, (7, 11))
        tf.identity(tf.image.resize(h, (13, 11), "nearest"), name="y")

    frozen = load(write_graph(moves))
    model = to_onnx(frozen)
    assert {node.op_type for node in model.graph} <= {"Identity", "Slice", "Gather", "Transpose", "Resize"}
    assert_same(frozen, model)


@pytest.mark.parametrize(
    ("size", "target", "options"),
    [(14, 2, {}), (2, 41, {"half_pixel_centers": True}), (8, 47, {"align_corners": True}), (14, 7, {}), (7, 14, {})],
)
def test_resized_images_have_tensorflows_elements(
    write_graph: Write, assert_same: Check, size: int, target: int, options: dict[str, bool]
) -> None:
    """14 / 2: float32(2 / 14) is a little more than 1 / 7, and ONNX would take row 6."""
    frozen = load(write_graph(lambda: v1.image.resize_nearest_neighbor(x_of(size, 3, 2), (target, 3), name="y", **options)))
    model = to_onnx(frozen)
    assert_same(frozen, model)
    assert any(node.op_type == "Gather" for node in model.graph) == (size % 7 != 0 or target % 7 != 0)


@pytest.mark.parametrize("op", ["ResizeNearestNeighbor", "MirrorPad"])
def test_positions_along_a_huge_axis_are_refused(write_graph: Write, op: str) -> None:
    """8 numbers in a file that ask for gigabytes."""

    def huge() -> None:
        if op == "MirrorPad":
            h = tf.pad(x_of(1 << 25), ((0, 0), (1, 1)), "SYMMETRIC", name="big")
        else:
            h = v1.image.resize_nearest_neighbor(x_of(7, 7, 2), (2_000_000_000, 8), name="big")
        tf.nn.relu(h, name="y")

    with pytest.raises(UnsupportedError, match=f"{op} 'big': axes of at most 16777216 elements.*Received: "):
        to_onnx(load(write_graph(huge)))


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({}, ("asymmetric", "floor")),
        ({"half_pixel_centers": True}, ("tf_half_pixel_for_nn", "floor")),
        ({"align_corners": True}, ("align_corners", "round_prefer_ceil")),
    ],
)
def test_both_arithmetics_of_the_nearest_element(options: dict[str, bool], attributes: tuple[str, str]) -> None:
    """TensorFlow's own, and that of ONNX, which `plain-resizes` has too: a Resize stays one where they agree."""
    tensorflow = make_node(
        "y", "ResizeNearestNeighbor", ["x", "s"], **({"align_corners": False, "half_pixel_centers": False} | options)
    )
    onnx = onnx_ir.node("Resize", [None], {"coordinate_transformation_mode": attributes[0], "nearest_mode": attributes[1]})
    for length in range(1, 33):
        for size in range(1, 65):
            side = Side(2, length, size, np.float32(size) / np.float32(length))
            expected = tf.raw_ops.ResizeNearestNeighbor(
                images=np.arange(length).reshape(1, length, 1, 1), size=(size, 1), **options
            )
            assert settle_moves._nearest(tensorflow, length, size).tolist() == expected.numpy().reshape(-1).tolist()
            assert settle_moves._nearest_by_scale(tensorflow, length, size).tolist() == nearest(onnx, side).tolist()


def test_erfc_is_written_with_erf(write_graph: Write, assert_same: Check) -> None:
    def gelu() -> None:
        x = x_of(8)
        tf.multiply(0.5 * x, tf.math.erfc(-x * np.float32(0.7071)), name="y")

    frozen = load(write_graph(gelu))
    assert "Erfc" in {node.op for node in frozen.graph_def.node}
    model = to_onnx(frozen)
    assert_same(frozen, model)
    x = np.float32([[-20, -8, -1, 0, 1, 8, 20, 100]])
    assert_same(frozen, model, low=-20.0, high=20.0)
    assert np.isfinite(frozen.run({"x": x})["y"]).all()


@pytest.mark.parametrize(
    ("height", "width", "block", "padding"), [(6, 8, 2, "VALID"), (6, 9, 3, "SAME"), (7, 9, 2, "VALID"), (5, 5, 3, "VALID")]
)
def test_patches_that_tile_the_image_are_space_to_depth(
    height: int, width: int, block: int, padding: str, write_graph: Write, assert_same: Check
) -> None:
    tiles = (1, block, block, 1)

    def build() -> None:
        x = x_of(height, width, 3)
        tf.raw_ops.ExtractImagePatches(images=x, ksizes=tiles, strides=tiles, rates=[1] * 4, padding=padding, name="y")

    frozen = load(write_graph(build))
    assert "ExtractImagePatches" in {node.op for node in frozen.graph_def.node}
    model = to_onnx(frozen)
    assert_same(frozen, model)
    counts = Counter(node.op_type for node in model.graph)
    assert (counts["SpaceToDepth"], counts["Conv"]) == (1, 0)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "rate", "padding"),
    [(6, 2, 1, 1, "VALID"), (6, 2, 3, 1, "VALID"), (6, 2, 2, 2, "VALID"), (7, 2, 2, 1, "SAME"), (2, 3, 3, 1, "SAME")],
)
def test_other_patches_are_left_alone(size: int, kernel: int, stride: int, rate: int, padding: str, write_graph: Write) -> None:
    sizes = {"ksizes": (1, kernel, kernel, 1), "strides": (1, stride, stride, 1), "rates": (1, rate, rate, 1), "padding": padding}
    frozen = load(write_graph(lambda: tf.raw_ops.ExtractImagePatches(images=x_of(size, size, 3), **sizes, name="y")))
    assert not patches_to_space_to_depth(Surgery("net", frozen.graph_def))


def test_weights_in_small_formats_become_float32(write_graph: Write, assert_same: Check) -> None:
    def build() -> None:
        half = tf.cast(tf.constant(constant(3, 3, 2, 4).astype(np.float16)), tf.float32)
        stored = tf.constant(np.arange(4, dtype=np.uint8))
        byte = tf.raw_ops.Dequantize(input=tf.bitcast(stored, tf.quint8), min_range=-1.0, max_range=1.0)
        tf.nn.bias_add(tf.nn.conv2d(x_of(4, 4, 2), half, 1, "SAME"), byte, name="y")

    frozen = load(write_graph(build))
    types = {tf.dtypes.as_dtype(node.attr["dtype"].type) for node in frozen.graph_def.node if node.op == "Const"}
    assert types == {tf.float32}
    assert_same(frozen, to_onnx(frozen))


def test_grouped_convolutions_convert(write_graph: Write, assert_same: Check) -> None:
    frozen = load(write_graph(lambda: tf.nn.conv2d(x_of(6, 6, 4), constant(3, 3, 2, 6), 1, "SAME", name="y")))
    assert_same(frozen, to_onnx(frozen))


def test_the_tensor_to_be_given_for_an_image_of_bytes_is_named(write_graph: Write, assert_same: Check) -> None:
    def build() -> None:
        x = tf.cast(tf.identity(x_of(6, 6, 2, dtype=tf.uint8)), tf.float32, name="to_float")
        tf.nn.conv2d(x / 255.0, constant(3, 3, 2, 4), 1, "SAME", name="y")

    path = write_graph(build)
    with pytest.raises(UnsupportedError, match=r"'x': float32 is expected; give 'to_float'.*Received: uint8"):
        to_onnx(load(path))
    frozen = load(path, inputs=["to_float"])
    assert_same(frozen, to_onnx(frozen))


def test_functions_that_nobody_calls_are_not_converted(write_graph: Write, assert_same: Check) -> None:
    """tf2onnx converts the whole library, and stumbles over what training left there."""

    def leave(graph_def: Any) -> None:
        with tf.Graph().as_default() as other:
            tf.function(lambda a: tf.random.gamma((3,), a))(v1.placeholder(tf.float32, None))
        graph_def.library.CopyFrom(other.as_graph_def().library)

    frozen = load(write_graph(lambda: tf.nn.relu(x_of(4), name="y"), leave))
    assert len(frozen.graph_def.library.function) == 0
    assert_same(frozen, to_onnx(frozen))


LINKS: dict[str, Callable[[Any], Any]] = {
    "relu": tf.nn.relu,
    "residual": lambda x: tf.nn.tanh(x) + x,
    "guards": tf.stop_gradient,
    "dropout": lambda x: tf.nn.dropout(x, rate=0.5),
    "fake quant": lambda x: tf.quantization.fake_quant_with_min_max_vars(x, -9.0, 9.0),
}


@pytest.mark.parametrize("kind", ["relu", "guards"])
def test_2000_nodes_in_a_chain_convert(write_graph: Write, assert_same: Check, kind: str) -> None:
    assert sys.getrecursionlimit() <= 2000

    def build() -> None:
        x = x_of(4)
        for _ in range(2000):
            x = LINKS[kind](x)
        tf.add(x, np.float32(1), name="y")

    frozen = load(write_graph(build))
    assert_same(frozen, to_onnx(frozen))


@pytest.mark.parametrize("kind", ["residual", "dropout", "fake quant"])
def test_long_chains_of_unknown_shape_load(write_graph: Write, kind: str) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, name="x")
        for _ in range(1200 if kind == "residual" else 400):
            x = LINKS[kind](x)
        tf.raw_ops.MatMul(a=x, b=constant(7, 2), name="y")

    shape = load(write_graph(build)).input_shapes["x"]
    assert shape in ((None, 7), (None, None))  # behind a sum of two tensors nothing is known
    assert shape == (None, 7) or kind == "residual"


def test_a_long_chain_of_guards_is_walked_once(write_graph: Write) -> None:
    """Every node of a chain may be asked for what took its place."""
    count = 20_000

    def chain(graph_def: Any) -> None:
        for index in range(count):
            node = graph_def.node.add(name=f"n{index}", op="StopGradient", input=[f"n{index - 1}" if index else "x"])
            node.attr["T"].type = tf.float32.as_datatype_enum
        next(node for node in graph_def.node if node.name == "y").input[0] = f"n{count - 1}"

    surgery = Surgery("net", read_graph(write_graph(lambda: tf.nn.relu(x_of(4), name="y"), chain)))
    steps = 0

    class Counting(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: str) -> Any:
            nonlocal steps
            steps += 1
            return super().__getitem__(key)

    remove_checks(surgery)
    surgery._replaced = Counting(surgery._replaced)
    surgery.close()
    assert steps < 10 * count
    assert list(surgery.nodes["y"].input) == ["x"]
    assert surgery.bypassed >= {f"n{index}" for index in range(count)}


def test_a_graph_without_batch_norms_is_not_copied(write_graph: Write) -> None:
    frozen = load(write_graph(lambda: tf.nn.relu(x_of(4), name="y")))
    assert raise_batch_norm(frozen.graph_def, ["y:0"]) is frozen.graph_def


def test_only_the_frame_of_a_graph_is_asked_for(write_graph: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full copy of the weights is not made where versions and functions would do."""
    calls = Counter[str]()
    result = Surgery.result
    monkeypatch.setattr(Surgery, "result", lambda self: calls.update(result=1) or result(self))
    load(write_graph(lambda: tf.nn.relu(x_of(4), name="y")), outputs=["y"])
    assert calls["result"] == 1  # of inline_functions


def residual(blocks: int) -> None:
    x = x_of(6, 6, 4)
    for _ in range(blocks):
        y = tf.nn.relu(tf.nn.conv2d(x, constant(3, 3, 4, 4), 1, "SAME"))
        x = tf.nn.relu(tf.concat([x[..., :2], y[..., 2:]], -1) + 0.5 * tf.nn.max_pool2d(y, 3, 1, "SAME"))
    tf.reduce_mean(x, (1, 2), name="y")


def test_transposes_are_moved_in_few_walks_to_where_tf2onnx_moves_them(write_graph: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning anew behind each of them takes 16 times as long for a network of four times the depth."""
    ours = convert._OPTIMIZERS["optimize_transpose"]
    theirs = ours.__mro__[1]
    asked: Counter[str] = Counter()

    def counted(self: Any, node: Any) -> Any:
        asked[type(self).__name__] += 1
        return theirs._handle_nhwc_tranpose(self, node)

    monkeypatch.setattr(ours, "_handle_nhwc_tranpose", counted, raising=False)
    counts = []
    for blocks in (4, 16):
        frozen = load(write_graph(lambda blocks=blocks: residual(blocks)))
        asked.clear()
        model = to_onnx(frozen)
        counts.append(asked.total())
        monkeypatch.setitem(convert._OPTIMIZERS, "optimize_transpose", theirs)
        expected = to_onnx(frozen)
        monkeypatch.setitem(convert._OPTIMIZERS, "optimize_transpose", ours)
        assert [(node.op_type, node.name, [value and value.name for value in node.inputs]) for node in model.graph] == [
            (node.op_type, node.name, [value and value.name for value in node.inputs]) for node in expected.graph
        ]
    assert 0 < counts[1] < 6 * counts[0]
