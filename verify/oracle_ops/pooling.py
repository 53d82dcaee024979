"""Max pooling: the element-wise maximum over the kernel taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import attribute
from ..fixed_tensor import FixedPoint
from .operands import Op, Operand, window_at


def max_pool(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> Operand:
    """Maximum over windows; padding never wins, for it is smaller than every number."""
    kernel = attribute(node, "kernel_shape", ())
    ones = (1,) * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    pads = attribute(node, "pads", (0,) * 2 * len(kernel))
    x = inputs[0]
    if isinstance(x, FixedPoint):
        return FixedPoint(_largest(x.integers, np.iinfo(np.int64).min, kernel, strides, dilations, pads), x.exponent)
    assert x is not None
    return _largest(x, -np.inf, kernel, strides, dilations, pads)


def _largest(
    x: npt.NDArray[Any], least: float, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> npt.NDArray[Any]:
    rank = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=least)
    steps = list(zip(padded.shape[2:], kernel, strides, dilations, strict=True))
    size = [(length - step * (taps - 1) - 1) // stride + 1 for length, taps, stride, step in steps]
    result: npt.NDArray[Any] | None = None
    for tap in np.ndindex(*kernel):
        starts = [position * step for position, step in zip(tap, dilations, strict=True)]
        window = padded[window_at(starts, strides, size)]
        result = window.copy() if result is None else np.maximum(result, window, out=result)
    assert result is not None
    return result


POOLING: dict[str, Op] = {"MaxPool": max_pool}
