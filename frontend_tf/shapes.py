"""The one rule for input shapes: the batch dimension is dynamic, every other one is a number where it can be known."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import ModelError


def settle_shape(
    where: str, known: Sequence[int | None] | None, wanted: Sequence[int] | None, *, open_sizes: bool = False
) -> list[int | None]:
    """Shape of an input, batch dimension included.

    Args:
        where: what the shape belongs to, for messages.
        known: what the model says, batch dimension included, None for open dimensions; None where even the rank is open.
        wanted: what the user says, without the batch dimension.
        open_sizes: dimensions that nobody says may stay open.

    Raises:
        ModelError: the two contradict each other, or a dimension stays open that may not.
    """
    if known is None:
        if wanted is None:
            raise ModelError(f"{where} has an unknown shape; give the input shape (H,W,C)")
        return [None, *wanted]
    if not known:  # a scalar has no batch
        return []
    rest = list(known[1:])
    if None in rest and wanted is None and not open_sizes:
        raise ModelError(f"{where} has open dimensions besides the batch; give the input shape (H,W,C). Received: {tuple(known)}")
    if None in rest and wanted is not None:
        if len(wanted) != len(rest):
            raise ModelError(f"{where} has {len(rest)} dimensions besides the batch. Received: {tuple(wanted)}")
        if any(dim is not None and dim != want for dim, want in zip(rest, wanted, strict=True)):
            raise ModelError(f"{where} has shape {tuple(known)}. Received: input shape {tuple(wanted)}")
        rest = list(wanted)
    return [None, *rest]
