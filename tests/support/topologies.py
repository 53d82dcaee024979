"""Every topology of the L rules as a TensorFlow network of its own, with the reason why it is quantized as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

SHAPE = (8, 8, 4)


class Parts:
    """What networks are put together from; with `flipped` the operands of sums and concatenations come the other way round."""

    def __init__(self, *, flipped: bool) -> None:
        self.rng = np.random.default_rng(5)
        self.flipped = flipped

    def weights(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)

    def conv(self, x: Any, channels: int = 4, kernel: int = 3, strides: int = 1, weights: Any = None) -> Any:
        found = self.weights(kernel, kernel, x.shape[-1], channels) if weights is None else weights
        return tf.nn.conv2d(x, found, strides, "SAME")

    def depthwise(self, x: Any) -> Any:
        return tf.nn.depthwise_conv2d(x, self.weights(3, 3, x.shape[-1], 1), (1, 1, 1, 1), "SAME")

    def bias(self, x: Any) -> Any:
        return tf.nn.bias_add(x, self.rng.normal(0, 0.5, x.shape[-1]).astype(np.float32))

    def norm(self, x: Any) -> Any:
        n = x.shape[-1]
        scale, variance = (self.rng.uniform(0.5, 2.0, n).astype(np.float32) for _ in range(2))
        offset, mean = (self.rng.normal(0, 0.3, n).astype(np.float32) for _ in range(2))
        return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=mean, variance=variance, is_training=False)[0]

    def layer(self, x: Any, channels: int = 4, kernel: int = 3, strides: int = 1) -> Any:
        """conv -> bias: signed."""
        return self.bias(self.conv(x, channels, kernel, strides))

    def relu(self, x: Any) -> Any:
        return tf.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return tf.nn.relu6(x)

    def leaky(self, x: Any) -> Any:
        return tf.nn.leaky_relu(x, 0.1)

    def clip(self, x: Any, low: float = -0.6, high: float = 0.7) -> Any:
        return tf.minimum(tf.maximum(x, low), high)

    def add(self, a: Any, b: Any) -> Any:
        return b + a if self.flipped else a + b

    def add_n(self, *operands: Any) -> Any:
        return tf.add_n(operands[::-1] if self.flipped else operands)

    def concat(self, *operands: Any, axis: int = -1) -> Any:
        return tf.concat(operands[::-1] if self.flipped else operands, axis)

    def max_pool(self, x: Any, size: int = 2, strides: int = 2, padding: str = "VALID") -> Any:
        return tf.nn.max_pool2d(x, size, strides, padding)

    def average_pool(self, x: Any, size: int = 2, strides: int = 2, padding: str = "VALID") -> Any:
        return tf.nn.avg_pool2d(x, size, strides, padding)

    def dense(self, x: Any, channels: int = 5) -> Any:
        return self.bias(tf.matmul(x, self.weights(x.shape[-1], channels)))


Build = Callable[..., Any]


@dataclass(frozen=True)
class Topology:
    """One row of the table.

    Attributes:
        build: `build(parts, x)`, or `build(parts, x, z)`; one tensor or several.
        why: what of its quantizers follows from which rule: the review of its golden.
        inputs: how many.
        positive: the input is never negative, and declared so.
    """

    build: Build
    why: str
    inputs: int = 1
    positive: bool = False

    def function(self, *, flipped: bool = False) -> Any:
        """The network as TensorFlow has it."""
        names = ("x", "z")[: self.inputs]

        def network(**tensors: Any) -> Any:
            return self.build(Parts(flipped=flipped), *(tensors[name] for name in names))

        specs = {name: tf.TensorSpec((None, *SHAPE), tf.float32, name=name) for name in names}
        return tf.function(network).get_concrete_function(**specs)

    def images(self, count: int = 3) -> Any:
        """What it is calibrated and compared on."""
        rng = np.random.default_rng(1)
        drawn = {name: rng.normal(size=(count, *SHAPE)).astype(np.float32) for name in ("x", "z")[: self.inputs]}
        return {name: np.abs(image) if self.positive else image for name, image in drawn.items()}


TOPOLOGIES: dict[str, Topology] = {}


def topology(name: str, why: str, *, inputs: int = 1, positive: bool = False) -> Callable[[Build], Build]:
    """Adds a row."""

    def add(build: Build) -> Build:
        assert name not in TOPOLOGIES, name
        TOPOLOGIES[name] = Topology(build, " ".join(why.split()), inputs, positive)
        return build

    return add
