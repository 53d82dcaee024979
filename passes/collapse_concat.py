"""Concatenations of concatenations become one, so that all parts share one scale at once (L5).

    a = Concat(x, y)
    b = Concat(a, z)        =>      b = Concat(x, y, z)

Concatenation along one axis is associative. A Concat of a single part is that part.

Refused: another axis, and an inner result that somebody else reads too: it has to be built anyway, and in networks that
concatenate at every layer (DenseNet) the number of parts would grow with the square of the depth.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, only_consumer
from .rewriting import bypass, drop, inherited, is_op, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollapseConcat:
    """Joins nested concatenations along one axis, and drops those of a single part."""

    name: ClassVar[str] = "collapse-concat"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place; graph order has the inner ones done first."""
        return rewrite_each(model.graph, _collapse, "Concat")


def _collapse(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if len(node.inputs) == 1:
        return bypass(logger, node, node.inputs[0])
    parts: list[onnx_ir.Value | None] = []
    inner: list[onnx_ir.Node] = []
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is None or producer is None or not is_op(producer, "Concat") or only_consumer(value) is not node:
            parts.append(value)
        elif _axis(producer) is None or _axis(producer) != _axis(node):
            refuse(logger, node, f"{value.name!r} is concatenated along another axis")
            parts.append(value)
        else:
            parts.extend(producer.inputs)
            inner.append(producer)
    if not inner:
        return False
    node.metadata_props.update(inherited(node, *inner))
    node.resize_inputs(len(parts))
    for index, value in enumerate(parts):
        node.replace_input_with(index, value)
    for producer in dict.fromkeys(inner):
        drop(producer)
    return True


def _axis(node: onnx_ir.Node) -> int | None:
    """The axis, counted from the front; None where that cannot be told."""
    axis: int = attribute(node, "axis", 0)
    shape = node.outputs[0].shape
    return axis if axis >= 0 else (None if shape is None else axis + len(shape))
