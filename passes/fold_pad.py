"""Padding in front of an operator that pads like that itself becomes the operator's own.

    p = Pad(x, {0,0,1,1, 0,0,1,1})                =>      y = Conv<pads = [1, 1, 1, 1]>(x, w)
    y = Conv<pads = [0, 0, 0, 0]>(p, w)

    p = Pad(x, {0,0,1,1, 0,0,1,1}, -inf)          =>      y = MaxPool<pads = [1, 1, 1, 1]>(x)
    y = MaxPool<pads = [0, 0, 0, 0]>(p)

Minus infinity may be written as the most negative float32. Other readers of the padded value keep the Pad.

Refused: modes other than constant, values other than these, negative pads, padding of batch or channels, an operator with
SAME padding (its pads depend on the padded size; `explicit-pads` writes them out first), a pool whose windows would lie
outside altogether, or that counts partial ones (`ceil_mode`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import attribute, constant, consumers
from .layers import rank_of
from .rewriting import drop, inherited, is_op, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldPad:
    """Folds zero Pads into the Conv nodes behind them, those of minus infinity into MaxPools."""

    name: ClassVar[str] = "fold-pad"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        folded = rewrite_each(model.graph, fold_zero_pad, "Pad")
        return rewrite_each(model.graph, _fold_lowest_pad, "Pad") or folded


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
    folded = [_give(node, conv, begins[2:], ends[2:]) for conv in convolutions]
    _drop_unread(node)
    return any(folded)


def _fold_lowest_pad(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Gives a Pad to the maximum pools that read it, where it is one of what is never the maximum."""
    pools = [reader for reader in consumers(node.outputs[0]) if is_op(reader, "MaxPool")]
    pads = lowest_pads(node) if pools else None
    if pads is None:
        return False
    begins, ends = pads
    if any(begins[:2]) or any(ends[:2]) or min(*begins, *ends) < 0:
        return refuse(logger, node, f"pads {begins}, {ends} touch batch or channels, or cut")
    folded = [_give(node, pool, begins[2:], ends[2:]) for pool in pools if _has_room(pool, begins[2:], ends[2:])]
    _drop_unread(node)
    return any(folded)


def _has_room(pool: onnx_ir.Node, begins: tuple[int, ...], ends: tuple[int, ...]) -> bool:
    """Whether every window of the pool would still hold an element of the image."""
    own, kernel = attribute(pool, "pads", (0,) * (2 * len(begins))), attribute(pool, "kernel_shape", ())
    total = [ours + theirs for ours, theirs in zip(own, (*begins, *ends), strict=True)]
    fits = all(amount < size for amount, size in zip(total, (*kernel, *kernel), strict=True))
    if attribute(pool, "ceil_mode", 0) or any(step != 1 for step in attribute(pool, "dilations", (1,))) or not fits:
        return refuse(logger, pool, "it counts partial windows, is dilated, or would have windows outside the image")
    return True


def _give(node: onnx_ir.Node, reader: onnx_ir.Node, begins: tuple[int, ...], ends: tuple[int, ...]) -> bool:
    """Adds the pads of height and width to the reader's own, which then reads what is padded."""
    if attribute(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return refuse(logger, reader, "its SAME padding depends on the padded size")
    own = attribute(reader, "pads", (0,) * (2 * len(begins)))
    total = [ours + theirs for ours, theirs in zip(own, (*begins, *ends), strict=True)]
    reader.attributes.pop("auto_pad", None)
    reader.attributes["pads"] = onnx_ir.AttrInt64s("pads", total)
    reader.metadata_props.update(inherited(reader, node))
    reader.replace_input_with(0, node.inputs[0])
    return True


def _drop_unread(node: onnx_ir.Node) -> None:
    if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
        drop(node)


def zero_pads(node: onnx_ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Begins and ends per axis of a Pad with constant zeros; None for any other Pad."""
    fill = fill_of(node)
    return constant_pads(node) if fill == 0 else None


def lowest_pads(node: onnx_ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Begins and ends per axis of a Pad with what no number is below; None for any other Pad."""
    fill = fill_of(node)
    return constant_pads(node) if fill is not None and fill <= np.finfo(np.float32).min else None


def fill_of(node: onnx_ir.Node) -> float | None:
    """The number that a Pad of constants puts around its input; None where it is computed, or the Pad is of another kind."""
    if not is_op(node, "Pad") or attribute(node, "mode", "constant") != "constant":
        return None
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return 0.0
    value = constant(node.inputs[2])
    return None if value is None or value.size != 1 else float(value.item())


def constant_pads(node: onnx_ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Begins and ends per axis of a Pad by constant amounts; None where they are computed."""
    pads = constant(node.inputs[1])
    given = len(node.inputs) > 3 and node.inputs[3] is not None
    axes = constant(node.inputs[3]) if given else None
    if pads is None or (given and axes is None):
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
