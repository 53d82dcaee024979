"""A Relu on values that cannot be negative goes.

    a = Relu(x)                              a = Relu(x)
    p = MaxPool(a)               =>          y = MaxPool(a)
    y = Relu(p)

Left in place, both would get quantizers of one type with nothing real between them, and onnxruntime merges such a pair
into different numbers (O5).

Never negative: what Relu, Clip(min >= 0), Sigmoid, HardSigmoid, Softmax, Softplus, Exp, Abs and Sqrt give; what only
moves, selects or averages such values (pass-through operators, pools, ReduceMean, ReduceMax, Concat, Pad with a
constant >= 0 or of another mode); Add, Mul, Max, Min, Sum of such values, Max with one of them; constants >= 0.

Refused: nothing but the boundary case of two names that must both stay (O3).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, constant, replace_value
from .merge_clips import interval_of
from .rewriting import can_merge_outputs, drop, is_op, refuse

logger = logging.getLogger(__name__)

_SOURCES = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs", "Sqrt")
_CARRY = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten"),
    *("Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth"),
    "Tile",
)
_ALL = ("Add", "Mul", "Min", "Sum", "Concat", "Mean")


@dataclass(frozen=True)
class DropRedundantRelu:
    """Removes Relu nodes whose input cannot be negative."""

    name: ClassVar[str] = "drop-redundant-relu"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        known: set[onnx_ir.Value] = set()
        modified = False
        for node in list(model.graph):
            # Removed Relus leave their inputs in `known`; graph order makes every question a look at the inputs only.
            if is_op(node, "Relu") and _is_known(node.inputs[0], known):
                modified |= _splice(node)
            if node.graph is model.graph and _never_negative(node, known):
                known.update(node.outputs)
        return modified


def _splice(node: onnx_ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if not can_merge_outputs(result, source):
        return refuse(logger, node, f"{source.name!r} and {result.name!r} are both names to keep (O3)")
    replace_value(result, source)
    drop(node)
    return True


def _is_known(value: onnx_ir.Value | None, known: set[onnx_ir.Value]) -> bool:
    if value in known:
        return True
    array = constant(value)
    return array is not None and array.dtype.kind in "fiu" and bool((array >= 0).all())


def _never_negative(node: onnx_ir.Node, known: set[onnx_ir.Value]) -> bool:
    """Whether the node's outputs are at least 0, given what is known about its inputs."""
    if is_op(node, *_SOURCES):
        return True
    interval = interval_of(node)
    if interval is not None and interval.low >= 0:
        return True
    if is_op(node, *_CARRY) or is_op(node, "Clip"):
        carried = _is_known(node.inputs[0], known)
        return carried and (interval is None or interval.high >= 0) if is_op(node, "Clip") else carried
    if is_op(node, "Pad"):
        value = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        fixed = len(node.inputs) < 3 or node.inputs[2] is None or (value is not None and bool(value >= 0))
        return _is_known(node.inputs[0], known) and (attribute(node, "mode", "constant") != "constant" or fixed)
    if is_op(node, "Resize"):
        return attribute(node, "mode", "nearest") != "cubic" and _is_known(node.inputs[0], known)
    if is_op(node, *_ALL):
        return all(_is_known(value, known) for value in node.inputs)
    return is_op(node, "Max") and any(_is_known(value, known) for value in node.inputs)
