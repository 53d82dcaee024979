"""Batch norm folded into the layer in front: the specification, in NumPy (B1, B3).

    y = gamma * (w . x + b - mean) / sqrt(variance + epsilon) + beta     =     (s * w) . x + (s * b + t)

    s = gamma / sqrt(variance + epsilon)        t = beta - s * mean                    per output channel, in float64

Passes fold with these functions before calibration, and so does the write-back of a trained network. The graph in which batch
norms are trained computes the same formulas with TensorFlow, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def as_affine(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> tuple[Float64, Float64]:
    """An inference batch norm as `scale * x + shift`.

    Args:
        gamma: factor, [channels].
        beta: term, [channels].
        mean: moving mean, [channels].
        variance: moving variance, [channels]; positive with epsilon added.
        epsilon: what is added to the variance.

    Returns:
        Scale and shift, float64 [channels].
    """
    gamma, beta, mean, variance = (array.astype(np.float64) for array in (gamma, beta, mean, variance))
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - scale * mean


def scale_weight(weight: Array, scale: Float64, op_type: str, groups: int = 1) -> Array:
    """The weight of a layer whose output channels are scaled: multiplied in float64 and rounded once.

    Args:
        weight: of `op_type`, in the layout of ONNX.
        scale: float64 [channels].
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        groups: of a ConvTranspose.

    Returns:
        An array of the weight's shape and type; what overflows is infinite.
    """
    with np.errstate(over="ignore"):
        return (weight.astype(np.float64) * along_channels(scale, op_type, weight.shape, groups)).astype(weight.dtype)


def scale_bias(bias: Array | None, scale: Float64 | None, shift: Float64 | None) -> Float64 | None:
    """The bias of a layer whose output is scaled and shifted, in float64: to be rounded when it is stored.

    Args:
        bias: [channels], None for zeros.
        scale: float64 [channels], None for ones.
        shift: float64 [channels], None for zeros.

    Returns:
        float64 [channels]; None for zeros.
    """
    result = None if bias is None else bias.astype(np.float64)
    if result is not None and scale is not None:
        result = result * scale
    if shift is None:
        return result
    return shift if result is None else result + shift


def fold(
    weight: Array, bias: Array | None, norm: tuple[Array, Array, Array, Array], epsilon: float, op_type: str, groups: int = 1
) -> tuple[Array, Array]:
    """Weight and bias of a layer that has taken in the batch norm behind it.

    Args:
        weight: of `op_type`, in the layout of ONNX.
        bias: of the layer, [channels], None for zeros.
        norm: gamma, beta, moving mean and moving variance, [channels] each.
        epsilon: what is added to the variance.
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        groups: of a ConvTranspose.

    Returns:
        Weight, of the shape and type of `weight`, and bias, [channels] of that type.
    """
    scale, shift = as_affine(*norm, epsilon)
    folded = scale_bias(bias, scale, shift)
    assert folded is not None
    with np.errstate(over="ignore"):
        return scale_weight(weight, scale, op_type, groups), folded.astype(weight.dtype)


def along_channels(vector: Float64, op_type: str, shape: tuple[int, ...], groups: int = 1) -> Float64:
    """One number per output channel, broadcastable against a weight of that shape.

    A ConvTranspose has its output channels in axis 1 of its weight `[C_in, C_out / group, h, w]`; with groups they are spread
    over both axes: the inputs of a group see its own outputs only.

    Args:
        vector: float64 [channels].
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        shape: of the weight, in the layout of ONNX.
        groups: of a ConvTranspose.
    """
    ones = (1,) * (len(shape) - 2)
    if op_type == "Conv":
        return vector.reshape(-1, 1, *ones)
    if op_type == "ConvTranspose":
        rows = np.repeat(vector.reshape(groups, -1), shape[0] // groups, axis=0)
        return rows.reshape(*rows.shape, *ones)
    return vector.reshape(1, -1)
