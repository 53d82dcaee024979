"""Dilated convolutions in float64 (windows beyond the image, layers without certificate) have gradients too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tqt_onnx


@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_window_beyond_the_image_trains(dilation: int, groups: int) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 4), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", dilation_rate=dilation, groups=groups)(inputs)
    source = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(2).normal(size=(4, 8, 8, 4)).astype(np.float32)
    network = tqt_onnx.to_keras(tqt_onnx.convert(source).model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(images) ** 2)
    received = tape.gradient(loss, [variable.value for variable in network.trainable_variables])
    with tf.GradientTape() as tape:
        expected_loss = tf.reduce_sum(source(images) ** 2)
    expected = tape.gradient(expected_loss, [variable.value for variable in source.trainable_variables])
    assert abs(float(loss - expected_loss)) <= 1e-4 * float(expected_loss)
    norms = sorted(float(tf.norm(gradient)) for gradient in received)
    assert norms == pytest.approx(sorted(float(tf.norm(gradient)) for gradient in expected), rel=1e-4)  # float32 sums
