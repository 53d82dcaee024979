"""A sum of several tensors becomes a chain of additions, which is what has a fixed-point form (L4).

    y = Sum(a, b, c)      =>      t = Add(a, b)
                                  y = Add(t, c)

This is how `tf.add_n` arrives. The order is TensorFlow's, so floats stay what they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import name_of
from .rewriting import drop, inherited, rewrite_each, take_over


@dataclass(frozen=True)
class SumToAdds:
    """Writes Sum as Add; a Sum of one tensor is an Identity."""

    name: ClassVar[str] = "sum-to-adds"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes are for `infer-shapes`."""
        return rewrite_each(model.graph, _rewrite, "Sum")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    result = node.outputs[0]
    total, *others = node.inputs
    steps = [onnx_ir.node("Identity", [total])] if not others else []
    for operand in others:
        steps.append(onnx_ir.node("Add", [total, operand]))
        total = steps[-1].outputs[0]
    for index, step in enumerate(steps):
        step.name = node.name if step is steps[-1] else f"{node.name}__{index}"
        step.metadata_props.update(inherited(node))
        step.outputs[0].name = f"{name_of(result)}__{index}"
        step.outputs[0].type = result.type
        graph.insert_before(node, step)
    take_over(result, steps[-1].outputs[0])
    drop(node)
    return True
