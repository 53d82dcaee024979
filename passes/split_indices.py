"""A MaxPool whose positions nobody reads gives maxima only; where somebody does, a second MaxPool gives the positions.

    y, i = MaxPool(x)                                             =>      y = MaxPool(x)

    y, i = MaxPool(x)                                             =>      y = MaxPool(x)
    z = MaxUnpool(y, i)                                                   y__unread, i = MaxPool(x)
                                                                          z = MaxUnpool(y, i)

Maxima are selected, hence carry their input's scale (L7); positions have no fixed-point form. With both in one node
onnxruntime 1.31 writes an ill-typed QuantizeLinear behind int8 maxima, and the session does not load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import add_node, attribute, name_of
from .rewriting import rewrite_each, take_over


@dataclass(frozen=True)
class SplitIndices:
    """Separates the maxima of MaxPools from their positions."""

    name: ClassVar[str] = "split-indices"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _rewrite, "MaxPool")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if len(node.outputs) < 2:
        return False
    maxima, positions = node.outputs
    if positions.uses() or positions.is_graph_output():
        if not maxima.uses() and not maxima.is_graph_output():
            return False  # split already, or nobody asks for maxima
        written = {name: attribute(node, name, None) for name in node.attributes}
        unread = add_node(
            graph,
            "MaxPool",
            node.inputs,
            f"{name_of(maxima)}__unread",
            attributes=written,
            after=node,
            like=maxima,
            metadata=node.metadata_props,
        )
        second = unread.producer()
        assert second is not None
        second.resize_outputs(2)
        second.outputs[1].name = f"{name_of(positions)}__again"
        take_over(positions, second.outputs[1])
    node.resize_outputs(1)
    return True
