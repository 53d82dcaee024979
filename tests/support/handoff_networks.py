"""Small networks that exporters are tested with, one for each thing that a target may or may not hold, quantized here.

Inputs are [N, 8, 8, 3] NHWC, as TensorFlow's are; `examples` draws them. Each network is quantized in either contract.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx_ir
from batch_norm_networks import Array, Builder

import tqt_onnx
from tqt_onnx import BitWidths

SHAPE = (8, 8, 3)


def examples(count: int = 8, seed: int = 1) -> Array:
    """Images of normal numbers, float32 [count, 8, 8, 3]."""
    return np.random.default_rng(seed).normal(0, 1.5, (count, *SHAPE)).astype(np.float32)


def _start(seed: int = 0) -> tuple[Builder, str]:
    net = Builder(seed)
    return net, net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])


def _conv(net: Builder, x: str, name: str, filters: int, depth: int, kernel: int = 3, **attributes: int) -> str:
    pads = [kernel // 2] * 4
    strides = [attributes.pop("stride", 1)] * 2
    return net.layer("Conv", x, name, (filters, depth, kernel, kernel), filters, pads=pads, strides=strides, **attributes)


def _dense(net: Builder, x: str, features: int) -> onnx_ir.Model:
    flat = net.op("Flatten", x, name="flat")
    net.layer("Gemm", flat, "y", (features, 5), 5)
    return net.model({"x": SHAPE}, {"y": (5,)})


def residual() -> onnx_ir.Model:
    """Conv -> relu, a block with an identity shortcut and an Add behind which comes a relu, global average, Gemm."""
    net, x = _start()
    x = net.op("Relu", _conv(net, x, "conv", 6, 3), name="relu")
    branch = _conv(net, net.op("Relu", _conv(net, x, "a", 6, 6), name="a_relu"), "b", 6, 6)
    x = net.op("Relu", net.op("Add", x, branch, name="sum"), name="sum_relu")
    return _dense(net, net.op("GlobalAveragePool", x, name="average"), 6)


def depthwise() -> onnx_ir.Model:
    """Conv with stride 2 -> relu6, depthwise Conv -> relu6, Conv 1x1 -> relu, max pool, Gemm."""
    net, x = _start(1)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    x = net.op("Clip", _conv(net, x, "conv", 6, 3, stride=2), "zero", "six", name="relu6")
    x = net.op("Clip", _conv(net, x, "dw", 6, 1, group=6), "zero", "six", name="dw_relu6")
    x = net.op("Relu", _conv(net, x, "pw", 8, 6, 1), name="relu")
    return _dense(net, net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2]), 32)


def leaky() -> onnx_ir.Model:
    """Conv -> leaky relu twice, max pool, Gemm."""
    net, x = _start(2)
    x = net.op("LeakyRelu", _conv(net, x, "conv", 4, 3), name="leaky", alpha=0.1)
    x = net.op("LeakyRelu", _conv(net, x, "conv2", 4, 4, stride=2), name="leaky2", alpha=0.1)
    return _dense(net, net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2]), 16)


def concat() -> onnx_ir.Model:
    """Two branches of unlike scale, one of them max-pooled, concatenated; a 2x2 average pool; Gemm."""
    net, x = _start(3)
    x = net.op("Relu", _conv(net, x, "conv", 4, 3), name="relu")
    left = net.op("Relu", _conv(net, x, "left", 4, 4), name="left_relu")
    right = net.op("MaxPool", x, name="right", kernel_shape=[3, 3], pads=[1] * 4)
    x = net.op("Concat", left, right, name="joined", axis=1)
    return _dense(net, net.op("AveragePool", x, name="average", kernel_shape=[2, 2], strides=[2, 2]), 128)


def transposed() -> onnx_ir.Model:
    """Conv -> relu -> transposed Conv with stride 2, signed, as the output of the network."""
    net, x = _start(4)
    x = net.op("Relu", _conv(net, x, "conv", 4, 3, stride=2), name="relu")
    net.layer("ConvTranspose", x, "up", (4, 2, 4, 4), 2, strides=[2, 2], pads=[1] * 4)
    net.op("Transpose", "up", name="y", perm=[0, 2, 3, 1])
    return net.model({"x": SHAPE}, {"y": (8, 8, 2)})


def swish() -> onnx_ir.Model:
    """Conv -> x * sigmoid(x), a table; squeeze and excite: the product of a map and a vector; Gemm."""
    net, x = _start(5)
    x = _conv(net, x, "conv", 4, 3)
    x = net.op("Mul", x, net.op("Sigmoid", x, name="gate"), name="swish")
    squeezed = net.op("Relu", _conv(net, net.op("GlobalAveragePool", x, name="mean"), "squeeze", 2, 4, 1), name="squeezed")
    excited = net.op("Sigmoid", _conv(net, squeezed, "excite", 4, 2, 1), name="excited")
    return _dense(net, net.op("Mul", x, excited, name="scaled"), 256)


def tail() -> onnx_ir.Model:
    """Conv -> relu -> Gemm -> Softmax, which stays float."""
    net, x = _start(6)
    x = net.op("Relu", _conv(net, x, "conv", 4, 3), name="relu")
    _dense(net, x, 256)
    net.op("Softmax", "y", name="p", axis=-1)
    return net.model({"x": SHAPE}, {"p": (5,)})


def wide() -> onnx_ir.Model:
    """A Gemm of 3,072 inputs whose weights are all about as large: its sums can leave 2^24, so it has no certificate."""
    net, x = _start(7)
    x = net.op("Relu", _conv(net, x, "conv", 48, 3), name="relu")
    flat = net.op("Flatten", x, name="flat")
    net.layer("Gemm", flat, "y", (3072, 5), 5)
    net.constants["y/w"] = (net.rng.choice([-0.9, 0.95, 0.99], (3072, 5))).astype(np.float32)
    return net.model({"x": SHAPE}, {"y": (5,)})


NETWORKS: dict[str, Callable[[], onnx_ir.Model]] = {
    build.__name__: build for build in (residual, depthwise, leaky, concat, transposed, swish, tail, wide)
}


@cache
def quantized(name: str, layer: int = 16, weight: int = 8) -> onnx_ir.Model:
    """A network of `NETWORKS` as a Q/DQ model, calibrated on `examples(32, 0)`; do not change it."""
    bits = BitWidths(layer=layer, weight=weight)  # type: ignore[arg-type]  # 16 or 32
    return tqt_onnx.quantize(NETWORKS[name](), examples(32, 0), bits=bits).model
