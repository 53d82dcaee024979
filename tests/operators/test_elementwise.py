"""Elementwise operators of one and two tensors, from TensorFlow the whole road (L2-L5, L13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from whole_road import ALL, NETWORK, record, take

C = 6
"""Channels of every branch."""


def numbers(*shape: int, low: float = -1.0, high: float = 1.0) -> Any:
    return np.random.default_rng(sum(shape)).uniform(low, high, shape).astype(np.float32)


def conv(x: Any, channels: int = C, kernel: int = 1, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.6, (kernel, kernel, x.shape[-1], channels)).astype(np.float32)
    return tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), rng.normal(0, 0.3, channels).astype(np.float32))


def relu(x: Any, seed: int = 0) -> Any:
    return tf.nn.relu(conv(x, seed=seed))


def mean(x: Any) -> Any:
    return tf.reduce_mean(x, (1, 2), keepdims=True)


def dense(x: Any, channels: int, seed: int = 0) -> Any:
    return tf.matmul(x, np.random.default_rng(seed).normal(0, 0.6, (x.shape[-1], channels)).astype(np.float32))


def journey_of(body: Callable[[Any], Any], shape: tuple[int, ...] = (5, 4, 3), **options: Any) -> Any:
    source = tf.function(body, input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="x")])
    images = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    return take(source, images, **options)


def squeeze_and_excite(x: Any) -> Any:
    h = relu(x)
    return conv(h * tf.nn.relu6(conv(tf.nn.relu(conv(mean(h), 2)), C)), 2)


def squeeze_and_excite_by_dense_layers(x: Any) -> Any:
    h = conv(x)
    gate = tf.nn.relu6(dense(tf.nn.relu(dense(tf.reduce_mean(h, (1, 2)), 3)), C))
    return h * tf.reshape(gate, (-1, 1, 1, C)) + conv(x, seed=4)


PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "Mul of two tensors": lambda x: conv(x) * conv(x, seed=1),
    "Mul of two tensors, then Conv2D": lambda x: conv(conv(x) * relu(x, 1), 2),
    "Mul of two relus": lambda x: conv(relu(x) * relu(x, 1), 2),
    "Mul, then Relu": lambda x: conv(tf.nn.relu(conv(x) * conv(x, seed=1)), 2),
    "Mul, then Relu6": lambda x: conv(tf.nn.relu6(4 * conv(x) * conv(x, seed=1)), 2),
    "Mul, then LeakyRelu": lambda x: conv(tf.nn.leaky_relu(conv(x) * conv(x, seed=1), 0.1), 2),
    "Mul of a tensor with itself": lambda x: conv(tf.multiply(h := conv(x), h), 2),
    "Mul with a pooled and enlarged self": lambda x: (h := relu(x)) * tf.nn.max_pool2d(h, 3, 1, "SAME"),
    "Mul of a graph input": lambda x: x * conv(x, 3),
    "Mul by one number per image and channel (squeeze and excite)": squeeze_and_excite,
    "Mul by a gate from dense layers": squeeze_and_excite_by_dense_layers,
    "Mul by a spatial attention map": lambda x: conv((h := conv(x)) * tf.nn.relu6(conv(h, 1, 3)), 2),
    "Mul by a position map": lambda x: conv(relu(x) * numbers(1, 5, 4, C), 2),
    "Mul of a product": lambda x: conv(relu(x) * relu(x, 1) * conv(x, seed=2), 2),
    "Mul in a residual branch": lambda x: (h := conv(x)) + h * conv(x, seed=1),
    "Square of a layer": lambda x: conv(tf.square(conv(x)), 2),
    "SquaredDifference with a constant": lambda x: conv(tf.math.squared_difference(conv(x), numbers(C)), 2),
    "SquaredDifference of two tensors": lambda x: conv(tf.math.squared_difference(conv(x), conv(x, seed=1)), 2),
}

SUMS: dict[str, Callable[[Any], Any]] = {
    "Sub of two tensors": lambda x: conv(conv(x) - conv(x, seed=1), 2),
    "Sub of two relus": lambda x: relu(x) - relu(x, 1),
    "Sub of two tensors, then Relu": lambda x: conv(tf.nn.relu(conv(x) - relu(x, 1)), 2),
    "Sub of an identity shortcut": lambda x: conv(conv(h := relu(x), seed=1) - h, 2),
    "Sub of what is pooled": lambda x: (h := conv(x)) - tf.nn.max_pool2d(h, 3, 1, "SAME"),
    "Sub of a mean": lambda x: conv((h := conv(x)) - mean(h), 2),
    "Sub of a constant": lambda x: conv(tf.nn.max_pool2d(relu(x) - 0.25, 2, 2, "VALID"), 2),
    "Sub of a channel vector": lambda x: conv(tf.nn.relu(relu(x) - numbers(C)), 2),
    "Sub from a constant": lambda x: conv(1.0 - relu(x), 2),
    "Sub from a position map": lambda x: conv(numbers(5, 4, C) - relu(x), 2),
    "AddV2 of two tensors": lambda x: conv(conv(x) + conv(x, seed=1), 2),
    "Add of a tensor with itself": lambda x: conv(tf.raw_ops.Add(x=(h := conv(x)), y=h), 2),
    "Add of three branches": lambda x: conv(relu(x) + conv(x, seed=1) + conv(x, seed=2), 2),
    "Add of a constant": lambda x: conv(tf.nn.max_pool2d(relu(x), 2, 2, "VALID") + 0.5, 2),
    "Add of a position map": lambda x: conv(relu(x) + numbers(1, 5, 4, C), 2),
    "AddN": lambda x: tf.nn.relu(tf.add_n([conv(x), relu(x, 1), conv(x, seed=2), conv(x, seed=3)])),
    "BiasAdd": conv,
    "BiasAdd behind a pool": lambda x: conv(tf.nn.bias_add(tf.nn.max_pool2d(relu(x), 2, 2, "VALID"), numbers(C)), 2),
    "BiasAdd of the input": lambda x: conv(tf.nn.bias_add(x, numbers(3)), 2),
}

CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "Mul by a constant": lambda x: conv(x / 2 * 3, 2),
    "Mul by a channel vector": lambda x: conv(relu(x) * numbers(C), 2, 3),
    "Mul by a channel vector between relus": lambda x: tf.nn.relu(relu(x) * numbers(C)),
    "Mul by a channel vector behind a pool": lambda x: tf.nn.max_pool2d(relu(x), 2, 1, "VALID") * numbers(C),
    "Mul by a constant in front of Add": lambda x: conv(x) + relu(x, 1) * 0.3,
    "Mul by a constant in front of Softmax": lambda x: tf.nn.softmax(dense(tf.reduce_mean(relu(x), (1, 2)), 4) * 0.3),
    "RealDiv by a constant": lambda x: conv(tf.nn.max_pool2d(relu(x), 2, 1, "VALID") / 3.0, 2),
    "RealDiv by a position map": lambda x: conv(relu(x) / numbers(5, 4, C, low=0.5, high=3), 2),
    "Maximum with a constant": lambda x: conv(tf.maximum(conv(x), 0.1), 2),
    "Minimum with a constant": lambda x: conv(tf.minimum(conv(x), 0.3), 2),
    "Maximum with a channel vector": lambda x: conv(tf.maximum(conv(x), numbers(C)), 2),
}

SELECTIONS: dict[str, Callable[[Any], Any]] = {
    "Maximum of two tensors": lambda x: conv(tf.maximum(conv(x), conv(x, seed=1)), 2),
    "Minimum of two tensors": lambda x: conv(tf.minimum(conv(x), conv(x, seed=1)), 2),
    "Maximum of three tensors": lambda x: tf.maximum(tf.maximum(conv(x), relu(x, 1)), conv(x, seed=2)),
    "Maximum of two relus": lambda x: conv(tf.maximum(relu(x), relu(x, 1)), 2),
    "Maximum of unlike signs": lambda x: conv(tf.maximum(conv(x), relu(x, 1)), 2),
    "Maximum, then Relu": lambda x: conv(tf.nn.relu(tf.maximum(conv(x), conv(x, seed=1))), 2),
    "Maximum of two relus, then Relu6": lambda x: conv(tf.nn.relu6(tf.maximum(3 * relu(x), 9 * relu(x, 1))), 2),
    "Maximum, then LeakyRelu": lambda x: conv(tf.nn.leaky_relu(tf.maximum(conv(x), conv(x, seed=1)), 0.3), 2),
    "Maximum of a shortcut": lambda x: conv(tf.maximum(conv(h := relu(x), seed=1), h), 2),
    "Maximum, added to a shortcut": lambda x: tf.maximum(h := conv(x), conv(x, seed=1)) + h,
    "Maxout of a split": lambda x: conv(tf.maximum(*tf.split(conv(x, 2 * C), 2, 3)), 2),
}

RELUS: dict[str, Callable[[Any], Any]] = {
    "Relu": lambda x: conv(relu(x), 2),
    "Relu6": lambda x: conv(tf.nn.relu6(5 * conv(x)), 2),
    "Minimum/Maximum as ReluN": lambda x: conv(tf.minimum(tf.maximum(2 * conv(x), 0.0), 2.0), 2),
    "LeakyRelu": lambda x: conv(tf.nn.leaky_relu(conv(x), 0.1), 2),
    "Maximum(a*x, x)": lambda x: conv(tf.maximum(0.2 * (h := conv(x)), h), 2),
    "LeakyRelu as 0.5*(1+a)*x + 0.5*(1-a)*Abs(x)": lambda x: conv(0.6 * (h := conv(x)) + 0.4 * tf.abs(h), 2),
}

SLOPES = np.array([0.25, 0.0, 0.1, -0.2, 0.9, 1.0], np.float32)
STEEP = np.array([1.25, 1.0, 2.0, 1.5, 3.0, 1.1], np.float32)
MIXED = np.array([0.25, 1.5, -0.1, 1.0, 0.0, 2.0], np.float32)


def keras_prelu(alpha: Any, shared: tuple[int, ...] = (1, 2)) -> Any:
    inputs = tf.keras.Input((5, 4, 3))
    layer = tf.keras.layers.PReLU(shared_axes=shared or None, alpha_initializer=lambda shape, dtype=None: tf.reshape(alpha, shape))
    return tf.keras.Model(inputs, tf.keras.layers.Conv2D(2, 1)(layer(tf.keras.layers.Conv2D(C, 1)(inputs))))


PARAMETRIC: dict[str, Callable[[Any], Any]] = {
    "PRelu per channel: Relu(x) + a*(x - Abs(x))*0.5": lambda x: conv(tf.nn.relu(h := conv(x)) + SLOPES * (h - tf.abs(h)) * 0.5, 2),
    "PRelu per channel: Maximum(0, x) + a*Minimum(0, x)": lambda x: conv(
        tf.maximum(0.0, h := conv(x)) + SLOPES * tf.minimum(0.0, h), 2
    ),
    "PRelu per channel: Relu(x) - a*Relu(-x)": lambda x: conv(tf.nn.relu(h := conv(x)) - SLOPES * tf.nn.relu(-h), 2),
    "PRelu per channel: Maximum(a*x, x)": lambda x: conv(tf.maximum(SLOPES * (h := conv(x)), h), 2),
    "PRelu per channel, slopes above 1": lambda x: conv(tf.nn.relu(h := conv(x)) - STEEP * tf.nn.relu(-h), 2),
    "PRelu per channel, slopes on both sides of 1": lambda x: conv(tf.nn.relu(h := conv(x)) - MIXED * tf.nn.relu(-h), 2),
    "PRelu per channel of a pool": lambda x: conv(
        tf.nn.relu(h := tf.nn.max_pool2d(conv(x), 2, 1, "VALID")) - SLOPES * tf.nn.relu(-h), 2
    ),
    "PRelu per channel of a sum, then Add": lambda x: tf.nn.relu(h := conv(x) + conv(x, seed=1)) - SLOPES * tf.nn.relu(-h) + h,
    "PRelu of a matrix": lambda x: dense(tf.nn.relu(h := dense(tf.reduce_mean(conv(x), (1, 2)), C)) - SLOPES * tf.nn.relu(-h), 3),
}

ALL_OF_THEM = {**PRODUCTS, **SUMS, **CONSTANTS, **SELECTIONS, **RELUS, **PARAMETRIC}


EVERY_SETTING = {
    "Mul of two tensors",
    "Sub of two tensors",
    "Maximum of two tensors",
    "Mul by one number per image and channel (squeeze and excite)",
    "PRelu per channel: Relu(x) - a*Relu(-x)",
    "PRelu per channel, slopes on both sides of 1",
}
"""Rows that are taken at both widths in both contracts; the others at each width and in each contract once."""


@pytest.mark.parametrize("name", ALL_OF_THEM)
def test_exact(name: str) -> None:
    journey = journey_of(ALL_OF_THEM[name], settings=ALL if name in EVERY_SETTING else NETWORK)
    journey.assert_exact()
    record("operators", name, journey)


@pytest.mark.parametrize(
    ("name", "alpha", "shared"),
    [
        ("PReLU of Keras, per channel", SLOPES, (1, 2)),
        ("PReLU of Keras, per channel, on both sides of 1", MIXED, (1, 2)),
        ("PReLU of Keras, per element", numbers(5, 4, C, low=-0.2, high=0.9), ()),
    ],
)
def test_keras_prelu(name: str, alpha: Any, shared: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).normal(size=(4, 5, 4, 3)).astype(np.float32)
    journey = take(keras_prelu(alpha, shared), images)
    journey.assert_exact()
    record("operators", name, journey)
