"""Operators that move, select or repeat elements, from TensorFlow the whole road (L6, L7): no rounding but where one is stated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from whole_road import record, take

from tqt_onnx.verbs.check import check
from tqt_onnx.verify import FixedPoint, Oracle

Body = Callable[[Any], Any]

v1 = tf.compat.v1.image

SHAPE = (6, 8, 3)


def conv(x: Any, channels: int = 4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.4, (3, 3, x.shape[-1], channels)).astype(np.float32)
    return tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), rng.normal(0, 0.2, channels).astype(np.float32))


def journey_of(body: Body, shape: tuple[int, ...] = SHAPE, **options: Any) -> Any:
    source = tf.function(body, input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="x")])
    return take(source, np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32), **options)


def between(move: Body) -> Body:
    """The move between a rectified layer and another layer: on the images of a network."""
    return lambda x: conv(move(tf.nn.relu(conv(x))), 2)


def behind(move: Body) -> Body:
    """The move behind a layer, at the end of the network: signed numbers."""
    return lambda x: tf.identity(move(conv(x)))


def shuffle(y: Any) -> Any:
    """The channels of two groups in turn, as ShuffleNet does it."""
    _, height, width, channels = y.shape
    groups = tf.reshape(y, (-1, height, width, 2, channels // 2))
    return tf.reshape(tf.transpose(groups, (0, 1, 2, 4, 3)), (-1, height, width, channels))


def reorg(y: Any) -> Any:
    """yolo_v2's reorg, in small operators."""
    _, height, width, channels = y.shape
    blocks = tf.reshape(y, (-1, height // 2, 2, width // 2, 2, channels))
    return tf.reshape(tf.transpose(blocks, (0, 1, 3, 2, 4, 5)), (-1, height // 2, width // 2, 4 * channels))


def darknet_reorg(y: Any) -> Any:
    """Darknet's own, which mixes channels and rows as its memory happens to lie."""
    _, height, width, channels = y.shape
    planes = tf.reshape(tf.transpose(y, (0, 3, 1, 2)), (-1, channels // 4, height, 2, width, 2))
    return tf.reshape(tf.transpose(planes, (0, 2, 4, 3, 5, 1)), (-1, height, width, channels))


def padded(*pads: int, **options: Any) -> Body:
    top, bottom, left, right = pads
    return lambda y: tf.pad(y, ((0, 0), (top, bottom), (left, right), (0, 0)), **options)


MOVES: dict[str, Body] = {
    "Split": between(lambda y: tf.concat([tf.nn.relu(conv(part)) for part in tf.split(y, 2, -1)], -1)),
    "SplitV": between(lambda y: tf.concat([conv(part) for part in tf.split(y, (1, 3), -1)], -1)),
    "Split, each part rectified": lambda x: tf.concat([tf.nn.relu6(part) for part in tf.split(conv(x), 2, 2)], -1),
    "Unpack and Pack": between(lambda y: tf.stack(tf.unstack(y, axis=-1)[::-1], -1)),
    "Slice": between(lambda y: tf.slice(y, (0, 1, 0, 1), (-1, 4, -1, 2))),
    "Slice in front of Relu6": lambda x: conv(tf.nn.relu6(tf.slice(conv(x), (0, 0, 0, 1), (-1, -1, -1, 2)))),
    "Slice between Relu and Relu6": lambda x: conv(tf.nn.relu6(tf.nn.relu(conv(x))[:, 1:])),
    "Slice between two clips of one sign": lambda x: tf.clip_by_value(tf.clip_by_value(conv(x), -2.0, 2.0)[:, 1:], -0.5, 0.7),
    "StridedSlice": between(lambda y: y[:, 1:5:2, ::3]),
    "StridedSlice backwards": between(lambda y: y[:, ::-1, 6:1:-2]),
    "StridedSlice that drops an axis": lambda x: tf.matmul(conv(x)[:, 2, -1], np.eye(4, 3, dtype=np.float32)),
    "GatherV2 of channels": between(lambda y: tf.gather(y, (2, 0, 3, 0), axis=-1)),
    "GatherV2 of rows": between(lambda y: tf.gather(y, (5, 0, 0, 2), axis=1)),
    "Channel shuffle": between(shuffle),
    "ReverseV2": between(lambda y: tf.reverse(y, (1, -2))),
    "Roll": between(lambda y: tf.roll(y, 1, axis=1)),
    "SpaceToDepth": between(lambda y: tf.nn.space_to_depth(y, 2)),
    "SpaceToDepth, yolo_v2's reorg in small operators": between(reorg),
    "Reorg as darknet has it": between(darknet_reorg),
    "DepthToSpace": between(lambda y: tf.nn.depth_to_space(y, 2)),
    "ResizeNearestNeighbor": between(lambda y: tf.image.resize(y, (12, 24), "nearest")),
    "ResizeNearestNeighbor (legacy)": between(lambda y: v1.resize_nearest_neighbor(y, (12, 24))),
    "ResizeNearestNeighbor (corners aligned)": between(lambda y: v1.resize_nearest_neighbor(y, (11, 15), align_corners=True)),
    "ResizeNearestNeighbor to a computed size": between(lambda y: tf.image.resize(y, 2 * tf.shape(y)[1:3], "nearest")),
    "ResizeNearestNeighbor by a fraction": between(lambda y: tf.image.resize(y, (7, 11), "nearest")),
    "ResizeNearestNeighbor to a half": between(lambda y: tf.image.resize(y, (3, 2), "nearest")),
    "UpSampling2D (nearest)": between(keras.layers.UpSampling2D(2)),
    "ResizeBilinear by 2 (half pixel)": between(lambda y: tf.image.resize(y, (12, 16))),
    "ResizeBilinear by 2 (legacy)": between(lambda y: v1.resize_bilinear(y, (12, 16))),
    "ResizeBilinear by 4 and 3": between(lambda y: tf.image.resize(y, (24, 24))),
    "ResizeBilinear, corners to corners": between(lambda y: v1.resize_bilinear(y, (11, 22), align_corners=True)),
    "ResizeBilinear to a half": between(lambda y: tf.image.resize(y, (3, 2))),
    "ResizeBilinear to a half (legacy)": between(lambda y: v1.resize_bilinear(y, (3, 2))),
    "ResizeBilinear from one element": between(lambda y: tf.image.resize(tf.reduce_mean(y, (1, 2), keepdims=True), (33, 33))),
    "ResizeNearestNeighbor (legacy) from 14 to 2": between(
        lambda y: v1.resize_nearest_neighbor(tf.concat([y, y, y], 1)[:, :14], (2, 8))
    ),
    "ResizeBilinear of signed numbers": behind(lambda y: tf.image.resize(y, (12, 16))),
    "UpSampling2D (bilinear)": between(keras.layers.UpSampling2D(2, interpolation="bilinear")),
    "MirrorPad REFLECT": between(padded(1, 2, 3, 0, mode="REFLECT")),
    "MirrorPad SYMMETRIC": between(padded(1, 2, 3, 0, mode="SYMMETRIC")),
    "Pad": between(padded(1, 2, 3, 0)),
    "Pad in front of Relu6": lambda x: tf.nn.relu6(padded(1, 0, 2, 1)(tf.nn.relu(conv(x))))[:, 1:],
    "PadV2 of a number": between(padded(1, 2, 3, 0, constant_values=0.8)),
    "PadV2 of a negative number behind Relu": between(padded(1, 2, 3, 0, constant_values=-1.3)),
    "PadV2 of -inf in front of MaxPool": behind(
        lambda y: tf.nn.max_pool2d(padded(1, 1, 0, 1, constant_values=-np.inf)(y), 3, 2, "VALID")
    ),
    "MaxPool in front of LeakyRelu": lambda x: conv(tf.nn.leaky_relu(tf.nn.max_pool2d(conv(x), 2, 2, "VALID"), 0.1)),
    "SpaceToDepth in front of LeakyRelu": lambda x: conv(tf.nn.leaky_relu(tf.nn.space_to_depth(conv(x), 2), 0.3)),
    "Tile": between(lambda y: tf.tile(y, (1, 2, 1, 2))),
    "BroadcastTo": between(lambda y: tf.broadcast_to(y[:, :1], tf.shape(y))),
    "Reshape": behind(lambda y: tf.reshape(y, (-1, 3, 64))),
    "Reshape in front of MatMul": lambda x: tf.matmul(tf.reshape(conv(x), (-1, 192)), np.eye(192, 3, dtype=np.float32)),
    "Squeeze": behind(lambda y: tf.squeeze(tf.nn.max_pool2d(y, (6, 8), 1, "VALID"), (1, 2))),
    "ExpandDims": behind(lambda y: tf.expand_dims(y, 1)),
    "Transpose": between(lambda y: tf.transpose(y, (0, 2, 1, 3))),
    "Transpose to another rank's axes": behind(lambda y: tf.transpose(tf.reshape(y, (-1, 6, 2, 4, 4)), (0, 4, 2, 1, 3))),
    "StopGradient, CheckNumerics, Identity": between(lambda y: tf.stop_gradient(tf.debugging.check_numerics(tf.identity(y), "y"))),
}


@pytest.mark.parametrize("name", MOVES)
def test_exact(name: str) -> None:
    journey = journey_of(MOVES[name])
    journey.assert_exact()
    record("operators", name, journey)


FLOAT: dict[str, tuple[Body, str]] = {
    "ResizeBilinear (corners aligned) by 2": (
        between(lambda y: v1.resize_bilinear(y, (12, 16), align_corners=True)),
        "bilinear from 6 to 12 does not take corners to corners in whole steps",
    ),
    "ResizeBilinear by a fraction": (
        between(lambda y: tf.image.resize(y, (9, 8))),
        "bilinear from 6 to 9 is not by a whole factor",
    ),
    "ResizeBicubic": (between(lambda y: tf.image.resize(y, (12, 16), "bicubic")), "mode 'cubic' has no fixed-point form here"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_what_stays_float_says_why(name: str) -> None:
    body, reason = FLOAT[name]
    journey = journey_of(body, settings=((8, 16), (4, 32)))
    journey.assert_exact(islands=["Resize"])
    (island,) = journey.quantizations[8, 16].float_layers
    assert island.reason == f"resize: {reason}"
    record("operators", name, journey)


def test_batches_of_none_and_one() -> None:
    """Every kind of move in one network, calibrated on some images and run on fewer."""

    def body(x: Any) -> Any:
        y = tf.nn.relu(conv(x))
        y = tf.image.resize(padded(1, 1, 0, 2, mode="SYMMETRIC")(y), (16, 20))
        y = conv(padded(0, 1, 1, 0, constant_values=0.5)(padded(1, 2, 2, 2, mode="REFLECT")(shuffle(y))))
        parts = tf.split(tf.tile(tf.reverse(tf.nn.space_to_depth(y[:, 2:, 1:], 2), (1,)), (1, 1, 2, 1)), 2, -1)
        return (
            tf.image.resize(parts[0], (18, 48), "nearest") + tf.gather(tf.nn.depth_to_space(y, 2), (0,) * 8, axis=-1)[:, :18, :48]
        )

    journey = journey_of(body, settings=((8, 16),))
    journey.assert_exact()
    model = journey.quantizations[8, 16].model
    one = np.random.default_rng(3).normal(size=(1, *SHAPE)).astype(np.float32)
    assert check(model, one, engines=("oracle", "ort", "tf")).differences == ()
    (empty,) = Oracle(model).run({"x": one[:0]}, keep=[str(model.graph.outputs[0].name)]).values()
    assert isinstance(empty, FixedPoint) and empty.integers.shape == (0, 18, 48, 8)
