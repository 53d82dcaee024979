"""The end of a step: a shift, ties to even, and a saturation (Q1, Q2), without anything that C99 leaves open.

`kernels.fixed_point.requantize` is the specification. C99 leaves the right shift of negative numbers to the compiler and the left
shift undefined: the complement is shifted instead, and left shifts are products, of numbers that are saturated first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...kernels.fixed_point import shift_half_even
from .types import Range, computed, hull, literal

_MOST_SHIFT: Final = {"int32_t": 30, "int64_t": 62}
"""The largest shift whose halves the type still holds."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Something in C that has a value.

    Attributes:
        text: without side effects; a name or a call, or in parentheses.
        integers: what it can be.
    """

    text: str
    integers: Range

    @property
    def ctype(self) -> str:
        """`int32_t` or `int64_t`."""
        return computed(self.integers, "a number")


def rounded(source: Expression, shift: int, lower: int, upper: int) -> Expression:
    """`clip(round(source / 2^shift), lower, upper)`."""
    if shift > 0:
        return saturated(_right(source, shift), lower, upper)
    if shift == 0:
        return saturated(source, lower, upper)
    low, high = min(lower, 0), max(upper, 0)
    kept = saturated(source, low, high)
    places = min(-shift, max(-low - 1, high).bit_length())  # so many leave nothing but 0 and the bounds themselves
    wide = kept.integers << places
    factor = literal(1 << places, computed(hull([wide, Range(0, 1 << places)]), "a left shift"))
    return saturated(Expression(f"({kept.text} * {factor})", wide), lower, upper)


def saturated(source: Expression, lower: int, upper: int) -> Expression:
    """`clip(source, lower, upper)`; the number itself where it cannot lie outside."""
    if source.integers in Range(lower, upper):
        return source
    kept = Range(*(min(max(end, lower), upper) for end in (source.integers.low, source.integers.high)))
    if source.ctype == "int32_t":
        ends = Range(max(lower, -(1 << 31)), min(upper, (1 << 31) - 1))
        return Expression(f"clip_32({bare(source.text)}, {literal(ends.low)}, {literal(ends.high)})", kept)
    text = f"clip_64({bare(source.text)}, {literal(lower, 'int64_t')}, {literal(upper, 'int64_t')})"
    return Expression(f"(int32_t){text}" if computed(kept, "a number") == "int32_t" else text, kept)


def _right(source: Expression, shift: int) -> Expression:
    if shift > _MOST_SHIFT["int64_t"]:
        return Expression("0", Range(0, 0))
    integers = Range(*(int(end) for end in shift_half_even(np.array([source.integers.low, source.integers.high]), shift)))
    narrow = source.ctype == "int32_t" and shift <= _MOST_SHIFT["int32_t"]
    text = f"shift_half_even_{32 if narrow else 64}({bare(source.text)}, {shift})"
    return Expression(text if narrow or computed(integers, "a number") == "int64_t" else f"(int32_t){text}", integers)


def bare(text: str) -> str:
    """Without the parentheses around all of it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if letter == ")" and place == len(text) - 1 and text[0] == "(" else text
    return text


def helpers(code: str) -> list[str]:
    """Definitions of the functions that are called somewhere in `code`."""
    lines: list[str] = []
    for name, text in _HELPERS.items():
        for bits in (32, 64):
            if f"{name}_{bits}(" in code:
                lines += text.replace("@", str(bits)).strip().splitlines()
                lines.append("")
    return lines


_HELPERS: Final = {
    "shift_half_even": """
/* value / 2^shift to the nearest integer, ties to the even one, for a shift of at least 1.
 * C99 leaves the right shift of a negative number to the compiler; its complement is not negative. */
static int@_t shift_half_even_@(int@_t value, int shift)
{
    const int@_t below = value < 0 ? ~(~value >> shift) : value >> shift;
    const int@_t rest = value & (((int@_t)1 << shift) - 1);
    const int@_t half = (int@_t)1 << (shift - 1);
    return below + (rest > half || (rest == half && (below & 1) != 0));
}
""",
    "clip": """
/* The nearest number from low to high. */
static int@_t clip_@(int@_t value, int@_t low, int@_t high)
{
    return value < low ? low : value > high ? high : value;
}
""",
}
