"""Which C type holds what: ranges of integers, the types of arrays and of what is computed, literals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...ir import UnsupportedError

STORED: Final = {
    "int8_t": (-(1 << 7), (1 << 7) - 1),
    "uint8_t": (0, (1 << 8) - 1),
    "int16_t": (-(1 << 15), (1 << 15) - 1),
    "uint16_t": (0, (1 << 16) - 1),
    "int32_t": (-(1 << 31), (1 << 31) - 1),
    "uint32_t": (0, (1 << 32) - 1),
    "int64_t": (-(1 << 63), (1 << 63) - 1),
}
"""Types of array elements, the narrowest first."""


@dataclass(frozen=True, slots=True)
class Range:
    """All integers from `low` to `high`."""

    low: int
    high: int

    def __lshift__(self, shift: int) -> Range:
        return Range(self.low << shift, self.high << shift)

    def __contains__(self, other: object) -> bool:
        return isinstance(other, Range) and self.low <= other.low and other.high <= self.high

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(-self.low, self.high)


def hull(ranges: Iterable[Range]) -> Range:
    """The smallest range that holds all of them."""
    known = list(ranges)
    return Range(min(item.low for item in known), max(item.high for item in known))


def stored(integers: Range) -> str:
    """The narrowest type of an array of such integers."""
    return next(name for name, ends in STORED.items() if integers in Range(*ends))


LIMIT: Final = 1 << 62
"""The largest magnitude of what is computed, as the oracle has it: half of 2^63 is no more, so that every shift is exact."""


def computed(integers: Range, what: str) -> str:
    """`int32_t` or `int64_t`.

    Args:
        integers: everything that is computed on the way, partial sums included.
        what: the layer, for the error message.

    Raises:
        UnsupportedError: they reach beyond 2^62.
    """
    if integers.magnitude <= LIMIT:
        return "int32_t" if integers in Range(*STORED["int32_t"]) else "int64_t"
    bits = integers.magnitude.bit_length() + 1
    raise UnsupportedError(
        f"target c: {what}: what it computes needs {bits} bits; C99 has integers of 64, and up to 2^62 every shift is exact; "
        "scales closer to each other are accepted. "
        f"Received: up to {integers.magnitude}"
    )


def width(ctype: str) -> int:
    """Bits of a type."""
    return int(ctype.strip("uint_"))


def literal(number: int, ctype: str = "int32_t") -> str:
    """A number as an expression of at least the given type; the lowest of each type has no literal of its own."""
    if ctype == "int64_t":
        return f"(-INT64_C({-number - 1}) - 1)" if number == -(1 << 63) else f"INT64_C({number})"
    if number == -(1 << 31):
        return "(-2147483647 - 1)"
    return f"{number}u" if number >= 1 << 31 else str(number)
