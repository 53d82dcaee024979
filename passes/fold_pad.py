"""Zero padding in front of a convolution becomes the convolution's own.

    p = Pad(x, {0,0,1,1, 0,0,1,1})                =>      y = Conv<pads = [1, 1, 1, 1]>(x, w)
    y = Conv<pads = [0, 0, 0, 0]>(p, w)

Other readers of the padded value keep the Pad.

Refused: modes other than constant, values other than zero, negative pads, padding of batch or channels, a convolution
with SAME padding (its pads depend on the padded size; `explicit-pads` writes them out first).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, constant, consumers
from .layers import rank_of
from .rewriting import drop, inherited, is_op, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldPad:
    """Folds zero Pads into the Conv nodes behind them."""

    name: ClassVar[str] = "fold-pad"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, fold_zero_pad, "Pad")


def fold_zero_pad(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Gives a Pad to the convolutions that read it, where it is one of zeros."""
    convolutions = [
        reader for reader in consumers(node.outputs[0]) if is_op(reader, "Conv") and reader.inputs[0] is node.outputs[0]
    ]
    if not convolutions:
        return False
    pads = zero_pads(node)
    if pads is None:
        return refuse(logger, node, "it is not constant zero padding")
    begins, ends = pads
    if any(begins[:2]) or any(ends[:2]) or min(*begins, *ends) < 0:
        return refuse(logger, node, f"pads {begins}, {ends} touch batch or channels, or cut")
    modified = False
    for conv in convolutions:
        own = attribute(conv, "pads", (0,) * (2 * len(begins[2:])))
        if attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            refuse(logger, conv, "its SAME padding depends on the padded size")
            continue
        total = [ours + theirs for ours, theirs in zip(own, (*begins[2:], *ends[2:]), strict=True)]
        conv.attributes.pop("auto_pad", None)
        conv.attributes["pads"] = onnx_ir.AttrInt64s("pads", total)
        conv.metadata_props.update(inherited(conv, node))
        conv.replace_input_with(0, node.inputs[0])
        modified = True
    if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
        drop(node)
    return modified


def zero_pads(node: onnx_ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Begins and ends per axis of a Pad with constant zeros; None for any other Pad."""
    if attribute(node, "mode", "constant") != "constant":
        return None
    pads, value, axes = ((constant(node.inputs[i]) if len(node.inputs) > i else None) for i in (1, 2, 3))
    given = [index for index in (2, 3) if len(node.inputs) > index and node.inputs[index] is not None]
    if pads is None or (2 in given and (value is None or value.item() != 0)) or (3 in given and axes is None):
        return None
    count = len(pads) // 2
    rank = rank_of(node.inputs[0]) if axes is not None else count
    if rank is None:
        return None
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(range(count) if axes is None else axes):
        begins[int(axis) % rank] = int(pads[position])
        ends[int(axis) % rank] = int(pads[position + count])
    return tuple(begins), tuple(ends)
