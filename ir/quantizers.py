"""The quantizer graph: the one contract between rooms (numerics S).

A list of quantizers, each on a value of its own, grouped by shared threshold. Annotation creates it, calibration or
training decides the exponents, insertion writes them into the model, verification and export read them back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from .errors import ModelError, UnsupportedError

Role = Literal["input", "weight", "bias", "accumulator", "activation", "alpha", "reciprocal", "rescale"]
Contract = Literal["layer16", "layer32"]

MIN_EXPONENT: Final = -126 + 24
MAX_EXPONENT: Final = 127 - 24
"""Outside these a float32 division by the scale, or a product of two scaled integers, may leave the normal range (Q5)."""

INTEGER_SUFFIX: Final = "__q"
_FIELDS: Final = frozenset({"id", "value", "bits", "signed", "role", "group", "limit", "derived_from", "exponent"})


def integer_name(value: str) -> str:
    """Name of the integer tensor that stands for `value` in a Q/DQ model; the dequantized tensor keeps the name itself."""
    return value + INTEGER_SUFFIX


def integer_bounds(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer of a full-range quantizer (Q3)."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


@dataclass(frozen=True, slots=True)
class Quantizer:
    """One symmetric power-of-two quantizer, `q(x) = 2^e * clip(round_half_even(x / 2^e), n, p)`.

    Attributes:
        id: stable name, derived from the value it sits on.
        value: name of the float value that is quantized; it is this quantizer's own.
        bits: 2 to 16, or 32 for a bias of the `layer32` contract.
        signed: two's complement or unsigned.
        role: what the value is to the network.
        group: members of one share group have one threshold (L5), hence one exponent; they agree in bits and sign.
        limit: real upper bound of the value (6.0 for relu6, L2) or None.
        derived_from: ids of the input's and the weight's quantizer where the exponent is the sum of theirs (L11 bias).
        exponent: `log2` of the scale once decided, else None.
    """

    id: str
    value: str
    bits: int
    signed: bool
    role: Role
    group: str
    limit: float | None = None
    derived_from: tuple[str, str] | None = None
    exponent: int | None = None

    def __post_init__(self) -> None:
        if not (self.id and self.value and self.group):
            raise ModelError(f"a quantizer needs an id, a value and a group. Received: {self.id!r}, {self.value!r}, {self.group!r}")
        if self.role not in get_args(Role):
            raise ModelError(f"quantizer {self.id!r}: role must be one of {', '.join(get_args(Role))}. Received: {self.role!r}")
        if not (2 <= self.bits <= 16 or (self.bits == 32 and self.role == "bias")):
            raise ModelError(f"quantizer {self.id!r}: bits must be 2 to 16 (32 for a bias). Received: {self.bits}")
        if self.limit is not None and not (math.isfinite(self.limit) and self.limit > 0):
            raise ModelError(f"quantizer {self.id!r}: limit must be positive and finite. Received: {self.limit}")
        if self.exponent is not None and not MIN_EXPONENT <= self.exponent <= MAX_EXPONENT:
            raise UnsupportedError(
                f"quantizer {self.id!r}: scale 2^{self.exponent} is outside 2^{MIN_EXPONENT} .. 2^{MAX_EXPONENT}, "
                "where float32 arithmetic on integers stays exact (Q5)"
            )

    @property
    def lower(self) -> int:
        """Smallest integer."""
        return integer_bounds(self.bits, self.signed)[0]

    @property
    def upper(self) -> int:
        """Largest integer: of the type, or of the limit on this grid where that is smaller.

        Rounding is monotone, so `round(min(x, c) / s) == min(round(x / s), round(c / s))`: the bound holds on integers (L2).
        """
        top = integer_bounds(self.bits, self.signed)[1]
        if self.limit is None:
            return top
        return min(top, round(math.ldexp(self.limit, -self.decided_exponent)))  # Python rounds halves to even (Q1)

    @property
    def decided_exponent(self) -> int:
        """The exponent; asking before it is decided is a defect of the caller."""
        if self.exponent is None:
            raise ModelError(f"quantizer {self.id!r} on {self.value!r} has no exponent yet: calibrate first")
        return self.exponent


@dataclass(frozen=True, slots=True)
class QuantizerGraph:
    """All quantizers of one model, in topological order of their values.

    Raises:
        ModelError: two quantizers share an id or a value, a group disagrees in bits, sign or exponent, or a
            `derived_from` names nobody.
    """

    contract: Contract
    quantizers: tuple[Quantizer, ...]

    def __post_init__(self) -> None:
        if self.contract not in get_args(Contract):
            raise ModelError(f"contract must be one of {', '.join(get_args(Contract))}. Received: {self.contract!r}")
        for what in ("id", "value"):
            seen: set[str] = set()
            for quantizer in self.quantizers:
                name = getattr(quantizer, what)
                if name in seen:
                    raise ModelError(f"two quantizers have the {what} {name!r}; each needs its own")
                seen.add(name)
        by_id = self.by_id()
        for quantizer in self.quantizers:
            _check_derived(quantizer, by_id)
        for group, members in self.groups().items():
            if len({(m.bits, m.signed, m.exponent) for m in members}) > 1:
                found = ", ".join(
                    f"{m.id} ({m.bits} bits, {'signed' if m.signed else 'unsigned'}, e={m.exponent})" for m in members
                )
                raise ModelError(f"share group {group!r}: members must agree in bits, sign and exponent. Received: {found}")

    def by_value(self) -> dict[str, Quantizer]:
        """Value name -> its quantizer."""
        return {quantizer.value: quantizer for quantizer in self.quantizers}

    def by_id(self) -> dict[str, Quantizer]:
        """Quantizer id -> quantizer."""
        return {quantizer.id: quantizer for quantizer in self.quantizers}

    def groups(self) -> dict[str, list[Quantizer]]:
        """Share group -> members, in order; quantizers with a derived scale have no threshold and are left out."""
        result: dict[str, list[Quantizer]] = {}
        for quantizer in self.quantizers:
            if quantizer.derived_from is None:
                result.setdefault(quantizer.group, []).append(quantizer)
        return result

    @property
    def decided(self) -> bool:
        """Whether every exponent is known."""
        return all(quantizer.exponent is not None for quantizer in self.quantizers)

    def decide(self, log2_thresholds: Mapping[str, float]) -> QuantizerGraph:
        """The same graph with exponents taken from `{group: log2_t}` (Q4).

        Args:
            log2_thresholds: binary logarithm of the real threshold of every share group.

        Raises:
            ModelError: a group has no threshold, or one that is not finite.
            UnsupportedError: an exponent, or the sum of two that meet in a layer, leaves the exact range (Q5).
        """
        exponents: dict[str, int] = {}
        for group, members in self.groups().items():
            log2_t = log2_thresholds.get(group)
            if log2_t is None or not math.isfinite(log2_t):
                raise ModelError(f"share group {group!r} needs a finite log2 threshold. Received: {log2_t}")
            exponents[group] = math.ceil(log2_t) - members[0].bits + int(members[0].signed)
        own = {q.id: exponents[q.group] for q in self.quantizers if q.derived_from is None}
        return replace(
            self,
            quantizers=tuple(
                replace(q, exponent=own[q.id] if q.derived_from is None else sum(own[source] for source in q.derived_from))
                for q in self.quantizers
            ),
        )

    def to_json(self) -> str:
        """One line of JSON: the `tqt_onnx.quantizers` entry of the model's metadata (O4)."""
        return json.dumps({"contract": self.contract, "quantizers": [asdict(q) for q in self.quantizers]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> QuantizerGraph:
        """The graph written by `to_json`.

        Raises:
            ModelError: the text is not JSON, or not of this schema.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            raise ModelError(f"tqt_onnx.quantizers is not JSON: {error}") from None
        if not isinstance(data, dict) or set(data) != {"contract", "quantizers"} or not isinstance(data["quantizers"], list):
            raise ModelError("tqt_onnx.quantizers must be an object with 'contract' and a list 'quantizers'")
        return cls(data["contract"], tuple(_parse(entry) for entry in data["quantizers"]))


def _check_derived(quantizer: Quantizer, by_id: Mapping[str, Quantizer]) -> None:
    """A derived scale is the product of two that are decided by thresholds of their own (L11)."""
    exponents = []
    for name in quantizer.derived_from or ():
        source = by_id.get(name)
        if source is None:
            raise ModelError(f"quantizer {quantizer.id!r} derives its scale from {name!r}, which does not exist")
        if source.derived_from is not None:
            raise ModelError(f"quantizer {quantizer.id!r} derives its scale from {name!r}, whose own scale is derived")
        exponents.append(source.exponent)
    known = [exponent for exponent in exponents if exponent is not None]
    if len(known) == 2 and quantizer.exponent not in (None, sum(known)):
        raise ModelError(
            f"quantizer {quantizer.id!r}: the exponents {known} it derives from add up. Received: {quantizer.exponent}"
        )


def _parse(entry: Any) -> Quantizer:
    """One quantizer from JSON, every field of the right type: nothing read from a file is trusted."""
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise ModelError(
            f"a quantizer must be an object with the fields {', '.join(sorted(_FIELDS))}. Received: {str(entry)[:200]}"
        )

    def typed(name: str, *types: type) -> Any:
        value = entry[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ModelError(f"quantizer field {name!r} has the wrong type. Received: {str(value)[:200]!r}")
        return value

    none = type(None)
    limit = typed("limit", int, float, none)
    if isinstance(limit, int) and limit.bit_length() > 128:
        raise ModelError("quantizer field 'limit' must be a number that float32 can hold")
    derived: Iterable[Any] | None = typed("derived_from", list, none)
    if derived is not None:
        derived = tuple(derived)
        if len(derived) != 2 or not all(isinstance(name, str) for name in derived):
            raise ModelError(f"quantizer field 'derived_from' must be two ids. Received: {derived!r}")
    return Quantizer(
        id=typed("id", str),
        value=typed("value", str),
        bits=typed("bits", int),
        signed=typed("signed", bool),
        role=typed("role", str),
        group=typed("group", str),
        limit=None if limit is None else float(limit),
        derived_from=derived,
        exponent=typed("exponent", int, none),
    )
