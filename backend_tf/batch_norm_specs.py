"""Which layers of a regenerated network have a batch norm of their own, as data: what is saved with the model (B2)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ..ir import COMPUTE, ModelError
from .program import Program, Step

ROLES: Final = ("weight", "gamma", "beta", "mean", "variance", "bias")
"""What the variables of such a layer are; `bias` is the layer's own, where it has one."""

CONSTANT: Final = frozenset({"mean", "variance", "bias"})
"""Those that no gradient moves. A layer's own bias is among them: beta does all that it could do."""


@dataclass(frozen=True, slots=True)
class BatchNormSpec:
    """A compute layer of the lowered graph whose weight and bias are folded from these variables.

    Attributes:
        weight: name of the layer's weight in the lowered graph.
        bias: name of its bias there.
        epsilon: what is added to the variance.
        unbiased: whether the moving variance has Bessel's correction.
        names: role -> name of the variable, each its own.
    """

    weight: str
    bias: str
    epsilon: float
    unbiased: bool
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchNormSpecs:
    """All of them.

    Attributes:
        layers: those with a batch norm of their own.
        folded: layer -> why its batch norm cannot be taken out of it again; it trains as a layer with a bias.
    """

    layers: tuple[BatchNormSpec, ...] = ()
    folded: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"layers": [asdict(spec) for spec in self.layers], "folded": self.folded}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BatchNormSpecs:
        """What `to_json` wrote; whether it fits a graph is `step_of`'s business.

        Raises:
            ModelError: not of this form.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelError("batch norms of a regenerated model: JSON is expected") from None
        fits = isinstance(data, dict) and set(data) == {"layers", "folded"} and isinstance(data["layers"], list)
        if not fits or not _is_text(data["folded"]):
            raise ModelError(f"batch norms of a regenerated model: 'layers' and 'folded' are expected. Received: {text[:200]}")
        specs = tuple(_parse(entry) for entry in data["layers"])
        names = [name for spec in specs for name in (*spec.names.values(), f"folded {spec.weight}", f"folded {spec.bias}")]
        if len(set(names)) != len(names):
            raise ModelError("batch norms of a regenerated model: every variable and every layer once is expected")
        return cls(specs, data["folded"])


def step_of(spec: BatchNormSpec, program: Program) -> Step:
    """The layer of a spec.

    Raises:
        ModelError: the graph has no such layer, or its shapes do not fit.
    """
    readers = [step for step in program.steps if spec.weight in step.inputs]
    weight, bias = program.weights.get(spec.weight), program.weights.get(spec.bias)
    if len(readers) != 1 or weight is None or bias is None or readers[0].op not in COMPUTE or readers[0].input(1) != spec.weight:
        raise ModelError(f"batch norm of {spec.weight!r}: one layer with this weight and the bias {spec.bias!r} is expected")
    channels = channels_of(readers[0], weight.shape)
    if math.prod(bias.shape) != channels or (weight.form == "plain" and len(weight.shape) != 2):
        raise ModelError(
            f"batch norm of {spec.weight!r}: a bias of {channels} numbers is expected. Received: weight {weight.shape}, "
            f"bias {bias.shape}"
        )
    return readers[0]


def channels_of(step: Step, shape: tuple[int, ...]) -> int:
    """Output channels of a layer with a weight of that shape, in the layout of ONNX."""
    if step.op == "Conv":
        return shape[0]
    return int(shape[1] * step.get("group", 1)) if step.op == "ConvTranspose" else shape[-1]


def _parse(entry: Any) -> BatchNormSpec:
    expected = {"weight": str, "bias": str, "epsilon": float, "unbiased": bool, "names": dict}
    fits = isinstance(entry, dict) and set(entry) == set(expected)
    fits = fits and all(isinstance(entry[name], kind) for name, kind in expected.items())
    if not fits or not _is_text(entry["names"]) or not set(ROLES[:-1]) <= set(entry["names"]) <= set(ROLES):
        raise ModelError(
            f"a batch norm of a regenerated model: fields {', '.join(expected)} are expected. Received: {str(entry)[:200]}"
        )
    if not (math.isfinite(entry["epsilon"]) and entry["epsilon"] >= 0):
        raise ModelError(f"batch norm of {entry['weight']!r}: a finite epsilon is expected. Received: {entry['epsilon']}")
    return BatchNormSpec(**entry)


def _is_text(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(value, str) for value in data.values())
