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
        differences: in tensors that depend on certified layers alone: the promise is broken.
        not_certified: in tensors that a layer without certificate, or a float island, influences: named, not promised.
        floats: float tensors behind islands, and tensors quantized from an island (in steps of their grid, one allowed).
        certificates: one per layer and Add.
        islands: what is computed in floating point, and why.
        ties: integer tensor -> requantizations that lie exactly on a tie (H1).
        requantized: integer tensor -> requantizations.
        fused: operators of the optimized model; empty where onnxruntime was not asked.
        first_optimized: where a model with all optimizations starts to differ, if it does.
        notes: what a reader must know of how it was run (X4).
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

    @property
    def certified(self) -> bool:
        """Whether every layer has its certificate."""
        return all(certificate.certified for certificate in self.certificates)

    @property
    def exact(self) -> bool:
        """Whether integers were compared, and none of those promised differs."""
        return any(self.integers.values()) and not self.differences

    @property
    def ok(self) -> bool:
        """`exact`, every engine was compared in something, and promised floats behind islands are within tolerance."""
        seen = {comparison.engine for comparison in self.floats}
        compared = all(self.integers[engine] or engine in seen for engine in self.engines)
        return self.exact and compared and all(comparison.ok for comparison in self.floats if comparison.promised)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings; with `ok`, `exact` and `certified`."""
        return {"ok": self.ok, "exact": self.exact, "certified": self.certified, **asdict(self)}
