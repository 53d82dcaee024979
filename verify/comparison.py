"""Running totals of a check: what was compared in which engine, what was promised of it, and what differs (X3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from .batches import Feeds
from .certificate import LayerCertificate
from .compare import Difference, FloatComparison, compare, compare_constants, compare_floats, merged
from .fixed_tensor import FixedPoint
from .oracle import Oracle
from .oracle_ops import Operand
from .resynchronise import Resynchronisation, observed_in
from .runtime import storage
from .ties import TieCounter

CUT: Final = "ort-optimized-cut"
"""The engine that is fed with integers at the points of resynchronisation."""

Runner = Callable[[Feeds], Mapping[str, npt.NDArray[Any]]]
"""An engine: feeds -> integer tensors (and graph outputs) by name, in the layout of the ONNX model."""

Listener = Callable[[Feeds, Mapping[str, Operand]], None]
"""Told of each slice: what was fed, and the oracle's integer tensors and graph outputs by name."""


class Comparison:
    """Compares engines with the oracle, slice by slice.

    Args:
        model: a Q/DQ model.
        oracle: its oracle.
        points: where a comparison starts afresh.
        keep: values to compare, in topological order.
        constants: integer constants of the oracle's model by name.
        listeners: each is called with every slice and what the oracle computed of it.

    Attributes:
        images: images compared.
        integers: engine -> integers compared.
        promised: engine -> how many of them are promised.
        floats: (engine, tensor) -> comparison with tolerance.
        ties: requantizations that lie on a tie.
        differing_part: the first slice on which onnxruntime with all optimizations differs.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        oracle: Oracle,
        points: Resynchronisation,
        keep: Sequence[str],
        constants: Mapping[str, npt.NDArray[Any]],
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.images = 0
        self.integers: Counter[str] = Counter()
        self.promised: Counter[str] = Counter()
        self.floats: dict[tuple[str, str], FloatComparison] = {}
        self.ties = TieCounter()
        self.differing_part: Feeds | None = None
        self._model, self._oracle, self._points, self._constants = model, oracle, points, constants
        self._listeners = tuple(listeners)
        self._keep = list(dict.fromkeys([*constants, *keep]))
        self._differences: dict[tuple[str, str], Difference] = {}
        self._promised: dict[tuple[str, str], bool] = {}
        self._totals: Counter[tuple[str, str]] = Counter()

    def add_constants(self, engine: str, constants: Mapping[str, npt.NDArray[Any]]) -> None:
        """Compares integer constants of an engine, whatever the data: the first answer of an engine counts."""
        for difference in compare_constants(self._constants, constants, engine):
            key = engine, difference.tensor
            if key not in self._differences:
                self._differences[key], self._promised[key] = difference, True
                self._totals[key] = difference.total

    def add(self, feeds: Feeds, runners: Mapping[str, Runner]) -> None:
        """Compares one slice of a batch in all engines."""
        if not any(array.size for array in feeds.values()):
            return
        ties = TieCounter()
        plain = self._oracle.run(feeds, keep=self._keep, observe=ties)
        for listen in self._listeners:
            listen(feeds, plain)
        known = all(name in plain for name in self._points.points)
        fed = {name: plain[name] for name in self._points.points if name in plain}
        at_points = {name: value.integers for name, value in fed.items() if isinstance(value, FixedPoint)}
        for engine, run in runners.items():
            if engine == CUT:
                if len(at_points) < len(self._points.points):  # an operator nobody but an engine knows
                    continue
                received: Mapping[str, npt.NDArray[Any]] = run({**feeds, **self._stored(at_points)})
                self._compare(engine, feeds, plain, received, at_points)
                continue
            received = run(feeds)
            given = self._points.given(received)
            expected = plain
            if not _all_equal(given, plain):  # behind each point every engine has integers of its own to go on from (L12)
                own_ties = TieCounter()
                expected = self._oracle.run(feeds, given, keep=self._keep, observe=own_ties)
                if not known:
                    ties, known = own_ties, True
                if len(at_points) < len(self._points.points) and set(given) == set(self._points.points):
                    at_points, plain = given, expected
            self._compare(engine, feeds, expected, received, given)
        self.ties.ties.update(ties.ties)
        self.ties.requantized.update(ties.requantized)
        self.images += max((array.shape[0] for array in feeds.values()), default=0)

    def _stored(self, integers: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The integers in the type that the model stores them in."""
        values = {value.name: value for node in self._model.graph for value in node.outputs}
        return {name: array.astype(storage(values[name]).numpy()) for name, array in integers.items()}

    def _compare(
        self,
        engine: str,
        feeds: Feeds,
        expected: dict[str, Operand],
        received: Mapping[str, npt.NDArray[Any]],
        given: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        if not self.integers[engine]:  # constants do not change from slice to slice
            self.add_constants(engine, received)
        at_islands = {name: expected[name] for name in self._points.at_islands if name in expected}
        exact = {name: value for name, value in expected.items() if name not in at_islands}
        unpromised = self._points.unpromised(given)
        for difference in compare(exact, received, engine, offset=self.images):
            key = engine, difference.tensor
            known = self._differences.get(key)
            self._differences[key] = merged(known, difference) if known else difference
            if engine in {"ort-optimized", CUT}:
                self.differing_part = self.differing_part or feeds
        for name, value in exact.items():
            if isinstance(value, FixedPoint) and name in received:
                self._promised[engine, name] = name not in unpromised
                self._totals[engine, name] += value.integers.size
                self.integers[engine] += value.integers.size
                self.promised[engine] += value.integers.size if name not in unpromised else 0
        for comparison in [*compare_floats(exact, received, engine), *_steps(at_islands, received, engine)]:
            found = replace(comparison, promised=comparison.tensor not in unpromised)
            known_floats = self.floats.get((engine, found.tensor))
            self.floats[engine, found.tensor] = _worse(known_floats, found) if known_floats else found
            if engine == "ort-optimized" and not found.ok:
                self.differing_part = self.differing_part or feeds

    def _seen(self) -> frozenset[str]:
        """Tensors compared with a promise in some engine, or compared and never promised in any."""
        floats = {key: comparison.promised for key, comparison in self.floats.items()}
        promised = {name for (_, name), kept in {**self._promised, **floats}.items() if kept}
        compared = {name for _, name in [*self._totals, *floats]}
        return frozenset(promised | (compared & self._points.unpromised_at_best))

    def not_compared(self) -> tuple[str, ...]:
        """Integer tensors in which no engine was compared, though they can be promised."""
        seen = self._seen()
        return tuple(name for name in self._oracle.plan.integers if name not in seen)

    def layers_not_compared(self, certificates: Iterable[LayerCertificate]) -> tuple[str, ...]:
        """Promised layers behind which no engine was compared with a promise."""
        seen = self._seen() - self._points.unpromised_at_best
        observed = observed_in(self._model, seen)
        return tuple(dict.fromkeys(c.node for c in certificates if c.promised and c.output not in observed))

    def found(self, *, promised: bool) -> tuple[Difference, ...]:
        """Differences by engine and in topological order, constants first, with the numbers of all batches in `total`."""
        order = {name: position for position, name in enumerate(self._keep)}
        engines = list(dict.fromkeys(engine for engine, _ in [*self._totals, *self._differences]))
        found = [(key, difference) for key, difference in self._differences.items() if self._promised[key] is promised]
        found.sort(key=lambda item: (engines.index(item[0][0]), order[item[0][1]]))
        return tuple(replace(difference, total=self._totals[key]) for key, difference in found)


def _all_equal(given: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, Operand]) -> bool:
    """Whether going on from the given integers changes nothing."""
    for name, integers in given.items():
        value = expected.get(name)
        if not isinstance(value, FixedPoint) or not np.array_equal(value.integers, integers):
            return False
    return True


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
