"""Networks of `keras.applications` without their training: random weights and batch norms that keep signals alive at any depth."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np


def application(name: str, size: int, classes: int = 10, **options: Any) -> Any:
    """A network of `keras.applications` for square images, with a small classifier.

    Args:
        name: of its function, `ResNet50` for instance.
        size: height and width.
        classes: of the classifier.
        **options: more for that function.
    """
    import keras

    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=classes, **options)
    enliven(model)
    return model


def images(name: str, size: int, count: int) -> Any:
    """Inputs of the range that the network expects: those that scale pixels themselves get pixels."""
    rng = np.random.default_rng(1)
    smooth = rng.uniform(-1, 1, (count, -(-size // 4), -(-size // 4), 3)).repeat(4, 1).repeat(4, 2)[:, :size, :size]
    noisy = np.clip(smooth + rng.normal(0, 0.2, smooth.shape), -1, 1)
    pixels = name.lower().startswith(("efficientnet", "mobilenetv3", "convnext"))
    return (127.5 * (noisy + 1) if pixels else noisy).astype(np.float32)


def enliven(model: Any, seed: int = 0) -> None:
    """Gives every layer weights and every batch norm parameters and statistics, the same ones each time.

    Kernels are drawn for relus. The network runs once on two images, and every batch norm on its way takes mean and variance
    around the loudness of its input, rounded to a power of two: the last bits of sums, which depend on the machine's kernels,
    stay out.
    """
    import keras

    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            for weight in layer.trainable_weights:
                weight.assign(_drawn(weight.shape, depthwise or "depthwise" in weight.name, rng))
    unchanged = keras.layers.BatchNormalization.call

    def measured(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        array = np.asarray(inputs)
        _settle(layer, 2.0 ** round(np.log2(np.sqrt(np.square(array).mean()) + 1e-6)), rng)
        return unchanged(layer, inputs, training=False)

    with patch.object(keras.layers.BatchNormalization, "call", measured):
        model(images(model.name, model.input_shape[1], 2))


def _settle(norm: Any, loudness: float, rng: np.random.Generator) -> None:
    channels = norm.moving_mean.shape
    norm.moving_mean.assign(loudness * rng.normal(0, 0.3, channels))
    norm.moving_variance.assign(loudness**2 * rng.uniform(0.5, 2, channels))
    if norm.scale:
        norm.gamma.assign(rng.uniform(0.5, 1.5, channels))
    if norm.center:
        norm.beta.assign(rng.normal(0, 0.3, channels))


def _drawn(shape: tuple[int, ...], depthwise: bool, rng: np.random.Generator) -> Any:
    if len(shape) < 2:
        return rng.normal(0, 0.2, shape)
    taps = np.prod(shape[:-2] if depthwise else shape[:-1])
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / taps))
