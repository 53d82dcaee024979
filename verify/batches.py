"""Batches in slices, so that memory is bounded by a few images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy.typing as npt

Feeds = Mapping[str, npt.NDArray[Any]]
"""Graph input name -> array, batch first."""

ELEMENTS: Final = 640_000
"""Input elements computed at once: four images of 224 x 224 x 3, whose tensors take about half a gigabyte as int64."""

MOST_IMAGES: Final = 64
"""Images computed at once, however small they are."""


def slices(feeds: Feeds) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The feeds in slices of a few large or many small images; an empty batch is one empty slice."""
    batch = max((array.shape[0] for array in feeds.values()), default=0)
    elements = sum(array.size for array in feeds.values()) // max(batch, 1)
    size = min(max(ELEMENTS // max(elements, 1), 1), MOST_IMAGES)
    for start in range(0, max(batch, 1), size):
        yield {name: array[start : start + size] for name, array in feeds.items()}
