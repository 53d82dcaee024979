"""What a check found, in a form that JSON takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .certificate import LayerCertificate
from .compare import Difference, FloatComparison
from .plan import Island


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
        certificates: one per layer and Add.
        islands: what is computed in floating point, and why.
        ties: integer tensor -> requantizations that lie exactly on a tie (H1).
        requantized: integer tensor -> requantizations.
        fused: operators of the optimized model; empty where onnxruntime was not asked.
        first_optimized: where a model with all optimizations starts to differ, if it does.
        notes: what a reader must know of how it was run (X4).
        promised: engine -> how many of the compared integers are promised.
        layers_not_compared: certified layers whose integers were compared, with a promise, in no engine.
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

    @property
    def certified(self) -> bool:
        """Whether every layer has its certificate."""
        return all(certificate.certified for certificate in self.certificates)

    @property
    def nothing_certified(self) -> bool:
        """Whether there are layers, and none of them has a certificate: nothing that matters is promised."""
        return bool(self.certificates) and not any(certificate.certified for certificate in self.certificates)

    @property
    def exact(self) -> bool:
        """Whether the integers of every certified layer (there is one) were compared, and nothing promised differs."""
        compared = any(self.promised.values()) and not self.layers_not_compared
        return compared and not self.nothing_certified and not self.differences

    @property
    def ok(self) -> bool:
        """`exact`, every engine was compared in something, and promised floats behind islands are within tolerance."""
        seen = {comparison.engine for comparison in self.floats}
        compared = all(self.integers[engine] or engine in seen for engine in self.engines)
        return self.exact and compared and all(comparison.ok for comparison in self.floats if comparison.promised)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings; with the verdicts `ok`, `exact`, `certified`, `nothing_certified`."""
        verdicts = {name: getattr(self, name) for name in ("ok", "exact", "certified", "nothing_certified")}
        return {**verdicts, **asdict(self)}
