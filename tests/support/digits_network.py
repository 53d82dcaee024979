"""A classifier of scikit-learn's digits that takes no training: random layers with batch norms, and a fitted dense layer.

Its channels differ widely in scale, as those of depthwise networks do: a step of 4 bits that fits the large ones leaves nothing
of the small ones.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from batch_norm_networks import Array, Builder

from tqt_onnx.datasets import DigitSplits, demo_digits

SHAPE = (8, 8, 1)
CLASSES = 10
_SPREAD = 3.0
"""Binary logarithm of the largest scale of a channel over the smallest."""
_SURE = 12.0
"""The logit of the right class above that of the others."""


@cache
def digits() -> DigitSplits:
    """1,297 to train on, 100 to calibrate with, 400 to test on."""
    return demo_digits(0)


def build(classes: int = CLASSES) -> onnx_ir.Model:
    """Conv, depthwise Conv, Conv 1x1, each with batch norm and relu or relu6, max pool, Gemm, Softmax; input `image` [N, 8, 8, 1].

    Args:
        classes: more than 10 put classes that do not exist in front, as a background class is.
    """
    net = Builder(3)
    x = net.op("Transpose", "image", name="nchw", perm=[0, 3, 1, 2])
    x = net.op("Relu", _norm(net, net.layer("Conv", x, "conv", (6, 1, 3, 3), pads=[1] * 4), "bn1", 6), name="relu")
    x = _norm(net, net.layer("Conv", x, "depthwise", (6, 1, 3, 3), pads=[1] * 4, group=6), "bn2", 6)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    x = net.op("Clip", x, "zero", "six", name="relu6")
    x = net.op("Relu", _norm(net, net.layer("Conv", x, "pointwise", (12, 6, 1, 1)), "bn3", 12), name="relu_2")
    x = net.op("Flatten", net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2]), name="flat")
    _settle(net)
    _fit(net, x, classes - CLASSES)
    net.op("Softmax", net.op("Gemm", x, "dense/w", "dense/b", name="dense"), name="probabilities", axis=-1)
    return net.model({"image": SHAPE}, {"probabilities": (classes,)})


def _norm(net: Builder, x: str, name: str, channels: int) -> str:
    net.norm(x, name, channels)
    net.constants[f"{name}/gamma"] = np.exp2(net.rng.permutation(np.linspace(-_SPREAD, 0, channels))).astype(np.float32)
    net.constants[f"{name}/beta"] = (0.3 * net.constants[f"{name}/gamma"]).astype(np.float32)
    return name


def _settle(net: Builder) -> None:
    """The statistics of the training digits."""
    for node in net.nodes:
        if node.op_type == "BatchNormalization":
            y = _values(net, node.input[0])
            flat = np.moveaxis(y, 1, -1).reshape(-1, y.shape[1])
            net.constants[node.input[3]], net.constants[node.input[4]] = flat.mean(0), flat.var(0)


def _fit(net: Builder, x: str, background: int) -> None:
    """Ridge regression of the classes, stretched so that the Softmax behind it is as sure as a trained one."""
    features = _values(net, x).astype(np.float64)
    mean, scale = features.mean(0), features.std(0) + 1e-3
    normal = (features - mean) / scale
    targets = _SURE * (np.eye(CLASSES)[digits().train_labels] - 1 / CLASSES)
    weights = np.linalg.solve(normal.T @ normal + np.eye(normal.shape[1]), normal.T @ targets) / scale[:, None]
    bias = -mean @ weights
    net.constants["dense/w"] = np.pad(weights, ((0, 0), (background, 0))).astype(np.float32)
    net.constants["dense/b"] = np.pad(bias, (background, 0), constant_values=-_SURE).astype(np.float32)


def _values(net: Builder, name: str) -> Array:
    part = onnx_ir.to_proto(net.model({"image": SHAPE}, {name: None}))
    assert isinstance(part, onnx.ModelProto)
    found: Array = onnxruntime.InferenceSession(part.SerializeToString()).run(None, {"image": digits().train})[0]
    return found
