"""Tables of what another rounding than the model's changes."""

from __future__ import annotations

from collections.abc import Sequence

from .noise import SHOWN
from .shapes import OutputEffect, TensorEffect
from .table import PlainTable, table


def rounding_table(rounding: str, effects: Sequence[TensorEffect]) -> PlainTable:
    """The tensors of which most integers change; ties are those of the model's own run."""
    touched = [item for item in effects if item.changed or item.decided]
    most = sorted(touched, key=lambda item: -item.changed / item.requantized)[:SHOWN]
    rows = [
        (item.tensor, item.ties, item.requantized, item.decided, item.changed, f"{item.changed / item.requantized:.1%}")
        for item in most
    ]
    title = f"Rounded {rounding}, most changed first ({len(most)} of {len(touched)} tensors)"
    columns = ("tensor", "ties", "rounded", "decided otherwise", "changed", "share")
    return table(title, columns, rows, elide=("tensor",))


def output_effect_table(rounding: str, outputs: Sequence[OutputEffect], ends: Sequence[OutputEffect]) -> PlainTable:
    """The outputs, and the integers that float parts read."""
    rows = [
        (item.output, kind, item.numbers, item.changed, item.answers_changed if item.answers else None, item.answers or None)
        for kind, items in (("output", outputs), ("read in float", ends))
        for item in items
    ]
    columns = ("tensor", "what", "numbers", "changed", "top-1 changed", "of")
    return table(f"Outputs, rounded {rounding}", columns, rows, elide=("tensor",))
