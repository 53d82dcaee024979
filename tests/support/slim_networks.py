"""VGG, ResNet and MobileNet as TF-Slim and TensorFlow's official models write them: tables, and what turns a table into a graph.

Depth, widths, strides and node names are the published ones; only the resolution is free. Where a kernel is as large as the
image that is left (VGG's fc6, MobileNet's average pool: 7x7 at 224), it shrinks with the resolution.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from slim_graph import SlimGraph

VGG = {"vgg_16": (2, 2, 3, 3, 3), "vgg_19": (2, 2, 4, 4, 4)}
"""Convolutions in each block."""

RESNET = {"resnet_v1_50": (3, 4, 6, 3), "resnet_v1_101": (3, 4, 23, 3), "resnet_v1_152": (3, 8, 36, 3)}
"""Bottleneck units in each block."""

MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels behind each pointwise convolution, stride of the depthwise one in front of it."""

MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, how many bottlenecks, stride of the first."""


def vgg(name: str, size: int) -> SlimGraph:
    """No norms: every convolution has a bias. The fully connected layers are convolutions; dropout left an Identity."""
    net = SlimGraph(size)
    x = net.input
    with net.scope(name):
        for block, depth in enumerate(VGG[name], 1):
            for index in range(1, depth + 1):
                channels = min(64 << (block - 1), 512)
                x = net.layer(x, f"conv{block}/conv{block}_{index}", channels, 3, norm=False)
            x = net.max_pool(x, f"pool{block}", 2, 2, "VALID")
        x = net.layer(x, "fc6", 4096, int(x.shape[1]), padding="VALID", norm=False)
        x = net.apply("dropout6/Identity", tf.identity, x)
        x = net.layer(x, "fc7", 4096, 1, norm=False)
        x = net.apply("dropout7/Identity", tf.identity, x)
        x = net.layer(x, "fc8", 1000, 1, norm=False, activation=None)
        net.squeeze(x, "fc8/squeezed")
    return net


def resnet_v1(name: str, size: int) -> SlimGraph:
    """Slim's variant: the last unit of a block has the stride, in its 3x3 convolution; its shortcut is a 1x1 max pool."""
    net = SlimGraph(size, epsilon=1e-5)
    with net.scope(name):
        x = net.layer(_pad(net, net.input, 7), "conv1", 64, 7, 2, "VALID")
        x = net.max_pool(x, "pool1", 3, 2)
        for block, units in enumerate(RESNET[name], 1):
            for unit in range(1, units + 1):
                stride = 2 if unit == units and block < len(RESNET[name]) else 1
                with net.scope(f"block{block}/unit_{unit}/bottleneck_v1"):
                    x = _bottleneck_v1(net, x, 32 << block, stride)
        x = net.mean(x, "pool5")
        x = net.layer(x, "logits", 1000, 1, norm=False, activation=None)
        x = net.squeeze(x, "SpatialSqueeze")
        net.softmax(x, "predictions")
    return net


def _bottleneck_v1(net: SlimGraph, x: Any, width: int, stride: int) -> Any:
    if x.shape[-1] != 4 * width:
        shortcut = net.layer(x, "shortcut", 4 * width, 1, stride, activation=None)
    else:
        shortcut = net.max_pool(x, "shortcut", 1, stride) if stride > 1 else x
    y = net.layer(x, "conv1", width, 1)
    y = net.layer(y, "conv2", width, 3) if stride == 1 else net.layer(_pad(net, y, 3), "conv2", width, 3, stride, "VALID")
    y = net.layer(y, "conv3", 4 * width, 1, activation=None, gain=0.5)
    return net.activate(net.apply("add", tf.add, shortcut, y))


def _pad(net: SlimGraph, x: Any, kernel: int, name: str = "Pad") -> Any:
    """The padding of `conv2d_same` and `fixed_padding`: it depends on the kernel, not on the image. A 1x1 kernel gets zeros."""
    border = (kernel - 1) // 2, kernel // 2
    return net.apply(name, lambda x, name: tf.pad(x, ((0, 0), border, border, (0, 0)), name=name), x)


def resnet_v1p5(size: int) -> SlimGraph:
    """ResNet 50 of the official models, which number their layers; the first unit of a block has the stride, in its 3x3."""
    net = SlimGraph(size, epsilon=1e-5, variables=("kernel", "bias"))
    with net.scope("resnet_model"):
        counter = _Numbered(net)
        x = counter.activate(counter.norm(counter.conv(net.input, 64, 7, 2)))
        x = net.apply("initial_max_pool", tf.identity, net.max_pool(x, "max_pooling2d", 3, 2))
        for block, units in enumerate(RESNET["resnet_v1_50"], 1):
            for unit in range(units):
                x = _bottleneck_v1p5(counter, x, 32 << block, 2 if unit == 0 and block > 1 else 1, project=unit == 0)
            x = net.apply(f"block_layer{block}", tf.identity, x)
        x = net.apply("final_reduce_mean", tf.identity, net.mean(x, "Mean"))
        x = net.squeeze(x, "Squeeze")
        with net.scope("dense"):
            x = net.bias(net.dense(x, 1001))
        net.apply("Softmax", tf.nn.softmax, net.apply("final_dense", tf.identity, x))
    return net


class _Numbered:
    """Layers of `tf.layers`: the first is `conv2d`, the second `conv2d_1`."""

    def __init__(self, net: SlimGraph) -> None:
        self.net = net
        self._used: dict[str, int] = {}

    def name(self, kind: str) -> str:
        used = self._used[kind] = self._used.get(kind, -1) + 1
        return f"{kind}_{used}" if used else kind

    def conv(self, x: Any, channels: int, kernel: int, stride: int = 1) -> Any:
        if stride > 1:
            x = _pad(self.net, x, kernel, self.name("Pad"))
        with self.net.scope(self.name("conv2d")):
            return self.net.conv(x, channels, kernel, stride, "VALID" if stride > 1 else "SAME")

    def norm(self, x: Any, gain: float = 1.0) -> Any:
        return self.net.norm(x, self.name("batch_normalization"), gain=gain)

    def activate(self, x: Any) -> Any:
        return self.net.activate(x, "Relu", self.name("Relu"))


def _bottleneck_v1p5(counter: _Numbered, x: Any, width: int, stride: int, project: bool) -> Any:
    shortcut = counter.norm(counter.conv(x, 4 * width, 1, stride)) if project else x
    y = counter.activate(counter.norm(counter.conv(x, width, 1)))
    y = counter.activate(counter.norm(counter.conv(y, width, 3, stride)))
    y = counter.norm(counter.conv(y, 4 * width, 1), gain=0.5)
    return counter.activate(counter.net.apply(counter.name("add"), tf.add, y, shortcut))


def mobilenet_v1(size: int) -> SlimGraph:
    """Depthwise and pointwise convolutions in turn, relu6 behind each."""
    net = SlimGraph(size)
    with net.scope("MobilenetV1"):
        with net.scope("MobilenetV1"):
            x = net.layer(net.input, "Conv2d_0", 32, 3, 2, activation="Relu6")
            for index, (channels, stride) in enumerate(MOBILENET_V1, 1):
                x = net.layer(x, f"Conv2d_{index}_depthwise", None, 3, stride, activation="Relu6")
                x = net.layer(x, f"Conv2d_{index}_pointwise", channels, 1, activation="Relu6")
        with net.scope("Logits"):
            x = net.avg_pool(x, "AvgPool_1a", int(x.shape[1]), 2, "VALID")
            x = net.apply("Dropout_1b/Identity", tf.identity, x)
            x = net.layer(x, "Conv2d_1c_1x1", 1001, 1, norm=False, activation=None)
            x = net.squeeze(x, "SpatialSqueeze")
        net.softmax(x)
    return net


def mobilenet_v2(size: int) -> SlimGraph:
    """Inverted bottlenecks; no activation behind a projection, so what is added is signed."""
    net = SlimGraph(size)
    with net.scope("MobilenetV2"):
        x = net.apply("input", tf.identity, net.input)
        x = net.layer(x, "Conv", 32, 3, 2, activation="Relu6")
        index = 0
        for expansion, channels, count, first_stride in MOBILENET_V2:
            for repeat in range(count):
                with net.scope(f"expanded_conv_{index}" if index else "expanded_conv"):
                    x = _inverted_bottleneck(net, x, expansion, channels, 1 if repeat else first_stride)
                index += 1
        x = net.layer(x, "Conv_1", 1280, 1, activation="Relu6")
        with net.scope("Logits"):
            x = net.avg_pool(x, "", int(x.shape[1]), 1, "VALID")
            x = net.apply("Dropout/Identity", tf.identity, x)
            x = net.layer(x, "Conv2d_1c_1x1", 1001, 1, norm=False, activation=None)
            x = net.apply("output", tf.identity, net.squeeze(x, "Squeeze"))
        net.softmax(x)
    return net


def _inverted_bottleneck(net: SlimGraph, x: Any, expansion: int, channels: int, stride: int) -> Any:
    x = net.apply("input", tf.identity, x)
    y = x if expansion == 1 else net.layer(x, "expand", expansion * int(x.shape[-1]), 1, activation="Relu6")
    y = net.layer(y, "depthwise", None, 3, stride, activation="Relu6")
    y = net.layer(y, "project", channels, 1, activation=None)
    y = net.apply("project/Identity", tf.identity, y)
    if stride == 1 and x.shape[-1] == channels:
        y = net.apply("add", tf.add, y, x)
    return net.apply("output", tf.identity, y)
