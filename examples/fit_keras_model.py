"""4-bit weights trained with plain `model.fit`: for people with a training loop, a loss or callbacks of their own.

    python examples/fit_keras_model.py

Trains a small float network on scikit-learn's digits, quantizes it to 4-bit weights in static mode, then trains the quantized
network (weights, batch norms and thresholds together) with `compile` and `fit`, writes it back and proves it exact.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import tqt_onnx
from tqt_onnx.datasets import open_array

Array = npt.NDArray[Any]


def network() -> keras.Model:
    """Two convolutions with batch norms."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Dense(24, activation="relu")(keras.layers.GlobalMaxPooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="digit")(x))


def data() -> tuple[Array, Array, Array, Array]:
    """Training and test digits with labels."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1300], order[1300:]
    return images[train], digits.target[train], images[test], digits.target[test]


def main() -> None:
    """Runs the road and prints accuracies."""
    keras.utils.set_random_seed(0)
    x, y, x_test, y_test = data()
    floating = network()
    floating.compile("adam", "sparse_categorical_crossentropy")
    floating.fit(x, y, epochs=30, verbose=0)

    source = tqt_onnx.convert(floating, keep_batch_norm=True).model
    int4 = tqt_onnx.BitWidths(weight=4)
    static = tqt_onnx.quantize(source, x[:100], bits=int4)

    model = tqt_onnx.to_keras(source, x[:100], bits=int4)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=10, verbose=2)
    trained = tqt_onnx.from_keras(model)

    models = {"float": source, "int4 static": static.model, "int4 trained": trained.model}
    result = tqt_onnx.evaluate(models, open_array(x_test, labels=y_test))
    for one in result.models:
        print(f"{one.name}: {one.top1_share:.2%} of {one.count} test digits")
    check = tqt_onnx.check(trained.model, x_test, engines=("oracle", "ort", "tf"))
    print(f"oracle = onnxruntime = TensorFlow, bit for bit: {check.ok}")


if __name__ == "__main__":
    main()
