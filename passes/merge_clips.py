"""Every way of writing relu and relu6 becomes Relu or Clip(0, c).

    m = Max(x, 0)                 a = Relu(x)              a = Relu(x)
    y = Min(m, 6)                 y = Clip(a, 0, 6)        y = Min(a, 6)        =>      y = Clip(x, 0, 6)

    y = Max(x, 0)                 y = Clip(x, 0)           y = Clip(x, 0, 3.4e38)      =>      y = Relu(x)

    y = Max(x, 0.5)                                                                     =>      y = Clip(x, 0.5)

Relu, Clip, Max and Min with a constant scalar are intervals [lo, hi]. One behind the other, intervals compose:

    clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d))

An outer interval that contains the inner one changes nothing and goes.

Refused: Clips that do not begin at 0 (they stay as written), empty intervals (lo > hi), bounds that are not constant
scalars, an inner value that somebody else reads too (except where the outer one goes).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, constant, name_of, only_consumer, replace_value
from .layers import rank_of
from .rewriting import can_merge_outputs, drop, inherited, is_op, operand_pair, refuse, rewrite_each, take_over

logger = logging.getLogger(__name__)

_UNBOUNDED = 3.4e38
"""Exporters write "no maximum" as the largest float32, give or take a rounding."""

_CLIPS = ("Relu", "Clip", "Max", "Min")


@dataclass(frozen=True)
class MergeClips:
    """Writes relu and its bounded kin as Relu or Clip(0, c)."""

    name: ClassVar[str] = "merge-clips"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _rewrite, *_CLIPS)


@dataclass(frozen=True)
class Interval:
    """What clips to [low, high]; infinities where there is no bound."""

    source: onnx_ir.Value
    low: float
    high: float


def interval_of(node: onnx_ir.Node | None) -> Interval | None:
    """A node as an interval on one value; None where it is not one."""
    if node is None or not is_op(node, *_CLIPS) or node.inputs[0] is None:
        return None
    low, high, source = -math.inf, math.inf, node.inputs[0]
    if node.op_type == "Relu":
        low = 0.0
    elif node.op_type == "Clip":
        bounds = [*node.inputs[1:], None, None][:2]
        arrays = [constant(value) for value in bounds]
        if any(array is None and value is not None for array, value in zip(arrays, bounds, strict=True)):
            return None
        low = low if arrays[0] is None else float(arrays[0].item())
        high = high if arrays[1] is None else float(arrays[1].item())
    else:
        pair = operand_pair(node)
        other = None if pair is None else node.inputs[pair[0]]
        if pair is None or other is None or pair[1].size != 1 or pair[1].ndim > (rank_of(other) or 0):
            return None
        source = other
        if node.op_type == "Max":
            low = float(pair[1].item())
        else:
            high = float(pair[1].item())
    low, high = (-math.inf if low <= -_UNBOUNDED else low), (math.inf if high >= _UNBOUNDED else high)
    return Interval(source, low, high) if low <= high else None


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    outer = interval_of(node)
    result = node.outputs[0]
    if outer is None or outer.source.dtype not in (onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16, onnx_ir.DataType.DOUBLE):
        return refuse(logger, node, "it is not a constant interval on a float value")
    before = outer.source.producer()
    inner = interval_of(before)
    whole = outer
    if inner is not None and before is not None:
        low, high = (min(max(bound, outer.low), outer.high) for bound in (inner.low, inner.high))
        if (low, high) == (inner.low, inner.high) and can_merge_outputs(result, outer.source):
            replace_value(result, outer.source)
            drop(node)
            return True
        if only_consumer(outer.source) is node and low == 0:
            whole = Interval(inner.source, low, high)
    is_open = math.isinf(whole.low) and math.isinf(whole.high)
    if (whole.low != 0 and (is_open or is_op(node, "Clip"))) or _is_written(node, whole):
        return refuse(logger, node, f"[{whole.low}, {whole.high}] does not begin at 0 or is written so already")
    _write(graph, node, whole, inherited(node) if whole is outer or before is None else inherited(before, node))
    if whole is not outer and before is not None:
        drop(before)
    return True


def _is_written(node: onnx_ir.Node, whole: Interval) -> bool:
    """Whether the node is Relu or Clip(0, c) on that value as it stands."""
    if node.inputs[0] is not whole.source:
        return False
    if math.isinf(whole.high):
        return node.op_type == "Relu"
    return node.op_type == "Clip"


def _write(graph: onnx_ir.Graph, node: onnx_ir.Node, whole: Interval, metadata: dict[str, str]) -> None:
    """Puts the Relu or Clip in the place of `node`, under its names; a Clip has the bounds that are finite."""
    assert whole.source.dtype is not None
    dtype, name = whole.source.dtype.numpy(), name_of(node.outputs[0])
    inputs: list[onnx_ir.Value | None] = [whole.source]
    if whole.low != 0 or not math.isinf(whole.high):
        inputs += [
            None if math.isinf(value) else add_initializer(graph, f"{name}__{bound}", np.asarray(value, dtype))
            for bound, value in (("min", whole.low), ("max", whole.high))
        ]
        inputs = inputs if inputs[-1] is not None else inputs[:-1]
    new = onnx_ir.node("Relu" if len(inputs) == 1 else "Clip", inputs, name=node.name, metadata_props=metadata)
    new.outputs[0].name = f"{name}__clip"
    graph.insert_before(node, new)
    take_over(node.outputs[0], new.outputs[0])
    drop(node)
