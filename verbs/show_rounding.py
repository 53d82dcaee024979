"""What the rounding rule decides: ties, and what another rule changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..report import output_effect_table, rounding_table, tie_table
from .rounding import rounding_line, share

if TYPE_CHECKING:
    from ..report import RenderableType
    from ..verify import CheckResult


def rounding_parts(result: CheckResult) -> Iterator[RenderableType]:
    """Ties; then, where another rounding was simulated, tensors, outputs, and the sum of it."""
    rounded, ties = sum(result.requantized.values()), sum(result.ties.values())
    if ties:
        yield tie_table(result.tie_counts)
    if rounded:
        yield f"roundings exactly on a tie: {share(ties, rounded)}"
    effect = result.rounding
    if effect is None:
        return
    if any(item.changed or item.decided for item in effect.tensors):
        yield rounding_table(effect.rounding, effect.tensors)
    yield output_effect_table(effect.rounding, effect.outputs, effect.ends)
    yield rounding_line(effect)
