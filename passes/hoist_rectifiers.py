"""A relu of any kind moves in front of what only moves or selects elements.

    c = Conv(x)                     c = Conv(x)
    p = MaxPool(c)         =>       p = Relu(c)
    y = Relu(p)                     y = MaxPool(p)

    c = Conv(x)                     c = Conv(x)
    a, b = Slice(c), Slice(c)       r = Relu(c)
    y, z = Relu(a), Relu(b)  =>     y, z = Slice(r), Slice(r)

Exact, since `max` commutes with every monotone function, moving with every function, and zero padding with every function
that leaves zero alone. The relu then follows the sum with no quantizer in between (L2), and a relu6 behind a pooled relu
becomes one relu6 (`merge-clips`) where two quantizers of one type would follow each other (O5). Relus of one value that are
equal become one.

Refused: a moved value that others read too; the Transpose of a graph input, which is the network's layout; leaky relus of a
negative slope, which are not monotone, in front of MaxPool; parts of a value that others read too, unless all of these are parts
that are rectified alike: each relu would be computed for the whole value.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, constant, consumers, only_consumer
from .fold_pad import fill_of
from .hoisting import hoist
from .node_roles import is_rectifier, leaky_slope
from .resizes import repeats_whole
from .rewriting import drop, is_op, refuse

logger = logging.getLogger(__name__)

_MOVERS = (
    *("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Transpose", "Pad", "Tile", "Resize"),
    *("SpaceToDepth", "DepthToSpace"),
)


@dataclass(frozen=True)
class HoistRectifiers:
    """Moves Relu, Clip with constant bounds and LeakyRelu in front of MaxPool and of what moves elements."""

    name: ClassVar[str] = "hoist-rectifiers"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = False
        agreed: dict[onnx_ir.Value, bool] = {}
        for node in list(model.graph):
            if node.graph is model.graph and _is_first(node):
                modified |= _hoist(model.graph, node, agreed)
        return _merge_twins(model.graph) or modified


def _moves(node: onnx_ir.Node | None) -> bool:
    if node is None or not is_op(node, *_MOVERS) or len(node.outputs) != 1:
        return False
    match node.op_type:
        case "Transpose":
            return node.inputs[0] is not None and not node.inputs[0].is_graph_input()
        case "Gather":
            return constant(node.inputs[1]) is not None and constant(node.inputs[0]) is None
        case "Resize":
            return repeats_whole(node)
        case "Pad":
            return attribute(node, "mode", "constant") != "constant" or fill_of(node) == 0
    return True


def _rectifies(node: onnx_ir.Node | None) -> bool:
    return node is not None and (is_rectifier(node) or (is_op(node, "LeakyRelu") and leaky_slope(node) is not None))


def _commutes(rectifier: onnx_ir.Node, mover: onnx_ir.Node) -> bool:
    """Whether it is the same which of the two comes first."""
    if is_op(mover, "MaxPool"):
        slope = leaky_slope(rectifier)
        return slope is None or slope >= 0
    if is_op(mover, "Pad") and attribute(mover, "mode", "constant") == "constant" and is_op(rectifier, "Clip"):
        low, high = ((constant(rectifier.inputs[index]) if len(rectifier.inputs) > index else None) for index in (1, 2))
        return (low is None or float(low.item()) <= 0.0) and (high is None or float(high.item()) >= 0.0)
    return True


def _is_first(node: onnx_ir.Node) -> bool:
    """Whether a chain of movers and rectifiers begins here: a mover that no other one reaches through readers of its own."""
    if not _moves(node):
        return False
    source = node.inputs[0]
    before = None if source is None else source.producer()
    while source is not None and _rectifies(before) and before is not None and only_consumer(source) is not None:
        source = before.inputs[0]
        before = None if source is None else source.producer()
    return not (_moves(before) and source is not None and only_consumer(source) is not None)


def _hoist(graph: onnx_ir.Graph, first: onnx_ir.Node, agreed: dict[onnx_ir.Value, bool]) -> bool:
    """Moves every rectifier of the chain that begins with this mover in front of it; `agreed` is kept from call to call."""
    chain, source = _chain(first), first.inputs[0]
    if not chain or source is None:
        return refuse(logger, first, "no rectifier alone reads what it moves")
    if any(is_op(node, "Slice", "Gather") for node, _, _ in chain):
        if source not in agreed:  # asked once: what moves up reads the source from then on
            agreed[source] = _agree(source)
        if not agreed[source]:
            return refuse(logger, first, "others that read what it cuts are not rectified alike")
    hoist(graph, source, chain)
    return True


def _agree(source: onnx_ir.Value) -> bool:
    """Whether the same rectifiers are behind whatever reads a value."""
    if only_consumer(source) is not None:
        return True
    chains = [_chain(reader) if _is_first(reader) and reader.inputs[0] is source else [] for reader in consumers(source)]
    kinds = {tuple(_kind(node) for node, up, _ in chain if up) for chain in chains}
    return len(kinds) == 1 and () not in kinds and not source.is_graph_output()


def _chain(first: onnx_ir.Node) -> list[tuple[onnx_ir.Node, bool, int]]:
    """The movers and rectifiers that begin with this mover, up to the last rectifier; as `hoist` wants them."""
    chain: list[tuple[onnx_ir.Node, bool, int]] = []
    node: onnx_ir.Node | None = first
    while node is not None and (_moves(node) or _rectifies(node)) and (not chain or node.inputs[0] is chain[-1][0].outputs[0]):
        if _rectifies(node) and not all(up or _commutes(node, mover) for mover, up, _ in chain):
            break
        chain.append((node, _rectifies(node), 0))
        node = only_consumer(node.outputs[0])
    while chain and not chain[-1][1]:
        chain.pop()
    return chain


def _merge_twins(graph: onnx_ir.Graph) -> bool:
    """Equal rectifiers of one value are one, so that a value whose parts are all rectified is a sum with one reader (L2)."""
    modified = False
    first: dict[Hashable, onnx_ir.Node] = {}
    for node in list(graph):
        if not _rectifies(node) or node.inputs[0] is None:
            continue
        twin = first.setdefault((node.inputs[0], _kind(node)), node)
        if twin is not node and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(twin.outputs[0])
            drop(node)
            modified = True
    return modified


def _kind(node: onnx_ir.Node) -> Hashable:
    """What makes two rectifiers of one value equal."""
    bounds = [constant(value) for value in node.inputs[1:]]
    return node.op_type, leaky_slope(node), tuple(None if bound is None else bound.tobytes() for bound in bounds)
