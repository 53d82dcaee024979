"""What the operators behind an input say about its dimensions: a convolution knows its channels, a MatMul its features.

The walk follows the input through operators that leave an axis as it is (activations, pools, transposes, paddings of other
axes) up to operators whose weights fix it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import tensorflow as tf

Axes = tuple[int | None, ...]
"""For each axis of a tensor the axis of the input that has the same size, where there is one."""

_ELEMENTWISE: Final = frozenset(
    {
        "Identity",
        "Relu",
        "Relu6",
        "Elu",
        "Selu",
        "LeakyRelu",
        "Softplus",
        "Sigmoid",
        "Tanh",
        "Abs",
        "Neg",
        "Square",
        "Sqrt",
        "Rsqrt",
    }
) | frozenset({"Exp", "Log", "Cast", "Softmax", "LogSoftmax", "LRN", "ReverseV2", "ClipByValue", "Round", "Floor", "Erf"})
_BINARY: Final = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "Pow", "SquaredDifference"})
_SPATIAL: Final = frozenset(
    {"MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"}
) | frozenset({"SpaceToBatchND", "BatchToSpaceND", "ExtractImagePatches", "CropAndResize"})
_CONVOLUTIONS: Final = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv3D"})


def dimensions_behind(tensor: Any) -> dict[int, int]:
    """Axis of an input -> its size, where an operator behind it knows.

    Args:
        tensor: a `tf.Tensor` of known rank in a graph whose shapes were inferred.
    """
    found: dict[int, int] = {}
    weak: dict[int, int] = {}
    seen: set[str] = set()
    pending: deque[tuple[Any, Axes]] = deque([(tensor, tuple(range(tensor.shape.rank)))])
    while pending:
        current, axes = pending.popleft()
        if current.name in seen:
            continue
        seen.add(current.name)
        for consumer in current.consumers():
            for position, operand in enumerate(consumer.inputs):
                if operand is current:
                    for axis, size in _known(consumer, position, axes).items():
                        found.setdefault(axis, size)
                    for axis, size in _added(consumer, position, axes).items():
                        weak.setdefault(axis, size)
                    behind = _axes_behind(consumer, position, axes)
                    if behind is not None and any(axis is not None for axis in behind):
                        pending.append((consumer.outputs[0], behind))
    return weak | found


def _channel(operation: Any, axes: Axes) -> int:
    layout = operation.get_attr("data_format") if "data_format" in operation.node_def.attr else b"NHWC"
    return 1 if layout in (b"NCHW", b"NCDHW") else len(axes) - 1


def _known(operation: Any, position: int, axes: Axes) -> dict[int, int]:
    """What the weights of an operator say about the axes of the input."""
    kind, size, axis = operation.type, None, len(axes) - 1
    if kind in _CONVOLUTIONS and position == 0:
        size, axis = _dim(operation.inputs[1], -2), _channel(operation, axes)
    elif kind == "Conv2DBackpropInput" and position == 2:
        size, axis = _dim(operation.inputs[1], -1), _channel(operation, axes)
    elif (kind == "BiasAdd" and position == 0) or (kind.startswith("FusedBatchNorm") and position == 0):
        size, axis = _dim(operation.inputs[1], 0), _channel(operation, axes)
    elif kind == "MatMul" and position == 0 and not operation.get_attr("transpose_a"):
        size = _dim(operation.inputs[1], 1 if operation.get_attr("transpose_b") else 0)
    elif kind in ("BatchMatMul", "BatchMatMulV2") and position == 0 and not operation.get_attr("adj_x"):
        size = _dim(operation.inputs[1], -1 if operation.get_attr("adj_y") else -2)
    source = axes[axis] if axis < len(axes) else None
    return {} if size is None or source is None else {source: size}


def _added(operation: Any, position: int, axes: Axes) -> dict[int, int]:
    """Constants that are added or multiplied say it too, but a size 1 would be broadcast to theirs."""
    if operation.type not in _BINARY or len(operation.inputs) != 2:
        return {}
    other = operation.inputs[1 - position]
    if tf.get_static_value(other) is None or other.shape.rank is None or other.shape.rank > len(axes):
        return {}
    sizes = dict(zip(reversed(axes), reversed(other.shape.as_list()), strict=False))
    return {axis: size for axis, size in sizes.items() if axis is not None and size is not None and size > 1}


def _axes_behind(operation: Any, position: int, axes: Axes) -> Axes | None:
    """The axes of an operator's first output, or None where nothing is known about them."""
    kind = operation.type
    if kind in _ELEMENTWISE or ((kind == "BiasAdd" or kind.startswith("FusedBatchNorm")) and position == 0):
        return axes
    if kind in _BINARY:
        other = operation.inputs[1 - position]
        constant = tf.get_static_value(other) is not None
        return axes if constant and other.shape.rank is not None and other.shape.rank <= len(axes) else None
    if position != 0:
        return None
    if kind in _SPATIAL:
        kept = {_channel(operation, axes)}
        return tuple(axis if index in kept else None for index, axis in enumerate(axes))
    if kind in ("Pad", "PadV2", "MirrorPad"):
        paddings = tf.get_static_value(operation.inputs[1])
        return None if paddings is None else tuple(axis if not paddings[index].any() else None for index, axis in enumerate(axes))
    if kind == "Transpose":
        perm = tf.get_static_value(operation.inputs[1])
        return None if perm is None or len(perm) != len(axes) else tuple(axes[int(index)] for index in perm)
    return None


def _dim(tensor: Any, axis: int) -> int | None:
    shape = tensor.shape
    if shape.rank is None or not -shape.rank <= axis < shape.rank or shape[axis] is None:
        return None
    return int(shape[axis])
