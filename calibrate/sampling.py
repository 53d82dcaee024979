"""Places at which a layer is looked at, drawn from every image: what it sees there quantized and what it gives in float.

Rows are written where they stay, those of images kept back last, so that neither part is ever copied.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..kernels.ridge import Rows, predict
from .tunable import TunableLayer, places_of, seen_at, weights_of

Array = npt.NDArray[Any]

HOLD_EVERY: Final = 5
"""One image in so many is kept back: it chooses between fits and is never fitted."""

FEWEST_TO_HOLD: Final = 10
"""With fewer images all are fitted: one or two kept back would choose by chance."""

_BYTES: Final = 48 << 20
"""Bound of what a layer sees and should give in its rows, which exist once (C5); `reconstruct` says what it needs beside them."""

_FEWEST_ROWS: Final = 256
"""So many are looked at even if they take more than that."""


def most_rows(layer: TunableLayer, wanted: int) -> int:
    """As many rows as wanted, fewer where they are long."""
    groups, inputs, outputs = layer.stacked(weights_of(layer)).shape
    possible: int = _BYTES // (4 * groups * (inputs + outputs))
    return min(wanted, max(_FEWEST_ROWS, possible))


class Sample:
    """The rows of one layer, batch by batch.

    Args:
        layer: the layer.
        bias: its float bias [G, O], or None.
        images: how many there are in all.
        wanted: at most so many rows.
        random: draws the places, and the images where there are more of them than rows.
    """

    def __init__(
        self, layer: TunableLayer, bias: npt.NDArray[np.float64] | None, images: int, wanted: int, random: np.random.Generator
    ) -> None:
        self._layer, self._bias, self._random = layer, bias, random
        self._weights = layer.stacked(weights_of(layer))
        groups, inputs, outputs = self._weights.shape
        wanted = most_rows(layer, wanted)
        self._held = (np.arange(images) % HOLD_EVERY == HOLD_EVERY - 1) & (images >= FEWEST_TO_HOLD)
        self._drawn = np.ones(images, bool)
        if images > wanted:
            self._drawn[random.choice(images, images - wanted, replace=False)] = False
        self._per_image = max(1, wanted // max(1, images))
        self._start = self._per_image * int((self._drawn & ~self._held).sum())  # of those kept back
        rows = self._per_image * int(self._drawn.sum())
        self._data, self._target = (np.empty((groups, rows, size), np.float32) for size in (inputs, outputs))
        self._ends = {False: 0, True: self._start}
        self._first = 0

    def add(self, seen: Array, exact: Array, images: int) -> None:
        """Draws from the next batch.

        Args:
            seen: what the layer reads, quantized upstream, in its layout.
            exact: the same in the float network.
            images: how many the batch has; where the leading dimension is another, each has an equal share of the places.
        """
        count = math.prod(places_of(self._layer, seen))
        total = count * len(seen)
        drawn: dict[bool, list[Array]] = {False: [], True: []}
        for image in range(images):
            start, stop = (total * each // images for each in (image, image + 1))
            if self._drawn[self._first + image] and start < stop:
                places = self._random.choice(stop - start, min(stop - start, self._per_image), replace=False)
                drawn[bool(self._held[self._first + image])].append(start + places)
        self._first += images
        for held, found in drawn.items():
            if found:
                self._write(held, seen, exact, *np.divmod(np.concatenate(found), count))

    def rows(self) -> Rows | None:
        """All of them; None where the layer looks at no place."""
        fitted, held = self._ends[False], self._ends[True] - self._start
        if not fitted:
            return None
        for array in (self._data, self._target):  # images with fewer places than were foreseen leave a gap
            if fitted < self._start and held:
                array[:, fitted : fitted + held] = array[:, self._start : self._start + held]
        count = fitted + held
        kept_back = np.arange(count) >= fitted
        return Rows(self._data[:, :count], self._target[:, :count], kept_back, self._layer.low, self._layer.high)

    def _write(self, held: bool, seen: Array, exact: Array, rows: Array, places: Array) -> None:
        here = slice(self._ends[held], self._ends[held] + len(rows))
        self._ends[held] = here.stop
        self._data[:, here] = seen_at(self._layer, seen, rows, places)
        real = Rows(seen_at(self._layer, exact, rows, places), self._target[:, here], np.zeros(rows.shape, bool))
        self._target[:, here] = predict(real, self._weights, self._bias)
