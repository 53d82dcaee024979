"""From a live Keras model to proven fixed point in Python, without the command line.

    python examples/quantize_keras_model.py

Builds a small untrained network (any `keras.Model` will do), converts, quantizes with both contracts, checks and saves.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

import tqt_onnx


def network() -> keras.Model:
    """A small network with a batch norm and a residual."""
    x = inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = shortcut = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(8, 3, padding="same")(x)
    x = keras.layers.ReLU(max_value=6.0)(keras.layers.Add()([x, shortcut]))
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    """Runs the road twice and prints what was proven."""
    images = np.random.default_rng(0).uniform(-1, 1, (64, 16, 16, 3)).astype(np.float32)
    conversion = tqt_onnx.convert(network())
    print(f"ONNX differs from TensorFlow by {conversion.difference:.1e} of the output's range")
    for layer_bits in (16, 32):
        result = tqt_onnx.quantize(conversion.model, images[:32], bits=tqt_onnx.BitWidths(layer=layer_bits))
        check = tqt_onnx.check(result.model, images[32:], engines=("oracle", "ort", "tf"))
        compared = ", ".join(f"{engine} {count:,}" for engine, count in check.integers.items())
        print(f"{result.graph.contract}: exact {check.ok}, certified {check.certified}; integers compared: {compared}")
        with tempfile.TemporaryDirectory() as folder:
            path = tqt_onnx.save(result.model, Path(folder) / "model.q.onnx")
            print(f"  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
