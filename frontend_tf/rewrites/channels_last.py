"""Operators in NCHW -> in NHWC between two transposes.

    Conv2D[NCHW](x, w)   ->   Transpose(Conv2D[NHWC](Transpose(x), w))

Graphs made for GPUs compute in NCHW, which TensorFlow on a CPU does for a few operators only; the reference has to run. The
transposes go again when tf2onnx moves everything to NCHW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..nodes import constant_of, data_inputs, index_of, make_constant, make_node, node_of
from .surgery import Surgery

_LISTS: Final = ("strides", "ksize", "dilations")
_DATA: Final = {
    "Conv2D": 0,
    "DepthwiseConv2dNative": 0,
    "Conv2DBackpropInput": 2,
    "MaxPool": 0,
    "AvgPool": 0,
    "BiasAdd": 0,
    "FusedBatchNorm": 0,
    "FusedBatchNormV2": 0,
    "FusedBatchNormV3": 0,
    "DepthToSpace": 0,
    "SpaceToDepth": 0,
}
"""Operator -> which of its inputs has the layout. Its first output has it too."""

_TO_LAST: Final = (0, 2, 3, 1)
_TO_FIRST: Final = (0, 3, 1, 2)


def channels_last(surgery: Surgery) -> bool:
    """Applies the rule to every such node. A BiasAdd becomes one over NHWC too where its operand can be seen to have rank 4."""
    found = [
        name
        for name, node in surgery.nodes.items()
        if node.op in _DATA and name not in surgery.inputs and node.attr["data_format"].s == b"NCHW"
    ]
    found = [name for name in found if surgery.nodes[name].op != "BiasAdd" or _has_rank_4(surgery, name)]
    for name in found:
        _turn(surgery, name)
    return bool(found)


def _has_rank_4(surgery: Surgery, name: str) -> bool:
    """A BiasAdd takes any rank; behind an operator of the table it is 4."""
    node = surgery.nodes[name]
    while node.op in ("BiasAdd", "Identity", "Relu", "Relu6", "Elu", "Transpose"):
        if node.op == "Transpose":
            perm = constant_of(surgery.nodes, data_inputs(node)[1])
            return perm is not None and perm.size == 4
        node = surgery.nodes[node_of(data_inputs(node)[0])]
    return node.op in _DATA


def _turn(surgery: Surgery, name: str) -> None:
    node = surgery.nodes[name]
    kind = node.attr["T"]
    inner = surgery.fresh(f"{name}/nhwc")
    turned = type(node)()
    turned.CopyFrom(node)
    turned.name = inner
    turned.attr["data_format"].s = b"NHWC"
    for key in _LISTS:
        if key in node.attr:
            _permute(turned.attr[key].list.i)
    if "explicit_paddings" in node.attr and node.attr["explicit_paddings"].list.i:
        pairs = np.asarray(node.attr["explicit_paddings"].list.i).reshape(4, 2)[list(_TO_LAST)]
        turned.attr["explicit_paddings"].list.i[:] = pairs.reshape(-1).tolist()
    position = _DATA[node.op]
    reads = list(data_inputs(node))
    nodes, reads[position] = _transpose(surgery, f"{name}/to_nhwc", reads[position], _TO_LAST, kind)
    surgery.put(*nodes)
    if node.op == "Conv2DBackpropInput":
        nodes, reads[0] = _sizes_last(surgery, name, reads[0])
        surgery.put(*nodes)
    del turned.input[:]
    turned.input.extend(reads)
    surgery.put(turned)
    back, _ = _transpose(surgery, name, inner, _TO_FIRST, kind)
    surgery.put(*back)
    if node.op.startswith("FusedBatchNorm"):
        _redirect_others(surgery, name, inner)


def _permute(values: Any) -> None:
    values[:] = [values[axis] for axis in _TO_LAST]


def _transpose(surgery: Surgery, name: str, tensor: str, perm: Sequence[int], kind: Any) -> tuple[list[Any], str]:
    order = make_constant(surgery.fresh(f"{name}/perm"), np.asarray(perm, np.int32))
    node = make_node(name, "Transpose", [tensor, order.name])
    node.attr["T"].CopyFrom(kind)
    node.attr["Tperm"].type = order.attr["dtype"].type
    return [order, node], name


def _sizes_last(surgery: Surgery, name: str, sizes: str) -> tuple[list[Any], str]:
    """The shape that a transposed convolution is to make, in the other order."""
    order = make_constant(surgery.fresh(f"{name}/sizes/perm"), np.asarray(_TO_LAST, np.int32))
    axis = make_constant(surgery.fresh(f"{name}/sizes/axis"), np.int32(0))
    node = make_node(surgery.fresh(f"{name}/sizes"), "GatherV2", [sizes, order.name, axis.name], batch_dims=0)
    node.attr["Tparams"].type = node.attr["Tindices"].type = node.attr["Taxis"].type = order.attr["dtype"].type
    return [order, axis, node], node.name


def _redirect_others(surgery: Surgery, name: str, inner: str) -> None:
    """Further outputs (statistics of a batch norm) are read from the node that has them now."""
    for node in surgery.nodes.values():
        for position, tensor in enumerate(node.input):
            if not tensor.startswith("^") and node_of(tensor) == name and index_of(tensor) > 0 and node.name != inner:
                node.input[position] = f"{inner}:{index_of(tensor)}"
