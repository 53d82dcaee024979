"""Operators that multiply by weights and accumulate: from TensorFlow the whole road (L1, L2, L10, L11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from whole_road import ALL, NETWORK, record, take

nn, layers = tf.nn, keras.layers
IMAGE = (7, 6, 4)

Body = Callable[[tf.Tensor], tf.Tensor]


def weights(*shape: int) -> tf.Tensor:
    """Numbers that keep the size of what they multiply."""
    scale = 1 / np.sqrt(np.prod(shape[:-1]) or 1)
    return tf.constant(np.random.default_rng(sum(shape)).normal(0, scale, shape).astype(np.float32))


def terms(channels: int) -> tf.Tensor:
    return tf.linspace(-1.0, 1.0, channels)


def between(body: Body, shape: Sequence[int] = IMAGE) -> Any:
    """The operator between two 1 x 1 convolutions (or matrices), which keep their 8 bits where it has 4 (L9)."""

    @tf.function(input_signature=[tf.TensorSpec([None, *shape])])
    def net(x: tf.Tensor) -> tf.Tensor:
        y = body(nn.relu(_mixed(x, shape[-1])))
        return _mixed(y, 3)

    return net


def _mixed(x: tf.Tensor, channels: int) -> tf.Tensor:
    kernel = weights(x.shape[-1], channels)
    return nn.conv2d(x, kernel[None, None], 1, "VALID") if x.shape.rank == 4 else tf.tensordot(x, kernel, 1)


def images(shape: Sequence[int], count: int = 3) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, *shape)).astype(np.float32)


def in_batches(x: tf.Tensor, block: int, pads: Any, crops: Any, *, depthwise: bool = False) -> tf.Tensor:
    """A dilated convolution as TensorFlow 1 wrote it."""
    wide = tf.space_to_batch(x, [block, block], pads)
    y = (
        nn.depthwise_conv2d(wide, weights(3, 3, 4, 1), [1] * 4, "VALID")
        if depthwise
        else nn.conv2d(wide, weights(3, 3, 4, 5), 1, "VALID")
    )
    return tf.batch_to_space(y, [block, block], crops)


def deconvolution(x: tf.Tensor, target: Sequence[int], kernel: Sequence[int], strides: Any, padding: Any) -> tf.Tensor:
    shape = tf.stack([tf.shape(x)[0], *target, 5])
    return nn.conv2d_transpose(x, weights(*kernel, 5, x.shape[-1]), shape, strides, padding)


CONVOLUTIONS: dict[str, Body] = {
    "Conv2D SAME, strides 2, BiasAdd": lambda x: nn.bias_add(nn.conv2d(x, weights(3, 3, 4, 5), 2, "SAME"), terms(5)),
    "Conv2D VALID, unequal strides, Relu": lambda x: nn.relu(nn.conv2d(x, weights(3, 2, 4, 5), [2, 1], "VALID")),
    "Conv2D EXPLICIT": lambda x: nn.conv2d(x, weights(3, 3, 4, 5), 1, [[0, 0], [2, 0], [1, 3], [0, 0]]),
    "Conv2D dilations 2": lambda x: nn.conv2d(x, weights(3, 3, 4, 5), 1, "SAME", dilations=2),
    "Conv2D larger than the image": lambda x: nn.conv2d(x, weights(9, 8, 4, 5), 1, "SAME"),
    "Conv2D of 2 groups": lambda x: nn.conv2d(x, weights(3, 3, 2, 6), 1, "SAME"),
    "Conv2D, no BiasAdd, LeakyRelu": lambda x: nn.leaky_relu(nn.conv2d(x, weights(3, 3, 4, 5), 1, "SAME"), 0.1),
    "SpaceToBatchND, Conv2D": lambda x: in_batches(x, 2, [[2, 3], [2, 2]], [[0, 1], [0, 0]]),
    "SpaceToBatchND, DepthwiseConv2dNative": lambda x: in_batches(x, 2, [[0, 1], [0, 0]], [[0, 0], [0, 0]], depthwise=True),
    "SpaceToBatchND, Conv2D, block 4": lambda x: in_batches(x, 4, [[4, 9], [4, 6]], [[0, 1], [0, 2]]),
    "DepthwiseConv2dNative": lambda x: nn.depthwise_conv2d(x, weights(3, 3, 4, 1), [1, 2, 2, 1], "SAME"),
    "DepthwiseConv2dNative, multiplier 2, Relu6": lambda x: nn.relu6(
        nn.depthwise_conv2d(x, weights(3, 3, 4, 2), [1, 1, 1, 1], "VALID")
    ),
    "DepthwiseConv2dNative dilations 2": lambda x: nn.depthwise_conv2d(x, weights(3, 3, 4, 1), [1] * 4, "SAME", dilations=[2, 2]),
    "DepthwiseConv2dNative, Conv2D 1x1": lambda x: nn.separable_conv2d(
        x, weights(3, 3, 4, 2), weights(1, 1, 8, 5), [1] * 4, "SAME"
    ),
}

TRANSPOSED: dict[str, Body] = {
    "Conv2DBackpropInput SAME, strides 2": lambda x: deconvolution(x, (14, 12), (3, 3), 2, "SAME"),
    "Conv2DBackpropInput SAME, odd target": lambda x: deconvolution(x, (13, 11), (4, 3), 2, "SAME"),
    "Conv2DBackpropInput VALID, strides 3": lambda x: nn.relu(deconvolution(x, (21, 18), (2, 3), 3, "VALID")),
    "Conv2DBackpropInput, unequal strides": lambda x: deconvolution(x, (7, 12), (3, 4), [1, 2], "SAME"),
    "Conv2DBackpropInput EXPLICIT": lambda x: deconvolution(x, (13, 11), (3, 3), 2, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "Conv2DBackpropInput 1x1, strides 2": lambda x: deconvolution(x, (14, 12), (1, 1), 2, "SAME"),
    "Conv2DBackpropInput, AddV2": lambda x: nn.relu(
        deconvolution(nn.max_pool2d(x, 2, 2, "SAME"), (7, 6), (3, 3), 2, "SAME") + nn.conv2d(x, weights(1, 1, 4, 5), 1, "SAME")
    ),
}

MATRICES: dict[str, tuple[Body, tuple[int, ...]]] = {
    "MatMul": (lambda x: nn.relu(tf.matmul(x, weights(10, 8)) + terms(8)), (10,)),
    "MatMul, transpose_b": (lambda x: tf.matmul(x, weights(8, 10), transpose_b=True), (10,)),
    "MatMul of rank 3": (lambda x: nn.relu(tf.tensordot(x, weights(10, 8), 1) + terms(8)), (5, 10)),
    "Einsum": (lambda x: tf.einsum("nij,jk->nik", x, weights(10, 8)), (5, 10)),
    "BatchMatMulV2, constant batch": (lambda x: tf.matmul(x, weights(5, 10, 6)), (5, 4, 10)),
    "BatchMatMulV2, constant on the left": (lambda x: tf.matmul(weights(7, 5), x), (5, 10)),
    "ExpandDims, Conv2D, Squeeze": (lambda x: nn.relu(nn.conv1d(x, weights(3, 4, 6), 2, "SAME")), (9, 4)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS | TRANSPOSED)
def test_images(name):
    journey = take(between((CONVOLUTIONS | TRANSPOSED)[name]), images(IMAGE), settings=NETWORK)
    journey.assert_exact()
    record("operators", name, journey)


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_and_sequences(name):
    body, shape = MATRICES[name]
    journey = take(between(body, shape), images(shape), settings=NETWORK)
    journey.assert_exact()
    record("operators", name, journey)


@pytest.mark.parametrize(
    ("name", "made"),
    {
        "Conv2DTranspose SAME": lambda: [layers.Conv2DTranspose(5, 3, 2, "same", activation="relu")],
        "Conv2DTranspose, output_padding": lambda: [layers.Conv2DTranspose(5, 3, 3, "valid", output_padding=1)],
        "Conv2DTranspose, dilation_rate": lambda: [layers.Conv2DTranspose(5, 3, padding="same", dilation_rate=2)],
        "Conv2DTranspose, BatchNormalization": lambda: [
            layers.Conv2DTranspose(5, 4, 2, "same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
        ],
        "Conv2D, groups": lambda: [layers.Conv2D(8, 3, padding="same", groups=4, activation="relu")],
        "SeparableConv2D": lambda: [layers.SeparableConv2D(5, 3, depth_multiplier=2)],
    }.items(),
)
def test_keras_layers(name, made):
    keras.utils.set_random_seed(3)
    x = keras.Input(IMAGE)
    y = layers.Conv2D(4, 1, activation="relu")(x)
    for layer in made():
        y = layer(y)
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.linspace(low, high, 5) for low, high in ((0.5, 2), (-1, 1), (1, -1), (0.2, 3))])
    journey = take(keras.Model(x, layers.Conv2D(3, 1)(y)), images(IMAGE), settings=NETWORK)
    journey.assert_exact()
    record("operators", name, journey)


def test_a_transposed_convolution_at_every_setting():
    journey = take(between(TRANSPOSED["Conv2DBackpropInput SAME, strides 2"]), images(IMAGE), settings=ALL)
    journey.assert_exact()
    record("operators", "Conv2DBackpropInput", journey)


def onnx_file(op: str, shape: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """One layer between two 1 x 1 convolutions, as no TensorFlow graph has it."""
    rng = np.random.default_rng(1)
    channels = shape[1] * attributes["group"] if op == "ConvTranspose" else shape[0]
    arrays = {"v": (8, 3, 1, 1), "w": shape, "b": (channels,), "u": (4, channels, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["c"]),
        helper.make_node(op, ["c", "w", "b"], ["d"], **attributes),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Conv", ["r", "u"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 7, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(rng.normal(0, 0.5, size).astype(np.float32), name) for name, size in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    ("name", "op", "shape", "attributes"),
    [
        ("Conv, group 4 (ONNX)", "Conv", (12, 2, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ("ConvTranspose, group 4 (ONNX)", "ConvTranspose", (8, 3, 3, 3), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("ConvTranspose, depthwise (ONNX)", "ConvTranspose", (8, 1, 4, 4), {"group": 8, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (
            "ConvTranspose, output_shape (ONNX)",
            "ConvTranspose",
            (8, 5, 3, 3),
            {"group": 1, "strides": [2, 2], "output_shape": [14, 12]},
        ),
    ],
)
def test_onnx_files(tmp_path, name, op, shape, attributes):
    onnx.save(onnx_file(op, shape, **attributes), tmp_path / "model.onnx")
    journey = take(tmp_path / "model.onnx", images((3, 7, 6)), settings=NETWORK)
    journey.assert_exact()
    record("styles", name, journey)
