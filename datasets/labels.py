"""Labels as indices of a network's outputs, for data that this room reads; those that do not fit are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..ir import DataError

Integers = npt.NDArray[np.int64]


def output_indices(
    labels: npt.NDArray[np.integer], offset: int, classes: int | None, source: str, name: Callable[[int], str] | None = None
) -> Integers:
    """Indices of the right outputs, label + offset.

    Args:
        labels: integers [n].
        offset: output index of class 0.
        classes: outputs of the network; None where any number does.
        source: the data or the model, for messages.
        name: what a message calls the example at a place of `labels`; without it the label alone is named.

    Returns:
        int64 [n].

    Raises:
        DataError: names the first label that the network has no output for.
    """
    targets: Integers = np.asarray(labels).astype(np.int64) + offset
    beyond = (targets < 0) | (targets >= (np.iinfo(np.int64).max if classes is None else classes))
    if beyond.any():
        first = int(np.argmax(beyond))
        who = "" if name is None else f" of {name(first)}"
        fits = _fitting(int(targets[first]), offset, classes)
        raise DataError(f"{source}: {fits}. Received: label {int(labels[first])}{who}")
    return targets


def _fitting(target: int, offset: int, classes: int | None) -> str:
    """Labels that would do; off by one at either end is mostly a background class."""
    hint = ""
    if target in (-1, classes):
        other, first = (offset + 1, 0) if target < 0 else (offset - 1, 1)
        hint = f"; labels that count from {first} may want --label-offset {other}"
    last = "" if classes is None else classes - 1 - offset
    known = "" if classes is None else f"{classes} classes, "
    return f"labels {max(0, -offset)}..{last} are expected ({known}label offset {offset}{hint})"
