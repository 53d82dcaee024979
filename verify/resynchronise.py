"""Where a comparison starts afresh: behind float islands, and behind layers without certificate (L12, X2).

What such a layer computes is not promised, but everything behind its requantization is: there every engine has integers of
its own, the oracle goes on from them, and the next layers are compared exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir

from ..ir import name_of
from .plan import Plan, influenced


class Resynchronisation:
    """The points of a model behind which a comparison starts afresh.

    Args:
        model: a Q/DQ model.
        plan: its plan.
        uncertified: output values of the layers that nothing is promised of.

    Attributes:
        points: outputs of QuantizeLinear right behind an island or a layer without certificate, in topological order.
        at_islands: integer tensors quantized from an island: an engine may be one step off there.
        unpromised_at_points: what stays unpromised where an engine gives, or is fed with, all points.
        unpromised_at_best: the same of an engine that gives the clipped integers instead, where there are any.
    """

    def __init__(self, model: onnx_ir.Model, plan: Plan, uncertified: Sequence[str]) -> None:
        self._model, self._uncertified = model, tuple(uncertified)
        behind = {name for name in first_observed(model, uncertified) if plan.kinds[name] == "integer"}
        self._islands = plan.resynchronise
        wanted = {*self._islands, *behind}
        self.points = tuple(name for name in plan.integers if name in wanted)
        self._clipped = dict(_clipped(model, wanted))
        self.at_islands = frozenset((*self._islands, *(self._clipped.get(name, name) for name in self._islands)))
        self.unpromised_at_points = self.unpromised(self.points)
        self.unpromised_at_best = self.unpromised([self._clipped.get(name, name) for name in self.points])

    def given(self, received: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """An engine's own integers at the points: what QuantizeLinear gives, or else the integer Clip that reads it."""
        candidates = ((name, self._clipped.get(name, name)) for name in self.points)
        found = (name if name in received else other for name, other in candidates)
        return {name: received[name] for name in found if name in received}

    def unpromised(self, given: Collection[str]) -> frozenset[str]:
        """Values that a layer without certificate influences, or an island behind which no integers are given.

        Args:
            given: where the oracle goes on from given integers, and the promise with it.
        """
        lost = (name for name in self._islands if not {name, self._clipped.get(name, name)} & set(given))
        return influenced(self._model, [*self._uncertified, *lost], given)


def first_observed(model: onnx_ir.Model, names: Iterable[str]) -> frozenset[str]:
    """Where one can see values: the outputs of the next QuantizeLinear behind them, and graph outputs on the way."""
    reached: set[str | None] = set(names)
    found: set[str] = set()
    for node in model.graph:
        if any(value is not None and value.name in reached for value in node.inputs):
            outputs = [value.name for value in node.outputs if value.name]
            if node.op_type == "QuantizeLinear":
                found.update(outputs)
            else:
                reached.update(outputs)
    return frozenset(found | {name_of(value) for value in model.graph.outputs if value.name in reached})


def observed_in(model: onnx_ir.Model, names: Collection[str]) -> frozenset[str]:
    """Values that one of the named ones shows, by `first_observed`: one walk from the end, whatever the number of values.

    An integer tensor is shown by itself, by what an integer Clip makes of it, and by the value it is dequantized to.
    """
    shown: set[onnx_ir.Value] = set()
    """Values that are named themselves, or whose integers are."""
    observed: set[onnx_ir.Value] = set()
    values = [value for node in model.graph for value in node.outputs]
    for value in reversed([*model.graph.inputs, *values]):
        readers = value.uses()
        same = (node for node, index in readers if index == 0 and node.op_type in {"Clip", "DequantizeLinear"})
        if value.name in names or any(output in shown for node in same for output in node.outputs):
            shown.add(value)
        behind = ((shown if node.op_type == "QuantizeLinear" else observed, node.outputs) for node, _ in readers)
        if (value.is_graph_output() and value in shown) or any(output in found for found, outputs in behind for output in outputs):
            observed.add(value)
    return frozenset(name_of(value) for value in observed)


def _clipped(model: onnx_ir.Model, names: Collection[str]) -> Iterable[tuple[str, str]]:
    """Integer tensor -> output of the integer Clip that alone reads it: `v__r` -> `v__q`."""
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Clip" else None
        if value is not None and value.name in names and len(value.uses()) == 1 and not value.is_graph_output():
            yield name_of(value), name_of(node.outputs[0])
