"""Target `dpu`: Q/DQ ONNX as AMD's XINT8 has it, for DPUs and NPUs of Vitis AI (H5)."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import onnx_ir

from ..ir import QuantizerGraph, UnsupportedError, UsageError, save
from .base import Source
from .dpu_rules.cost import basis, output_sqnr
from .dpu_rules.cpu import on_cpu
from .dpu_rules.draft import Draft
from .dpu_rules.opset import OLDER, older
from .dpu_rules.positions import is_rescale, sites_of
from .dpu_rules.sums import large_sums
from .dpu_rules.written import draft_of, model_of

SCHEMA: Final = "tqt_onnx.dpu/1"
"""Name and version of `positions.json`."""

_INFINITE: Final = {math.inf: "no number differs", -math.inf: "every number was 0, and some are not now"}
"""Ratio that is no number of decibels -> what it says."""

_NAMED: Final = 3
"""Layers that a note or an error names; `positions.json` has all of them."""


@dataclass(frozen=True)
class DpuExporter:
    """Everything int8 at power-of-two scales, every shift within a DPU's range.

    Attributes:
        fix: make the changes that a model needs to fit, and say what they cost; without it they are refused.
        bias_bits: 32, biases at the scale of the sum, or 8, at a position of their own.
    """

    fix: bool = False
    bias_bits: int = 32

    name: ClassVar[str] = "dpu"
    summary: ClassVar[str] = "XINT8: int8 Q/DQ ONNX whose shifts a DPU has, and its positions as JSON"
    reader: ClassVar[str] = "Vitis AI (DPU, Ryzen AI NPU)"
    rounding: ClassVar[str] = "half_up"
    needs_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.bias_bits not in (8, 32):
            raise UsageError(f"target dpu: bias bits must be 8 or 32. Received: {self.bias_bits}")

    def check(self, source: Source) -> None:
        """As `Exporter.check`; with `fix`, only what no change makes fit is refused."""
        draft = draft_of(source, self.bias_bits)
        if draft.changes and not self.fix:
            rules = Counter(change.rule for change in draft.changes)
            more = len(draft.changes) - 1
            rest = f" ({more} more; in all {', '.join(f'{rule}: {count}' for rule, count in rules.items())})" if more else ""
            raise UnsupportedError(f"target dpu: layer {draft.changes[0].text}{rest}")
        model_of(source, self.bias_bits)

    def changed_model(self, source: Source) -> onnx_ir.Model:
        """As `ChangesModel.changed_model`: what `write` writes."""
        return model_of(source, self.bias_bits)[1]

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        draft = draft_of(source, self.bias_bits)
        graph, model = model_of(source, self.bias_bits)
        save(model, folder / f"{source.name}.onnx")
        plain = older(model)
        if isinstance(plain, onnx_ir.Model):
            onnx_ir.save(plain, folder / f"{source.name}.opset{OLDER}.onnx")
        costs = output_sqnr(source, model) if draft.changes or self.bias_bits == 8 else {}
        sites = sites_of(draft)
        cpu = on_cpu(source, draft, sites)
        rescales = [node.name for node in draft.nodes if is_rescale(node)]
        quantizers = graph.by_value()
        written = {
            "schema": SCHEMA,
            "rounding": self.rounding,
            "tensors": [
                {"tensor": q.value, "role": q.role, "type": f"int{q.bits}", "pos": -q.decided_exponent} for q in graph.quantizers
            ],
            "layers": [
                {"node": site.node, "op": site.op, **site.positions(quantizers), **site.shifts(quantizers)}
                for site in sites
                if site.kind == "layer"
            ],
            "elementwise": [
                {"node": site.node, "op": site.op, **site.positions(quantizers), **site.shifts(quantizers)}
                for site in sites
                if site.kind == "elementwise"
            ],
            "cpu": [{"node": node, "reason": reason} for node, reason in cpu.items()],
            "rescales": rescales,
            "moved": _moved(source.graph, graph),
            "changes": [{"rule": c.rule, "layer": c.layer, "problem": c.problem, "change": c.remedy} for c in draft.changes],
            "sqnr_db": {name: None if math.isinf(cost) else cost for name, cost in costs.items()},
            "unchanged": [name for name, cost in costs.items() if cost == math.inf],
        }
        (folder / "positions.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        notes = _notes(source, draft, costs, cpu, rescales, large_sums(source, draft, sites))
        return (
            notes
            if isinstance(plain, onnx_ir.Model)
            else (*notes, f"No file of opset {OLDER}: {plain} means something else there.")
        )


def _moved(before: QuantizerGraph, after: QuantizerGraph) -> list[dict[str, Any]]:
    """Tensors that have another type or scale than they had, and those that are gone."""
    new = after.by_value()
    found = []
    for old in before.quantizers:
        now = new.get(old.value)
        start = {"bits": old.bits, "signed": old.signed, "exponent": old.exponent}
        end = None if now is None else {"bits": now.bits, "signed": now.signed, "exponent": now.exponent}
        if start != end:
            found.append({"tensor": old.value, "from": start, "to": end})
    return found


def _notes(
    source: Source, draft: Draft, costs: dict[str, float], cpu: dict[str, str], rescales: list[str | None], large: tuple[str, ...]
) -> tuple[str, ...]:
    notes = []
    for rule in dict.fromkeys(change.rule for change in draft.changes):
        own = [change for change in draft.changes if change.rule == rule]
        notes.append(f"{rule}: {len(own)} changed, first {own[0].layer!r}: {own[0].problem}; --fix {own[0].remedy}.")
    for name, cost in costs.items():
        how = _INFINITE.get(cost, f"{cost:.1f} dB")
        notes.append(f"SQNR of {name!r} against the model as it was, on {basis(source)}: {how}.")
    if cpu:
        first = "; ".join(f"{node}: {reason}" for node, reason in list(cpu.items())[:_NAMED])
        notes.append(f"Nodes that are likely to run on the CPU: {len(cpu)}. {first}.")
    if large:
        notes.append(f"Sums that can leave 2^24, so an executor in float32 may round them: {', '.join(large)}.")
    if rescales:
        notes.append(f"Roundings to another scale that no layer does: {len(rescales)}, first {rescales[0]!r}.")
    return tuple(notes)
