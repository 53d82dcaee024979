"""Reshapes that FINN knows under another name: a flattening, and a Transpose of an image with sides or channels of 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Shape = Sequence[int | None]

RESHAPES: Final = frozenset({"Flatten", "Reshape", "Squeeze"})
"""Operators that `flattens` and `transposition` are asked of."""

LAYOUTS: Final = ([0, 3, 1, 2], [0, 2, 3, 1])
"""NHWC to NCHW, and back."""


def flattens(before: Shape, after: Shape) -> bool:
    """Whether each example becomes one vector, in its order."""
    return len(after) == 2 and before[0] == after[0]


def transposition(before: Shape, after: Shape) -> list[int] | None:
    """The change of layout that gives this shape and keeps the order of the elements, or None."""
    for perm in LAYOUTS:
        if len(before) == 4 and [before[axis] for axis in perm] == list(after):
            kept = [axis for axis in perm if before[axis] != 1]
            if kept == sorted(kept):
                return perm
    return None
