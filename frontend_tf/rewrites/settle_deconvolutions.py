"""Transposed convolutions whose target size is a constant -> for any batch size, and in a form that tf2onnx converts.

    Conv2DBackpropInput([2,H,W,C], w, x)   ->   Conv2DBackpropInput([batch of x, H,W,C], w, x)

and where the padding is explicit, or the target is larger than the kernel reaches (strides that do not divide it),

    Conv2DBackpropInput(sizes, w, x)       ->   pad or crop(Conv2DBackpropInput[VALID](natural sizes, w, x))

with the natural size `(n - 1) * stride + (kernel - 1) * dilation + 1` of n columns: all of what the kernel reaches. Explicit
padding crops that; beyond it are zeros. tf2onnx ignores explicit padding (wrong numbers) and writes negative pads for zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from ..inference.cut import import_graph
from ..nodes import batch_and_rest, data_inputs, make_constant, make_node
from .surgery import Surgery

_OP: Final = "Conv2DBackpropInput"
_SETTLED: Final = "/any_batch"


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: what the kernel reaches, what is cut off in front, and what is asked for."""

    natural: int
    front: int
    target: int


def settle_deconvolutions(surgery: Surgery) -> bool:
    """Applies both rules; nodes of unknown size are left as they are.

    The surgery's nodes must be the cut graph, its placeholders of settled shape.
    """
    found = [name for name, node in surgery.nodes.items() if node.op == _OP]
    if not found:
        return False
    surgery.close()
    graph = import_graph(surgery.where, surgery.result())
    changed = False
    for name in found:
        operation = graph.get_operation_by_name(name)
        changed |= _settle(surgery, surgery.nodes[name], operation)
    return changed


def _settle(surgery: Surgery, node: Any, operation: Any) -> bool:
    sizes = tf.get_static_value(operation.inputs[0], partial=True)
    shape = operation.inputs[2].shape
    if node.attr["data_format"].s != b"NHWC" or shape.rank != 4 or sizes is None or _SETTLED in node.input[0]:
        return False
    target = [None if one is None else int(one) for one in sizes]
    spatial = [size for size in target[1:3] if size is not None]
    if len(target) != 4 or len(spatial) != 2:
        return False
    channels = int(operation.inputs[1].shape[2])
    axes = [_axis(node, operation, axis, target) for axis in (1, 2)]
    plain = any(axis is None for axis in axes) or (
        node.attr["padding"].s != b"EXPLICIT" and all(axis.target <= axis.natural for axis in axes if axis is not None)
    )
    if plain:
        surgery.put(*_sizes(surgery, node, [*spatial, channels]))
        return True
    known = [axis for axis in axes if axis is not None]
    name = node.name
    full = type(node)()
    full.CopyFrom(node)
    full.name = surgery.fresh(f"{name}/full")
    full.attr["padding"].s = b"VALID"
    del full.attr["explicit_paddings"].list.i[:]
    surgery.put(*_sizes(surgery, full, [axis.natural for axis in known] + [channels]))
    last = full.name
    crops = [(axis.front, min(axis.front + axis.target, axis.natural)) for axis in known]
    beyond = [axis.front + axis.target - end for axis, (_, end) in zip(known, crops, strict=True)]
    kind = tf.dtypes.as_dtype(node.attr["T"].type)
    if any(crop != (0, axis.natural) for crop, axis in zip(crops, known, strict=True)):
        last = _slice(surgery, name if not any(beyond) else surgery.fresh(f"{name}/crop"), last, crops, kind)
    if any(beyond):
        paddings = make_constant(
            surgery.fresh(f"{name}/paddings"), np.asarray([(0, 0), *((0, n) for n in beyond), (0, 0)], np.int32)
        )
        surgery.put(paddings, make_node(name, "Pad", [last, paddings.name], T=kind, Tpaddings=tf.int32))
    elif last == full.name:
        surgery.put(make_node(name, "Identity", [last], T=kind))
    return True


def _axis(node: Any, operation: Any, axis: int, target: list[int | None]) -> _Axis | None:
    columns, kernel, wanted = operation.inputs[2].shape[axis], operation.inputs[1].shape[axis - 1], target[axis]
    if columns is None or kernel is None or wanted is None:
        return None
    stride = node.attr["strides"].list.i[axis]
    dilation = node.attr["dilations"].list.i[axis] if node.attr["dilations"].list.i else 1
    reach = (kernel - 1) * dilation + 1
    natural = (columns - 1) * stride + reach
    front = back = 0
    if node.attr["padding"].s == b"EXPLICIT":
        front, back = node.attr["explicit_paddings"].list.i[2 * axis : 2 * axis + 2]
    elif node.attr["padding"].s == b"SAME":
        front = max(natural - wanted, 0) // 2
        back = max(natural - wanted, 0) - front
    fits = 0 <= wanted + front + back - natural < stride  # a convolution of the target makes just these columns
    return _Axis(natural, front, wanted) if fits else None


def _sizes(surgery: Surgery, node: Any, rest: list[int]) -> list[Any]:
    """`node` with the target [batch of its operand, *rest], and the nodes that compute it."""
    made = batch_and_rest(surgery.fresh(f"{node.name}{_SETTLED}"), data_inputs(node)[2], node.attr["T"].type, rest)
    node.input[0] = made[-1].name
    return [*made, node]


def _slice(surgery: Surgery, name: str, tensor: str, crops: list[tuple[int, int]], kind: Any) -> str:
    begin = make_constant(surgery.fresh(f"{name}/begin"), np.asarray([0, *(start for start, _ in crops), 0], np.int32))
    size = make_constant(surgery.fresh(f"{name}/size"), np.asarray([-1, *(end - start for start, end in crops), -1], np.int32))
    surgery.put(begin, size, make_node(name, "Slice", [tensor, begin.name, size.name], T=kind, Index=tf.int32))
    return name
