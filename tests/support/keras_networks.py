"""Networks of `keras.applications` without their training: random weights and batch norms that keep signals alive at any depth."""

from __future__ import annotations

from typing import Any

import numpy as np

IMAGES = 8
"""What batch norms take the loudness of their inputs from."""


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
    """Gives every layer weights and every batch norm statistics, the same ones each time.

    Kernels are drawn for relus. A batch norm's mean and variance are random around the loudness of its input, measured in one
    pass in training mode and rounded to a power of two: the last bits of a sum, which depend on the machine's kernels, stay out.
    """
    import keras

    keras.utils.set_random_seed(seed)  # the pass in training mode has dropout
    rng = np.random.default_rng(seed)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in model.layers:
        if layer not in norms:
            single = isinstance(layer, keras.layers.DepthwiseConv2D)
            for weight in layer.trainable_weights:
                weight.assign(_drawn(weight.shape, single or "depthwise" in weight.name, rng))
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    size = model.input_shape[1]
    model(images(model.name, size, IMAGES), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        loudness = np.exp2(np.round(np.log2(np.sqrt((variance + mean**2).mean()) + 1e-6)))
        layer.moving_mean.assign(loudness * rng.normal(0, 0.3, mean.shape))
        layer.moving_variance.assign(loudness**2 * rng.uniform(0.5, 2, mean.shape))
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.5, 1.5, mean.shape))
        if layer.center:
            layer.beta.assign(rng.normal(0, 0.3, mean.shape))


def _drawn(shape: tuple[int, ...], depthwise: bool, rng: np.random.Generator) -> Any:
    if len(shape) < 2:
        return rng.normal(0, 0.2, shape)
    taps = np.prod(shape[:-2] if depthwise else shape[:-1])
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / taps))
