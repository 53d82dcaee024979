"""Every engine against the oracle, batch by batch (X3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import UsageError, name_of
from .batches import Feeds, slices
from .certificate import certify
from .compare import Difference, FloatComparison, compare, compare_floats, merged
from .fixed_tensor import FixedPoint
from .oracle import Oracle
from .oracle_ops import OPS, Op, Operand
from .plan import Plan, influenced
from .result import CheckResult
from .runtime import NO_VNNI, Session, fused_operators, lacks_vnni
from .ties import TieCounter
from .truncate import bisect_optimized, last_fixed_values, truncated

Runner = Callable[[Feeds], Mapping[str, npt.NDArray[Any]]]
"""An engine: feeds -> integer tensors (and graph outputs) by name, in the layout of the ONNX model."""


def check_engines(
    model: onnx_ir.Model,
    batches: Iterable[Feeds],
    engines: Sequence[str] = ("oracle", "ort"),
    runners: Mapping[str, Runner] | None = None,
    *,
    models: Mapping[str, onnx_ir.Model] | None = None,
    ops: Mapping[str, Op] = OPS,
) -> CheckResult:
    """Runs engines on the same images and compares every integer tensor with the oracle's by `==`.

    `ort` stands for onnxruntime with optimizations off and taps on everything, for the untouched model with all
    optimizations (`ort-optimized`: its own outputs only), and, where the outputs are floats, for the model cut in front of
    them with all optimizations (`ort-optimized-cut`).

    Args:
        model: a Q/DQ model.
        batches: feeds; they are read once, one at a time.
        engines: `oracle` (always there), `ort`, and names of `runners`.
        runners: further engines (`tf`), or replacements of an engine above.
        models: `oracle`, `ort` or `ort-optimized` -> the model it runs instead, to see whether a difference is found.
        ops: operators of the oracle; another table simulates a target's rounding (H1).

    Returns:
        The result; `ok` tells whether the promise holds.

    Raises:
        UsageError: an engine nobody provides.
        ModelError: onnxruntime does not load the model.
        DataError: feeds do not fit the model, or an engine returns a tensor of another shape.
        UnsupportedError: as `Oracle.run`.
    """
    own = dict(models or {})
    oracle = Oracle(own.get("oracle", model), ops)
    chosen = _runners(model, oracle.plan, engines, dict(runners or {}), own)
    certificates = certify(model, oracle.plan)
    comparison = _Comparison(model, oracle, [c.output for c in certificates if not c.certified])
    for batch in batches:
        for part in slices(batch):
            comparison.add(part, chosen)
    asked = "ort" in engines
    differing = comparison.differing_part if "ort-optimized" in chosen else None
    return CheckResult(
        engines=tuple(chosen),
        images=comparison.images,
        integers={engine: comparison.integers[engine] for engine in chosen},
        not_compared=comparison.not_compared(),
        differences=comparison.found(promised=True),
        not_certified=comparison.found(promised=False),
        floats=tuple(comparison.floats.values()),
        certificates=tuple(certificates),
        islands=oracle.islands,
        ties=dict(comparison.ties.ties),
        requantized=dict(comparison.ties.requantized),
        fused=dict(fused_operators(model)) if asked else {},
        first_optimized=bisect_optimized(model, differing, own.get("ort-optimized")) if differing is not None and asked else None,
        notes=(NO_VNNI,) if asked and lacks_vnni() else (),
    )


def tapped_runner(model: onnx_ir.Model) -> Runner:
    """Onnxruntime without optimizations on this model (or on a mutated copy): all its integer tensors and outputs."""
    return Session(model, Oracle(model).plan.integers).run


def _runners(
    model: onnx_ir.Model, plan: Plan, engines: Sequence[str], given: dict[str, Runner], own: dict[str, onnx_ir.Model]
) -> dict[str, Runner]:
    """Engine -> how to run it."""
    tapped, optimized = own.get("ort", model), own.get("ort-optimized", model)
    runners: dict[str, Runner] = {}
    for engine in dict.fromkeys(engines):
        if engine == "ort":
            runners["ort"] = given.get("ort") or tapped_runner(tapped)
            runners["ort-optimized"] = given.get("ort-optimized") or Session(optimized, optimize=True).run
            ends = last_fixed_values(model, plan)
            if ends:
                cut = truncated(optimized, ends)
                runners["ort-optimized-cut"] = given.get("ort-optimized-cut") or Session(cut, optimize=True).run
        elif engine in given:
            runners[engine] = given[engine]
        elif engine != "oracle":
            known = ", ".join(dict.fromkeys(["oracle", "ort", *given]))
            raise UsageError(f"engines must be among {known}. Received: {engine!r}")
    return runners


class _Comparison:
    """Running totals of a check."""

    def __init__(self, model: onnx_ir.Model, oracle: Oracle, uncertified: Sequence[str]) -> None:
        self.images = 0
        self.integers: Counter[str] = Counter()
        self.floats: dict[tuple[str, str], FloatComparison] = {}
        self.ties = TieCounter()
        self.differing_part: Feeds | None = None
        self._model, self._oracle, self._uncertified = model, oracle, uncertified
        ends = last_fixed_values(model, oracle.plan)
        self._keep = [*oracle.plan.integers, *(name_of(value) for value in model.graph.outputs), *ends]
        self._differences: dict[tuple[str, str], Difference] = {}
        self._promised: dict[tuple[str, str], bool] = {}
        self._totals: Counter[tuple[str, str]] = Counter()

    def add(self, feeds: Feeds, runners: Mapping[str, Runner]) -> None:
        """Compares one slice of a batch in all engines."""
        if not any(array.size for array in feeds.values()):
            return
        resynchronise = self._oracle.plan.resynchronise
        expected = None if resynchronise and runners else self._oracle.run(feeds, keep=self._keep, observe=self.ties)
        for position, (engine, run) in enumerate(runners.items()):
            received = run(feeds)
            tensors = expected
            if tensors is None:  # behind an island every engine has integers of its own to go on from (L12)
                overrides = {name: received[name] for name in resynchronise if name in received}
                tensors = self._oracle.run(feeds, overrides, keep=self._keep, observe=self.ties if position == 0 else None)
            self._compare(engine, feeds, tensors, received)
        self.images += max((array.shape[0] for array in feeds.values()), default=0)

    def _compare(self, engine: str, feeds: Feeds, expected: dict[str, Operand], received: Mapping[str, npt.NDArray[Any]]) -> None:
        at_islands = {name: expected[name] for name in self._oracle.plan.resynchronise if name in expected}
        exact = {name: value for name, value in expected.items() if name not in at_islands}
        unpromised = self._unpromised(received)
        for difference in compare(exact, received, engine, offset=self.images):
            key = engine, difference.tensor
            known = self._differences.get(key)
            self._differences[key] = merged(known, difference) if known else difference
            self._promised[key] = difference.tensor not in unpromised
            if engine in {"ort-optimized", "ort-optimized-cut"}:
                self.differing_part = self.differing_part or feeds
        for name, value in exact.items():
            if isinstance(value, FixedPoint) and name in received:
                self._totals[engine, name] += value.integers.size
                self.integers[engine] += value.integers.size
        for comparison in [*compare_floats(exact, received, engine), *_steps(at_islands, received, engine)]:
            found = replace(comparison, promised=comparison.tensor not in unpromised)
            known_floats = self.floats.get((engine, found.tensor))
            self.floats[engine, found.tensor] = _worse(known_floats, found) if known_floats else found
            if engine == "ort-optimized" and not found.ok:
                self.differing_part = self.differing_part or feeds

    def _unpromised(self, received: Mapping[str, npt.NDArray[Any]]) -> frozenset[str]:
        """Values that a layer without certificate influences, or an island behind which this engine gives no integers.

        Where it gives them the oracle goes on from them, and so does the promise.
        """
        resynchronise = self._oracle.plan.resynchronise
        given = [name for name in resynchronise if name in received]
        sources = [*self._uncertified, *(name for name in resynchronise if name not in received)]
        return influenced(self._model, sources, given)

    def not_compared(self) -> tuple[str, ...]:
        """Integer tensors in which no engine was compared."""
        seen = {name for _, name in [*self._totals, *self.floats]}
        return tuple(name for name in self._oracle.plan.integers if name not in seen)

    def found(self, *, promised: bool) -> tuple[Difference, ...]:
        """Differences by engine and in topological order, with the numbers of all batches in `total`."""
        order = {name: position for position, name in enumerate(self._keep)}
        engines = list(self.integers)
        found = [(key, difference) for key, difference in self._differences.items() if self._promised[key] is promised]
        found.sort(key=lambda item: (engines.index(item[0][0]), order[item[0][1]]))
        return tuple(replace(difference, total=self._totals[key]) for key, difference in found)


def _steps(expected: Mapping[str, Operand], received: Mapping[str, npt.NDArray[Any]], engine: str) -> list[FloatComparison]:
    """Tensors quantized from an island: float32 and float64 may round to neighbouring integers, no further apart."""
    result = []
    for name, value in expected.items():
        if isinstance(value, FixedPoint) and name in received:
            error = float(np.abs(received[name].astype(np.int64) - value.integers).max(initial=0))
            result.append(FloatComparison(engine, name, value.integers.size, error, error))
    return result


def _worse(a: FloatComparison, b: FloatComparison) -> FloatComparison:
    return replace(
        a, total=a.total + b.total, largest=max(a.largest, b.largest), largest_error=max(a.largest_error, b.largest_error)
    )
