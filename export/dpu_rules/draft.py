"""A lowered graph and its quantizers while they are brought into the form of a DPU.

Everything that is not exact is a `Change` with the limit that asked for it: without `--fix` the first one is the refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import onnx_ir

from ...ir import PASS_THROUGH, Quantizer, QuantizerGraph, constant, name_of, only_consumer

FOLLOWS_ROUNDED: Final = frozenset({"Clip", "LeakyRelu", "Relu"})
"""What may stand between a sum and its rounding."""

_KEEPS_GRID: Final = PASS_THROUGH | {"Clip", "Concat", "Max", "Min", "Relu"}


@dataclass(frozen=True, slots=True)
class Change:
    """What had to change, in the words of the refusal.

    Attributes:
        rule: which limit asked for it.
        layer: node or tensor.
        problem: the limit and the value received.
        remedy: what `--fix` does about it.
    """

    rule: str
    layer: str
    problem: str
    remedy: str

    @property
    def text(self) -> str:
        """One clause."""
        return f"{self.layer!r}: {self.problem}; --fix {self.remedy}"


class Draft:
    """The graph, its quantizers by value, and what was changed.

    Args:
        model: a lowered float graph; it is changed.
        graph: its quantizers, decided.
    """

    def __init__(self, model: onnx_ir.Model, graph: QuantizerGraph) -> None:
        self.model = model
        self.contract = graph.contract
        self.quantizers = graph.by_value()
        self.changes: list[Change] = []

    @property
    def nodes(self) -> list[onnx_ir.Node]:
        """Nodes in order, as they are now."""
        return list(self.model.graph)

    def change(self, rule: str, layer: str, problem: str, remedy: str) -> None:
        """Records what is not exact."""
        self.changes.append(Change(rule, layer, problem, remedy))

    def put(self, quantizer: Quantizer) -> None:
        """Replaces the quantizer of its value, in its place."""
        self.quantizers[quantizer.value] = quantizer

    def drop(self, value: onnx_ir.Value | None) -> None:
        """Takes away a value's quantizer, where it has one."""
        if value is not None:
            self.quantizers.pop(value.name or "", None)

    def of(self, value: onnx_ir.Value | None) -> Quantizer | None:
        """The quantizer on whose grid a value is: its own, or that of what it was moved from."""
        while value is not None:
            if value.name in self.quantizers:
                return self.quantizers[value.name or ""]
            node = value.producer()
            if node is None or node.op_type not in _KEEPS_GRID:
                return None
            value = next((item for item in node.inputs if item is not None and constant(item) is None), None)
        return None

    def rounded(self, value: onnx_ir.Value) -> tuple[Quantizer | None, tuple[onnx_ir.Node, ...]]:
        """The quantizer that rounds a sum, behind its rectifiers, and these; None where it is not rounded."""
        passed: list[onnx_ir.Node] = []
        while value.name not in self.quantizers:
            reader = only_consumer(value)
            if reader is None or reader.op_type not in FOLLOWS_ROUNDED:
                return None, tuple(passed)
            passed.append(reader)
            value = reader.outputs[0]
        return self.quantizers[name_of(value)], tuple(passed)

    def members(self, quantizer: Quantizer) -> list[Quantizer]:
        """Everybody on the same threshold (L5)."""
        if quantizer.derived_from is not None:
            return [quantizer]
        return [other for other in self.quantizers.values() if other.group == quantizer.group and other.derived_from is None]

    def groups(self) -> Iterator[list[Quantizer]]:
        """Share groups, in order; derived scales are left out."""
        seen = set[str]()
        for quantizer in list(self.quantizers.values()):
            if quantizer.derived_from is None and quantizer.group not in seen:
                seen.add(quantizer.group)
                yield self.members(quantizer)

    def move(self, quantizer: Quantizer, by: int) -> str:
        """Moves a scale, and all that share it, by powers of two; says so."""
        start = quantizer.decided_exponent
        for member in self.members(quantizer):
            self.put(replace(member, exponent=start + by))
        return f"moves {quantizer.value!r} from 2^{start} to 2^{start + by}"

    def graph(self) -> QuantizerGraph:
        """The quantizers as a graph, derived scales computed anew.

        Raises:
            UnsupportedError: a scale left the exact range (Q5).
        """
        by_id = {quantizer.id: quantizer for quantizer in self.quantizers.values()}
        return QuantizerGraph(
            self.contract,
            tuple(
                quantizer
                if quantizer.derived_from is None
                else replace(quantizer, exponent=sum(by_id[name].decided_exponent for name in quantizer.derived_from))
                for quantizer in self.quantizers.values()
            ),
        )
