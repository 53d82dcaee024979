"""A set of inputs, read batch by batch, and the views of it that keep calibration and evaluation apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .geometry import Region
from .preprocess import Preprocessing

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Labels(Protocol):
    """Labels by row: an int64 array, or something that reads them when they are asked for."""

    def __getitem__(self, rows: Integers, /) -> Integers:
        """int64 [n] class indices of these rows."""
        ...


class Reader(Protocol):
    """Where examples come from: row numbers in, float32 arrays out."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def name(self, row: int) -> str:
        """What an error message calls the example."""
        ...

    def read(self, rows: Integers) -> Floats:
        """The examples of these rows, [len(rows), *shape] float32, not yet checked for NaN and Inf.

        Raises:
            DataError: an example cannot be read.
        """
        ...


@runtime_checkable
class PixelReader(Reader, Protocol):
    """A reader that also gives examples before their values are mapped, for augmentation."""

    @property
    def prepare(self) -> Preprocessing:
        """The map of values that `read` applies behind `pixels`."""
        ...

    @property
    def holds_pixels(self) -> bool:
        """Whether `pixels` are numbers of 0..255."""
        ...

    def pixels(self, rows: Integers, regions: Sequence[Region] | None = None) -> Floats:
        """The examples [len(rows), *shape] float32; with `regions`, one for each row, these parts of them.

        Raises:
            DataError: an example cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in a fixed order, with or without labels. Views share the reader; only one batch is ever in memory.

    Attributes:
        reader: where examples come from.
        rows: int64 [N], the rows of the reader that belong to this view, in its order, each at most once.
        all_labels: labels of the reader's rows, or None.
        source: what it was opened from, for messages.
        location: folder or file that the examples' names are relative to; None for arrays in memory.
    """

    reader: Reader
    rows: Integers
    all_labels: Labels | None
    source: str
    location: Path | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch dimension."""
        return self.reader.shape

    @property
    def labels(self) -> Integers | None:
        """int64 [N] class indices in the order of this view, or None. Those of TFRecord files are all read for it."""
        return None if self.all_labels is None else self.all_labels[self.rows]

    def names(self) -> list[str]:
        """What the examples are called, in the order of this view: files, rows or records."""
        return [self.reader.name(row) for row in self.rows.tolist()]

    def batches(self, batch_size: int) -> Iterator[tuple[Floats, Integers | None]]:
        """Inputs [n, *input_shape] float32 and labels [n] int64 or None; the last batch may be smaller, nothing is dropped.

        Raises:
            DataError: the batch size is not positive, or an example is unreadable or holds a NaN or an Inf.
        """
        if batch_size < 1:
            raise DataError(f"the batch size must be positive. Received: {batch_size}")
        for start in range(0, len(self.rows), batch_size):
            rows = self.rows[start : start + batch_size]
            inputs = self.reader.read(rows)
            self.check_finite(inputs, rows)
            yield inputs, None if self.all_labels is None else self.all_labels[rows]

    def array(self) -> Floats:
        """All inputs in one array [N, *input_shape]: for calibration sets and other small views.

        Raises:
            DataError: as `batches`.
        """
        result = np.empty((len(self), *self.input_shape), np.float32)
        start = 0
        for inputs, _ in self.batches(64):
            result[start : start + len(inputs)] = inputs
            start += len(inputs)
        return result

    def take(self, n: int) -> Dataset:
        """The first `n` examples, or all where there are fewer.

        Raises:
            DataError: `n` is not positive.
        """
        if n < 1:
            raise DataError(f"{self.source}: the number of examples to take must be positive. Received: {n}")
        return replace(self, rows=self.rows[:n])

    def skip(self, n: int) -> Dataset:
        """All but the first `n` examples.

        Raises:
            DataError: `n` is negative or nothing would be left.
        """
        if not 0 <= n < len(self):
            raise DataError(f"{self.source}: 0 to {len(self) - 1} of its {len(self)} examples can be skipped. Received: {n}")
        return replace(self, rows=self.rows[n:])

    def sample(self, n: int, seed: int) -> Dataset:
        """`n` examples drawn without replacement, in random order; `sample(2 * n, seed)` begins with `sample(n, seed)`.

        Raises:
            DataError: there are fewer than `n`, or `n` is not positive.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"{self.source}: there are {len(self)} examples to draw from. Received: {n} asked for")
        return replace(self, rows=self.rows[random_order(len(self), seed)[:n]])

    def without(self, other: Dataset) -> Dataset:
        """The examples that are not in `other`, in this order: what is left to evaluate on after calibration.

        Raises:
            DataError: `other` is not a view of the same source, or nothing would be left.
        """
        if other.reader is not self.reader:
            raise DataError(f"{self.source}: only a view of the same source can be left out. Received: {other.source}")
        rows = self.rows[~np.isin(self.rows, other.rows)]
        if not len(rows):
            raise DataError(f"{self.source}: nothing is left of its {len(self)} examples without the {len(other)} left out")
        return replace(self, rows=rows)

    def without_names(self, names: Collection[str]) -> Dataset:
        """The examples that bear none of these names (those of `names()`): a calibration set listed earlier, say.

        Raises:
            DataError: a name that no example bears (the list is of another source), or nothing would be left.
        """
        own = self.names()
        unknown = set(names).difference(own)
        if unknown:
            raise DataError(f"{self.source}: has no example called {min(unknown)!r} to be left out; its first is {own[0]!r}")
        left_out = set(names)
        rows = self.rows[np.array([name not in left_out for name in own], np.bool_)]
        if not len(rows):
            raise DataError(f"{self.source}: nothing is left of its {len(self)} examples without the {len(left_out)} left out")
        return replace(self, rows=rows)

    def split(self, n: int, seed: int) -> tuple[Dataset, Dataset]:
        """`sample(n, seed)` and the rest: two views that never overlap.

        Raises:
            DataError: nothing would be left.
        """
        chosen = self.sample(n, seed)
        return chosen, self.without(chosen)

    def check_finite(self, inputs: Floats, rows: Integers) -> None:
        """Refuses inputs [len(rows), ...], read for these rows of the reader, that hold a NaN or an Inf.

        Raises:
            DataError: names the example, the place and the value.
        """
        if np.isfinite(inputs).all():
            return
        index = np.argwhere(~np.isfinite(inputs))[0]
        place: list[Any] = [int(i) for i in index[1:]]
        value = float(inputs[tuple(index)])
        raise DataError(
            f"{self.source}: {self.reader.name(int(rows[index[0]]))} holds {value} at {place}; finite float32 numbers are expected"
        )


def random_order(n: int, seed: int, *key: int) -> Integers:
    """A permutation of `0..n-1`. NumPy keeps raw bit streams, unlike `Generator.permutation`, the same for all its versions.

    Args:
        n: how many.
        seed: not negative.
        key: numbers that tell independent permutations of one seed apart (epochs, say).
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int64)
