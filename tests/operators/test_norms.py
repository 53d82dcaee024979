"""Normalizations with statistics of their own for every input: float islands between quantized layers (L12)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from whole_road import NETWORK, record, take

RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)
FIRST = (RNG.normal(size=(3, 3, 3, 8)) * 0.4).astype(np.float32)
SECOND = (RNG.normal(size=(3, 3, 8, 4)) * 0.3).astype(np.float32)
GAMMA = RNG.uniform(0.5, 1.5, 8).astype(np.float32)
BETA = RNG.normal(size=8).astype(np.float32)

layers = keras.layers


def function(norm: Any) -> Any:
    """Convolution, relu, a normalization, convolution."""

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")])
    def network(x: Any) -> Any:
        x = tf.nn.relu(tf.nn.conv2d(x, FIRST, 1, "SAME"))
        return tf.nn.conv2d(norm(x), SECOND, 1, "SAME", name="y")

    return network


def model(layer: Any, *, tokens: bool = False) -> Any:
    """The same with a Keras layer, on an image or on its positions in a row; its parameters are drawn."""
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layer(layers.Reshape((64, 8))(x)) if tokens else layer(x)
    x = layers.Dense(4)(x) if tokens else layers.Conv2D(4, 3, padding="same")(x)
    network = keras.Model(inputs, x)
    rng = np.random.default_rng(3)
    for weight in network.weights:
        weight.assign(rng.normal(0.8 if "gamma" in weight.path or "scale" in weight.path else 0.0, 0.3, weight.shape))
    return network


def moments(*axes: int) -> Any:
    def norm(x: Any) -> Any:
        mean, variance = tf.nn.moments(x, axes, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, BETA, GAMMA, 1e-3)

    return norm


def of_squares(x: Any) -> Any:
    """The variance as E[x^2] - E[x]^2."""
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x), -1, keepdims=True) - tf.square(mean)
    return (x - mean) / tf.sqrt(variance + 1e-2) * GAMMA + BETA


def rms(x: Any) -> Any:
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-3) * GAMMA


LAYER = ["LayerNormalization"]
QUOTIENT = ["Div", "ReduceSumSquare", "Sqrt"]

NORMS = {
    "Layer normalization (Keras)": (lambda: model(layers.LayerNormalization()), LAYER),
    "Layer normalization of tokens (Keras)": (lambda: model(layers.LayerNormalization(), tokens=True), LAYER),
    "Layer normalization, E[x^2] - m^2": (lambda: function(of_squares), LAYER),
    "tf.nn.moments over channels": (lambda: function(moments(3)), LAYER),
    "tf.nn.moments over height, width and channels": (lambda: function(moments(1, 2, 3)), LAYER),
    "InstanceNorm (moments over H,W)": (lambda: function(moments(1, 2)), ["InstanceNormalization"]),
    "GroupNorm (Keras)": (lambda: model(layers.GroupNormalization(4)), [*LAYER, "Add", "Mul"]),
    "RMS normalization": (lambda: function(rms), [*QUOTIENT, "Add"]),
    "RMS normalization (Keras)": (lambda: model(layers.RMSNormalization()), [*QUOTIENT, "Add"]),
    "l2_normalize": (lambda: function(lambda x: tf.nn.l2_normalize(x, -1)), [*QUOTIENT, "Clip"]),
    "UnitNormalization (Keras)": (lambda: model(layers.UnitNormalization()), [*QUOTIENT, "Clip"]),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalization(name):
    build, islands = NORMS[name]
    journey = take(build(), IMAGES, settings=NETWORK)
    journey.assert_exact(islands)
    record("operators", name, journey)
