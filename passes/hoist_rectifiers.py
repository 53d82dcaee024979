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

from ..ir import only_consumer
from .flow import is_rectifier
from .hoisting import hoist
from .rewriting import is_op, refuse

logger = logging.getLogger(__name__)

_MOVERS = ("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class HoistRectifiers:
    """Moves Relu and Clip(0, c) in front of MaxPool and reshapes."""

    name: ClassVar[str] = "hoist-rectifiers"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return any([_hoist(model.graph, node) for node in list(model.graph) if _is_first(node)])  # noqa: C419 - each has its turn


def _moves(node: onnx_ir.Node | None) -> bool:
    return node is not None and is_op(node, *_MOVERS) and len(node.outputs) == 1


def _is_first(node: onnx_ir.Node) -> bool:
    """Whether a chain of movers and rectifiers begins here: a mover that no other one reaches through readers of its own."""
    if not _moves(node):
        return False
    source = node.inputs[0]
    before = None if source is None else source.producer()
    while source is not None and is_rectifier(before) and before is not None and only_consumer(source) is not None:
        source = before.inputs[0]
        before = None if source is None else source.producer()
    return not (_moves(before) and source is not None and only_consumer(source) is not None)


def _hoist(graph: onnx_ir.Graph, first: onnx_ir.Node) -> bool:
    """Moves every rectifier of the chain that begins with this mover in front of it."""
    chain: list[tuple[onnx_ir.Node, bool, int]] = []
    node: onnx_ir.Node | None = first
    while node is not None and (_moves(node) or is_rectifier(node)) and (not chain or node.inputs[0] is chain[-1][0].outputs[0]):
        chain.append((node, is_rectifier(node), 0))
        node = only_consumer(node.outputs[0])
    while chain and not chain[-1][1]:
        chain.pop()
    if not chain:
        return refuse(logger, first, "no rectifier alone reads what it moves")
    source = first.inputs[0]
    assert source is not None
    hoist(graph, source, chain)
    return True
