"""Where shifts happen in a network, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir

from ...ir import COMPUTE, PASS_THROUGH, ROLE_KEY, Quantizer, constant, function_regions, name_of, only_consumer
from .draft import Draft

_TRANSPARENT = frozenset({"Clip", "Identity", "Relu"})


@dataclass(frozen=True, slots=True)
class Site:
    """An operator between scales.

    Attributes:
        kind: `layer` (a sum of products), `elementwise`, `aligned` (all on one scale), or `merged` (two roundings with nothing
            between them, which onnxruntime makes one of: exact where both have one scale, O5).
        node: its name.
        op: its operator.
        inputs: values whose quantizers set the positions it reads; of a layer the data and the weights.
        output: value whose quantizer rounds it; None where nothing does.
        bias: value of the bias of a layer, or None.
        leaky: whether a leaky relu stands between the sum and its rounding.
    """

    kind: str
    node: str
    op: str
    inputs: tuple[str, ...]
    output: str | None
    bias: str | None = None
    leaky: bool = False

    def shifts(self, quantizers: Mapping[str, Quantizer]) -> dict[str, int]:
        """The shifts by name; none where nothing rounds the result.

        Args:
            quantizers: by value, every exponent decided.
        """
        if self.output is None:
            return {}
        read = [quantizers[value].decided_exponent for value in self.inputs]
        written = quantizers[self.output].decided_exponent
        if self.kind == "layer":
            found = {"shift_cut": written - sum(read)}
            if self.bias is not None:
                found["shift_bias"] = quantizers[self.bias].decided_exponent - sum(read)
            return found
        if self.kind == "elementwise" and self.op == "Mul":
            return {"shift_write": written - sum(read)}
        if self.kind == "elementwise":
            return {"shift_read": max(read) - min(read), "shift_write": written - max(read)}
        return {}

    def positions(self, quantizers: Mapping[str, Quantizer]) -> dict[str, Any]:
        """The positions, `-exponent`, by the compiler's names."""
        read = [-quantizers[value].decided_exponent for value in self.inputs]
        found: dict[str, Any] = {"ipos": read[0], "wpos": read[1]} if self.kind == "layer" else {"ipos": read}
        if self.bias is not None:
            found["bpos"] = -quantizers[self.bias].decided_exponent
        if self.output is not None:
            found["opos"] = -quantizers[self.output].decided_exponent
        return found


def sites_of(draft: Draft) -> tuple[Site, ...]:
    """Every place where scales meet, in order; what computes inside a table of one integer is left out (L12)."""
    inside = {
        node for region in function_regions(draft.model.graph) if region.exit.name in draft.quantizers for node in region.nodes
    }
    found = [site for node in draft.nodes if node not in inside for site in [_site(draft, node)] if site is not None]
    return (*found, *_merged(draft, inside))


def _site(draft: Draft, node: onnx_ir.Node) -> Site | None:
    grids = [draft.of(value) for value in node.inputs if value is not None]
    if not grids or node.domain != "" or any(grid is None for grid in grids[:1]):
        return None
    read = tuple(grid.value for grid in grids if grid is not None)
    name = node.name or name_of(node.outputs[0])
    if node.op_type in COMPUTE and len(read) > 1:
        rounds, passed = draft.rounded(node.outputs[0])
        leaky = any(item.op_type == "LeakyRelu" for item in passed)
        output = None if rounds is None else rounds.value
        return Site("layer", name, node.op_type, read[:2], output, read[2] if len(read) > 2 else None, leaky)
    if node.op_type in {"Add", "Sub", "Mul"} and len(read) == len(node.inputs):
        rounds, _ = draft.rounded(node.outputs[0])
        return Site("elementwise", name, node.op_type, read, None if rounds is None else rounds.value)
    own = draft.quantizers.get(name_of(node.outputs[0]))
    if node.op_type in {"Concat", "Max", "Min"}:
        return Site("aligned", name, node.op_type, read, None if own is None else own.value)
    if node.op_type in PASS_THROUGH - {"Identity"} and own is not None and not fills(node):
        return Site("aligned", name, node.op_type, read[:1], own.value)
    return None


def fills(node: onnx_ir.Node) -> bool:
    """Whether a Pad puts another number than zero around its input: what leaves it is rounded anew (L7)."""
    fill = constant(node.inputs[2]) if node.op_type == "Pad" and len(node.inputs) > 2 else None
    return fill is not None and bool(fill.any())


def _merged(draft: Draft, inside: set[onnx_ir.Node]) -> tuple[Site, ...]:
    """Rounded tensors that are rounded again with nothing in between but an Identity, a Relu or a Clip, for nobody else."""
    found = []
    for node in draft.nodes:
        quantizer = draft.quantizers.get(node.outputs[0].name or "")
        if quantizer is None or node in inside or node.op_type not in _TRANSPARENT:
            continue
        value = node.inputs[0]
        while value is not None and only_consumer(value) is not None and value.name not in draft.quantizers:
            above = value.producer()
            if above is None or above.op_type not in _TRANSPARENT:
                break
            value = above.inputs[0]
        if value is None or only_consumer(value) is None or not _is_stored(draft, value):
            continue
        grid = draft.of(value)
        if grid is not None:
            found.append(Site("merged", node.name or quantizer.value, node.op_type, (grid.value,), quantizer.value))
    return tuple(found)


def _is_stored(draft: Draft, value: onnx_ir.Value) -> bool:
    """Whether the value is behind a DequantizeLinear of the Q/DQ model: rounded itself, or moved from what is."""
    node = value.producer()
    moves = node is not None and (node.op_type in PASS_THROUGH or node.op_type in {"Concat", "Max", "Min"})
    return value.name in draft.quantizers or (moves and draft.of(value) is not None)


def is_rescale(node: onnx_ir.Node) -> bool:
    """Whether a node only brings a tensor to another scale (L4, L5)."""
    return node.metadata_props.get(ROLE_KEY) == "rescale"
