"""What a check found, in a form that JSON takes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from ..ir import COMPUTE
from .certificate import LayerCertificate
from .compare import Difference, FloatComparison
from .plan import Island
from .rounding import RoundingEffect
from .sqnr import TensorNoise, Unmatched
from .ties import TensorTies

SCHEMA: Final = "tqt_onnx.check/2"
"""Name and version of what `CheckResult.to_dict` returns; the number grows when a field goes or changes its meaning."""

VERDICTS: Final = ("ok", "exact", "certified", "exhausted", "nothing_certified", "without_certificate")
"""Properties that `to_dict` gives beside the fields."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of `check_engines`.

    Attributes:
        engines: engines compared with the oracle.
        images: images compared.
        integers: engine -> how many integers were compared.
        not_compared: integer tensors that no engine was compared in.
        differences: in promised tensors, or in integer constants: the promise is broken.
        not_certified: in what a layer without certificate computes, up to the integers right behind it, and in whatever an
            engine that shows no integers computes behind it or behind a float island: named, not promised.
        floats: float tensors behind islands, and tensors quantized from an island (in steps of their grid, one allowed).
        certificates: one per compute layer, Add, Sub, Mul and table.
        islands: what is computed in floating point, and why.
        ties: integer tensor -> requantizations that lie exactly on a tie (H1).
        requantized: integer tensor -> requantizations that round.
        fused: operators of the optimized model; empty where onnxruntime was not asked.
        first_optimized: where a model with all optimizations starts to differ, if it does.
        notes: what a reader must know of how it was run (X4).
        promised: engine -> how many of the compared integers are promised.
        layers_not_compared: certified or exhausted layers whose integers were compared, with a promise, in no engine.
        sqnr: signal and noise of every quantized tensor and output, where a float model was given.
        unmatched: tensors that the float model has no counterpart of.
        rounding: what a target's rounding changes, where one was simulated.
    """

    engines: tuple[str, ...]
    images: int
    integers: dict[str, int]
    not_compared: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_certified: tuple[Difference, ...]
    floats: tuple[FloatComparison, ...]
    certificates: tuple[LayerCertificate, ...]
    islands: tuple[Island, ...]
    ties: dict[str, int]
    requantized: dict[str, int]
    fused: dict[str, int]
    first_optimized: Difference | None
    notes: tuple[str, ...]
    promised: dict[str, int]
    layers_not_compared: tuple[str, ...]
    sqnr: tuple[TensorNoise, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    rounding: RoundingEffect | None = None

    @property
    def certified(self) -> bool:
        """Whether every layer has its certificate, by proof: a table that was only exhausted has none."""
        return all(certificate.certified for certificate in self.certificates)

    @property
    def exhausted(self) -> tuple[str, ...]:
        """Tables without certificate whose entries were all run, on this machine, in every engine of the comparison."""
        return tuple(certificate.node for certificate in self.certificates if certificate.exhausted)

    @property
    def nothing_certified(self) -> bool:
        """Whether there are layers, and none is certified or exhausted: nothing that matters is promised."""
        return bool(self.certificates) and not any(certificate.promised for certificate in self.certificates)

    @property
    def exact(self) -> bool:
        """Whether the integers of every certified or exhausted layer were compared, and nothing promised differs."""
        compared = any(self.promised.values()) and not self.layers_not_compared
        return compared and not self.nothing_certified and not self.differences

    @property
    def ok(self) -> bool:
        """`exact`, every engine was compared in something, and promised floats behind islands are within tolerance."""
        seen = {comparison.engine for comparison in self.floats}
        compared = all(self.integers[engine] or engine in seen for engine in self.engines)
        return self.exact and compared and all(comparison.ok for comparison in self.floats if comparison.promised)

    @property
    def without_certificate(self) -> dict[str, str]:
        """Layer -> why nothing is promised of it on every machine: no certificate, or not computed in integers at all."""
        layers = {layer.node: layer.reason for layer in self.certificates if not layer.certified}
        floats = {island.node: f"stays float: {island.reason}" for island in self.islands if island.op_type in COMPUTE}
        return layers | floats

    @property
    def tie_counts(self) -> tuple[TensorTies, ...]:
        """`ties` and `requantized` by tensor, in topological order."""
        return tuple(TensorTies(name, self.ties[name], count) for name, count in self.requantized.items())

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and strings; `docs/json.md` says what each field means.

        JSON has no infinity and no NaN: such a number is null.
        """
        verdicts = {name: getattr(self, name) for name in VERDICTS}
        plain = {**asdict(self), "floats": [{**asdict(item), "ok": item.ok} for item in self.floats]}
        plain["ties"] = [{**asdict(item), "share": item.share} for item in self.tie_counts]
        del plain["requantized"]
        plain["sqnr"] = [{**asdict(item), "sqnr_db": item.sqnr_db, "own_db": item.own_db} for item in self.sqnr]
        plain["rounding"] = None if self.rounding is None else self.rounding.to_dict()
        found = _plain({"schema": SCHEMA, **verdicts, **plain})
        assert isinstance(found, dict)
        return found


def _plain(value: Any) -> Any:
    """Tuples as lists; numbers that JSON cannot write as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
