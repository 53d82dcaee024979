"""A relu moves in front of what only moves or selects elements.

    c = Conv(x)                     c = Conv(x)
    p = MaxPool(c)         =>       p = Relu(c)
    y = Relu(p)                     y = MaxPool(p)

Exact, since `max` commutes with every monotone function and moving with every function. The relu then follows the sum with
no quantizer in between (L2), and a relu6 behind a pooled relu becomes one relu6 (`merge-clips`) where two quantizers of one
type would follow each other (O5).

Refused: a moved value that others read too; Transpose and Pad, which belong to the layout and to the convolution behind them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import name_of, only_consumer
from .flow import is_rectifier
from .rewriting import is_op, refuse

logger = logging.getLogger(__name__)

_MOVERS = ("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class HoistRectifiers:
    """Moves Relu and Clip(0, c) in front of MaxPool and reshapes."""

    name: ClassVar[str] = "hoist-rectifiers"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = False
        for node in list(model.graph):
            while is_rectifier(node) and _hoist(model.graph, node):
                modified = True
        return modified


def _hoist(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """One step up; False where there is nothing to pass."""
    moved, result = node.inputs[0], node.outputs[0]
    mover = None if moved is None else moved.producer()
    if moved is None or mover is None or not is_op(mover, *_MOVERS) or len(mover.outputs) != 1:
        return False
    if only_consumer(moved) is not node:
        return refuse(logger, node, f"{moved.name!r} has other readers")
    source = mover.inputs[0]
    assert source is not None
    for index, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[index] = moved
    result.replace_all_uses_with(moved)
    node.replace_input_with(0, source)
    mover.replace_input_with(0, result)
    graph.remove(node)
    graph.insert_before(mover, node)
    moved_name, result_name = name_of(moved), name_of(result)
    result.name = f"{result_name}__hoisted"  # a name must be free before another value takes it
    moved.name, result.name = result_name, moved_name
    moved.shape, moved.type = result.shape, result.type  # what an output declares is the user's (O3)
    result.shape, result.type = source.shape, source.type
    return True
