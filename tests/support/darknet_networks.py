"""Darknet19 and YOLOv2 as DW2TF writes them from Darknet's configurations: `network/kind<number>/...`, tables and graphs.

A table is a list of layers: (channels, kernel) is a convolution with batch norm and leaky relu, (channels, kernel, "linear") one
with a bias alone, `"max"` a pool by 2, `"max 1"` one with stride 1.
"""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf
from slim_graph import SlimGraph

ALPHA = 0.1

_BACKBONE = (
    (32, 3), "max", (64, 3), "max", (128, 3), (64, 1), (128, 3), "max", (256, 3), (128, 1), (256, 3), "max",
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3), "max", (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
)  # fmt: skip

DARKNET19 = (*_BACKBONE, (1000, 1, "linear"))

YOLO_V2_TINY = (
    (16, 3), "max", (32, 3), "max", (64, 3), "max", (128, 3), "max", (256, 3), "max", (512, 3), "max 1",
    (1024, 3), (512, 3), (425, 1, "linear"),
)  # fmt: skip

Leaky = Literal["Maximum", "LeakyRelu"]
"""How `tf.nn.leaky_relu` is written: as a Mul and a Maximum up to TensorFlow 1.12, as one operator later."""


class _Darknet:
    """Layers in Darknet's numbering."""

    def __init__(self, name: str, size: int, leaky: Leaky) -> None:
        self.net = SlimGraph(size, name=f"{name}/net1", epsilon=1e-5, variables=("kernel", "bias"))
        self._name = name
        self._leaky = leaky
        self._used: dict[str, int] = {}

    def scope(self, kind: str) -> str:
        self._used[kind] = self._used.get(kind, 0) + 1
        return f"{self._name}/{kind}{self._used[kind]}"

    def stack(self, x: Any, table: tuple[Any, ...]) -> list[Any]:
        """Adds the layers of a table; returns what each gives."""
        results = []
        for entry in table:
            if isinstance(entry, str):
                x = self.net.max_pool(x, self.scope("maxpool"), 2, 1 if entry == "max 1" else 2)
            else:
                x = self.convolutional(x, *entry)
            results.append(x)
        return results

    def convolutional(self, x: Any, channels: int, kernel: int, activation: str = "leaky") -> Any:
        with self.net.scope(self.scope("convolutional")):
            y = self.net.conv(x, channels, kernel)
            return self.net.bias(y) if activation == "linear" else self._activate(self.net.norm(y))

    def _activate(self, x: Any) -> Any:
        if self._leaky == "LeakyRelu":
            return self.net.apply("Activation", lambda x, name: tf.nn.leaky_relu(x, ALPHA, name=name), x)
        alpha = self.net.apply("Activation/alpha", lambda name: tf.constant(ALPHA, name=name))
        return self.net.apply("Activation", tf.maximum, self.net.apply("Activation/mul", tf.multiply, alpha, x), x)

    def route(self, *tensors: Any) -> Any:
        """A concat; of one tensor TensorFlow 1 makes an Identity."""
        name = self.scope("route")
        return self.net.apply(name, tf.identity, *tensors) if len(tensors) == 1 else self.net.concat(tensors, name)

    def reorg(self, x: Any) -> Any:
        """Blocks of 2x2 pixels to channels."""
        sizes = {"ksizes": (1, 2, 2, 1), "strides": (1, 2, 2, 1), "rates": (1, 1, 1, 1), "padding": "VALID"}
        return self.net.apply(
            f"{self.scope('reorg')}/ExtractImagePatches",
            lambda x, name: tf.raw_ops.ExtractImagePatches(images=x, **sizes, name=name),
            x,
        )


def darknet19(size: int) -> SlimGraph:
    """A classifier; its leaky relus are Maximum(0.1 * x, x)."""
    layers = _Darknet("darknet19", size, "Maximum")
    net = layers.net
    x = layers.stack(net.input, DARKNET19)[-1]
    x = net.avg_pool(x, layers.scope("avgpool"), int(x.shape[1]), 1, "VALID")
    softmax = layers.scope("softmax")
    net.apply(f"{softmax}/Softmax", tf.nn.softmax, net.squeeze(x, f"{softmax}/Squeeze"))
    return net


def yolo_v2(size: int) -> SlimGraph:
    """A detector: a shortcut from the middle of the backbone, narrowed and reorganised, beside its end."""
    layers = _Darknet("yolov2", size, "LeakyRelu")
    backbone = layers.stack(layers.net.input, _BACKBONE)
    middle = backbone[_BACKBONE.index("max", 12) - 1]  # convolutional13: the last one with 16 times smaller images
    deep = layers.stack(backbone[-1], ((1024, 3), (1024, 3)))[-1]
    side = layers.reorg(layers.convolutional(layers.route(middle), 64, 1))
    layers.stack(layers.route(side, deep), ((1024, 3), (425, 1, "linear")))
    return layers.net


def yolo_v2_tiny(size: int) -> SlimGraph:
    """A detector without branches; its last max pool has stride 1, so its borders are padded."""
    layers = _Darknet("yolov2-tiny", size, "LeakyRelu")
    layers.stack(layers.net.input, YOLO_V2_TINY)
    return layers.net
