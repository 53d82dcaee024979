"""Tables of `check` that rank tensors, the worst first: noise against the float model, and ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .shapes import Noise, Ties, Unmatched
from .table import PlainTable, table

SHOWN: Final = 10
"""Rows of a ranking; JSON has all."""


def noise_table(noises: Sequence[Noise]) -> PlainTable:
    """The tensors that lost most, with what their own quantizer does to undisturbed numbers."""
    worst = sorted(noises, key=lambda noise: noise.sqnr_db)[:SHOWN]
    rows = [(noise.tensor, noise.role, _type(noise), _decibels(noise.sqnr_db), _decibels(noise.own_db)) for noise in worst]
    title = f"Signal to noise against the float model, worst first ({len(worst)} of {len(noises)} tensors)"
    return table(title, ("tensor", "role", "type", "SQNR dB", "own dB"), rows, elide=("tensor",))


def own_noise_table(noises: Sequence[Noise]) -> PlainTable:
    """The tensors whose own quantizer costs most: where the noise is made, not where it arrives."""
    known = [(noise.own_db, noise) for noise in noises if noise.own_db is not None]
    worst = sorted(known, key=lambda item: item[0])[: SHOWN // 2]
    rows = [(noise.tensor, noise.role, _type(noise), _decibels(own)) for own, noise in worst]
    title = f"Where the noise is made, worst first ({len(worst)} of {len(known)} quantizers)"
    return table(title, ("tensor", "role", "type", "own dB"), rows, elide=("tensor",))


def unmatched_table(unmatched: Sequence[Unmatched]) -> PlainTable:
    """Tensors that could not be compared with the float model."""
    return table("Not compared with the float model", ("tensor", "reason"), [(item.tensor, item.reason) for item in unmatched])


def tie_table(counts: Sequence[Ties]) -> PlainTable:
    """The tensors in which the rounding rule decides most often (H1)."""
    tied = [item for item in counts if item.ties]
    worst = sorted(tied, key=lambda item: -item.share)[:SHOWN]
    rows = [(item.tensor, item.ties, item.requantized, f"{item.share:.1%}") for item in worst]
    title = f"Roundings exactly on a tie, most first ({len(worst)} of {len(tied)} tensors)"
    return table(title, ("tensor", "ties", "rounded", "share"), rows, elide=("tensor",))


def _type(noise: Noise) -> str | None:
    return None if noise.bits is None else f"{'' if noise.signed else 'u'}int{noise.bits} 2^{noise.exponent}"


def _decibels(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "no signal"
