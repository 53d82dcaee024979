"""Whether an operator of a TFLite file has the strides, dilations and borders of the layer that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np

from ..integers.network import Operation

_SAME: Final = 0
_VALID: Final = 1
_WINDOWED: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})

Shape = Sequence[int | None]


def has_geometry(operator: Mapping[str, Any], operation: Operation, shape: Shape, pad: Mapping[str, Any] | None) -> bool:
    """Whether an operator computes as many numbers as the operation does, from the same windows.

    Args:
        operator: of the file.
        operation: that computes.
        shape: of what the operation reads, as ONNX has it, batch first.
        pad: the PAD in front of the operator, where there is one.
    """
    result = operator["outputs"][0]["shape"]
    if prod(result[1:]) != prod(size or 1 for size in operation.shape[1:]):
        return False
    if operation.op == "Conv" and operator["op"] in _WINDOWED:
        return _has_windows(operator, operation, shape, pad)
    if operation.op == "Conv":  # FULLY_CONNECTED: one window, or windows of one element
        kernel, whole = operation.attributes["kernel_shape"], list(shape[2:])
        return not any(operation.attributes["pads"]) and (max(kernel) == 1 or kernel == whole)
    if operation.op == "ConvTranspose":
        return _has_transposed_windows(operator, operation, shape)
    return True


def _has_windows(operator: Mapping[str, Any], operation: Operation, shape: Shape, pad: Mapping[str, Any] | None) -> bool:
    options, attributes = operator["options"], operation.attributes
    x, weights = operator["inputs"][0]["shape"], operator["inputs"][1]["shape"]
    strides, dilations = [options["strideH"], options["strideW"]], [options["dilationHFactor"], options["dilationWFactor"]]
    if strides != list(attributes["strides"]) or dilations != list(attributes["dilations"]):
        return False
    multiplier = options.get("depthMultiplier", 1)
    channels = weights[3] // multiplier if operator["op"] == "DEPTHWISE_CONV_2D" else weights[3] * attributes["group"]
    if list(weights[1:3]) != list(attributes["kernel_shape"]) or x[3] != shape[1] or channels != x[3]:
        return False
    pads = list(attributes["pads"])
    if list(x[1:3]) == list(shape[2:]):
        return pads == _borders(options["padding"], x[1:3], attributes["kernel_shape"], strides, dilations)
    if pad is None or options["padding"] != _VALID:
        return False
    return np.array_equal(pad["inputs"][1]["constant"], [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]])


def _borders(
    padding: int, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """What SAME or VALID puts around an image, as ONNX writes it; the odd row or column goes behind."""
    if padding != _SAME:
        return [0, 0, 0, 0]
    total = [
        max((-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    return [*(one // 2 for one in total), *(one - one // 2 for one in total)]


def _has_transposed_windows(operator: Mapping[str, Any], operation: Operation, shape: Shape) -> bool:
    options, attributes = operator["options"], operation.attributes
    x, result, kernel = operator["inputs"][2]["shape"], operator["outputs"][0]["shape"], list(attributes["kernel_shape"])
    strides = [options["strideH"], options["strideW"]]
    if strides != list(attributes["strides"]) or list(operator["inputs"][1]["shape"][1:3]) != kernel:
        return False
    if (x[3], *x[1:3]) != tuple(shape[1:]) or (result[3], *result[1:3]) != tuple(operation.shape[1:]):
        return False
    before = _borders(options["padding"], result[1:3], kernel, strides, [1, 1])[:2]
    return before == list(attributes["pads"])[:2]
