"""What is computed in which arithmetic, decided from the graph alone, before any data is seen.

Every value has one kind. `real`: a float graph input or constant, exact and at most moved. `fixed`: an integer times a
power of two. `integer`: what lies between QuantizeLinear and DequantizeLinear. `table`: floats inside a function of one integer
that is rounded to another (L12). `island`: floats that were rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir

from ..ir import FunctionRegion, constant, fed_inputs, function_regions, name_of
from .oracle_ops import MOVING, objection
from .tables import rounded_once

Kind = Literal["real", "fixed", "integer", "table", "island"]


@dataclass(frozen=True, slots=True)
class Island:
    """A node that is computed in floating point.

    Attributes:
        node: its name.
        op_type: its operator.
        outputs: names of its outputs.
        reason: why it is not computed in integers.
    """

    node: str
    op_type: str
    outputs: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The kinds of all values of a model.

    Attributes:
        kinds: value name -> kind.
        islands: nodes computed in floating point, in topological order.
        integers: names of the computed integer tensors (`v__q`, `v__r`), in topological order.
        resynchronise: integer tensors quantized from an island; behind them a comparison starts afresh (L12).
        tables: output of each node inside a function of one integer -> the function.
    """

    kinds: dict[str, Kind]
    islands: tuple[Island, ...]
    integers: tuple[str, ...]
    resynchronise: tuple[str, ...]
    tables: dict[str, FunctionRegion] = field(default_factory=dict)
    _island_outputs: frozenset[tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_island_outputs", frozenset(island.outputs for island in self.islands))

    def is_island(self, node: onnx_ir.Node) -> bool:
        """Whether the node is one of the islands."""
        return _outputs(node) in self._island_outputs

    def table_behind(self, node: onnx_ir.Node) -> FunctionRegion | None:
        """The function whose result the node computes."""
        region = self.tables.get(node.outputs[0].name or "")
        return region if region is not None and region.nodes[-1] is node else None


def _outputs(node: onnx_ir.Node) -> tuple[str, ...]:
    return tuple(name_of(value) for value in node.outputs if value.name)


def make_plan(model: onnx_ir.Model) -> Plan:
    """Classifies every value of the graph; unknown operators become islands, nothing is refused."""
    kinds: dict[str, Kind] = {name_of(value): "real" for value in fed_inputs(model.graph)}
    for name, value in model.graph.initializers.items():
        kinds[name] = "integer" if value.dtype is not None and value.dtype.is_integer() else "real"
    islands: list[Island] = []
    integers: list[str] = []
    resynchronise: list[str] = []
    regions = [region for region in function_regions(model.graph) if rounded_once(region) is not None]
    region_of = {node: region for region in regions for node in region.nodes}
    tables: dict[str, FunctionRegion] = {}
    for node in model.graph:
        kind, reason = _kind(node, kinds)
        outputs = _outputs(node)
        region = region_of.get(node)
        if region is not None and kinds.get(name_of(region.source)) == "fixed":
            kind, reason = "table", None
            tables.update(dict.fromkeys(outputs, region))
        kinds.update(dict.fromkeys(outputs, kind))
        if reason is not None:
            islands.append(Island(node.name or outputs[0], node.op_type, outputs, reason))
        if kind == "integer" and constant(node.inputs[0]) is None:
            integers.extend(outputs)
            if node.op_type == "QuantizeLinear" and kinds[name_of(node.inputs[0])] == "island":
                resynchronise.extend(outputs)
    return Plan(kinds, tuple(islands), tuple(integers), tuple(resynchronise), tables)


def _kind(node: onnx_ir.Node, kinds: dict[str, Kind]) -> tuple[Kind, str | None]:
    """Kind of a node's outputs, and the reason where the node is an island."""
    reason = objection(node)
    if reason is not None:
        return "island", reason
    found: list[Kind] = [kinds.get(value.name or "", "island") for value in node.inputs if value is not None]
    first = found[0] if found else "island"
    if node.op_type == "QuantizeLinear":
        return ("island", "an integer is quantized again") if first == "integer" else ("integer", None)
    if node.op_type == "DequantizeLinear":
        return ("fixed", None) if first == "integer" else ("island", "dequantizes what is no integer")
    if node.op_type == "Concat":
        return (first, None) if len(set(found)) == 1 else ("island", "inputs of several kinds are concatenated")
    if node.op_type in MOVING:
        return first, None
    if node.op_type == "Clip":
        return (first, None) if first in {"fixed", "integer"} else ("island", "its input is not fixed point")
    if all(kind == "fixed" for kind in found):
        return "fixed", None
    return "island", "an input is not fixed point"


def influenced(model: onnx_ir.Model, names: Iterable[str], stops: Collection[str] = ()) -> frozenset[str]:
    """The named values and all that depend on them; an influence reaches a value of `stops`, and ends there."""
    reached = set(names)
    for node in model.graph:
        if any(value is not None and value.name in reached and value.name not in stops for value in node.inputs):
            reached.update(value.name for value in node.outputs if value.name)
    return frozenset(reached)
