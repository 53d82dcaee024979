"""Which weights meet in one sum: what the bounds of partial sums (X1) and the room of int32 biases (L11) are added up from.

Every layer is an array of weights and a rule that says which of them one output element adds up. For Conv, Gemm and MatMul
these are all weights of its output channel. A ConvTranspose spreads its taps: with stride `s` and dilation `d`, input `i` and
tap `t` meet in the output `i * s + d * t - pad`, so that one output element meets the taps of one residue of `d * t` modulo `s`
only, its phase. The phases of all spatial axes together share the taps out; the largest of their totals holds for the channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_PART = 1 << 20
"""Weights looked at together."""


def contributions(weights: npt.NDArray[Any], positive: int, negative: int) -> npt.NDArray[np.int64]:
    """What each weight adds to a sum at most: `positive * w` where it is positive, `negative * |w|` where it is negative.

    Args:
        weights: integers of any width and shape.
        positive: what a positive weight is multiplied by, 0 or more.
        negative: what the magnitude of a negative one is.

    Returns:
        Made a part at a time: of a large layer one array of this size is enough.
    """
    result = np.empty(weights.shape, np.int64)
    target, flat = result.reshape(-1), weights.reshape(-1)
    for start in range(0, flat.size, _PART):
        part = flat[start : start + _PART].astype(np.int64)
        target[start : start + _PART] = np.maximum(part, 0) * positive - np.minimum(part, 0) * negative
    return result


def channel_totals(op_type: str, attributes: Mapping[str, Any], contributions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The largest total that one output element can collect, per output channel.

    Args:
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        attributes: of the node, as plain values; `group`, `strides`, `dilations` and `transB` are looked at.
        contributions: one number of 0 or more per weight, in the layout of the operator's second input.

    Returns:
        One number per output channel, of the dtype of `contributions`; for a MatMul with a batch of matrices one per column
        of each.
    """
    if op_type == "Conv":
        return np.asarray(contributions.sum(axis=tuple(range(1, contributions.ndim))))
    if op_type == "ConvTranspose":
        return _transposed(attributes, contributions)
    if op_type == "Gemm" and attributes.get("transB", 0):
        return np.asarray(contributions.sum(axis=1))
    columns = contributions if contributions.ndim > 1 else contributions.reshape(-1, 1)
    return np.asarray(columns.sum(axis=-2)).reshape(-1)


def _transposed(attributes: Mapping[str, Any], contributions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[C_in, C_out / group, ...]`: inputs of one group are added up, taps by their phase."""
    group = attributes.get("group", 1)
    inputs, outputs, *kernel = contributions.shape
    per_tap = contributions.reshape(group, inputs // group, outputs, *kernel).sum(axis=1).reshape(group * outputs, *kernel)
    ones = (1,) * len(kernel)
    strides, dilations = attributes.get("strides") or ones, attributes.get("dilations") or ones
    for axis, (taps, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), start=1):
        phases = np.arange(taps) * dilation % stride
        parts = [per_tap.take(np.flatnonzero(phases == phase), axis).sum(axis, keepdims=True) for phase in np.unique(phases)]
        per_tap = np.concatenate(parts, axis)
    return np.asarray(per_tap.reshape(group * outputs, -1).max(axis=1))
