"""Batches to train on, each a function of its step, so that a training that is resumed needs no stored position."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError, UsageError
from .augmentation import Augmentation
from .dataset import Dataset, random_order
from .labels import output_indices

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Feeds = dict[str, npt.NDArray[np.float32]]

STREAM: Final = 0
"""Tells the random numbers of the order from those of augmentation, which has 1."""

_MOST_THREADS: Final = 8
_CHUNK: Final = 4  # examples that a thread takes at least: a task of its own for a small image would cost more than it saves


class Shuffled:
    """Examples in a new order each epoch, as `backend_tf.training` reads them; the epochs follow one another without a gap.

    Batches are always full: where an epoch's examples do not fill the last one, it goes on with the next epoch's, and nothing
    is ever dropped. The order is a function of (seed, epoch), what augmentation does to an example of (seed, epoch, row).
    Images are decoded by several threads.
    """

    def __init__(
        self,
        dataset: Dataset,
        input_name: str,
        batch_size: int,
        seed: int,
        augment: Augmentation | None = None,
        *,
        classes: int | None = None,
        label_offset: int = 0,
        threads: int | None = None,
    ):
        """Checks what can be checked without reading examples.

        Args:
            dataset: examples, with or without labels.
            input_name: of the network.
            batch_size: examples of a global batch.
            seed: of the order and of augmentation; not negative.
            augment: random changes, or None for examples as evaluation has them.
            classes: outputs of the network that labels are checked against: at once where all labels are in memory, else with
                their batch.
            label_offset: output index of class 0, as in `evaluate`.
            threads: that read and decode; by default one for each processor, at most 8.

        Raises:
            DataError: fewer examples than a batch, a label without an output, or examples that cannot be augmented so.
            UsageError: a batch size, a number of threads or a seed out of range.
        """
        self._threads = min(os.cpu_count() or 1, _MOST_THREADS) if threads is None else threads
        if batch_size < 1 or seed < 0 or self._threads < 1:
            raise UsageError(
                "a batch size and a number of threads of at least 1 and a seed of at least 0 are expected. "
                f"Received: {batch_size}, {self._threads} and {seed}"
            )
        if len(dataset) < batch_size:
            raise DataError(
                f"{dataset.source}: at least {batch_size} examples, one batch, are expected to train on. Received: {len(dataset)}"
            )
        self._dataset, self._input_name, self._batch_size, self._seed = dataset, input_name, batch_size, seed
        self._classes, self._offset = classes, label_offset
        self._read = self._reader(augment)
        self._orders: dict[int, Integers] = {}
        if isinstance(dataset.all_labels, np.ndarray):
            self._targets(dataset.rows, dataset.all_labels[dataset.rows])

    @property
    def batch_size(self) -> int:
        """Examples of a global batch."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every example has been seen: examples / batch size, rounded up."""
        return -(-len(self._dataset) // self._batch_size)

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        return self._dataset.all_labels is not None

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[Feeds, Integers | None]:
        """The rows of one replica of a global batch; any step, in any order, from any thread.

        Args:
            step: of the global batch, 0, 1, ... across epochs.
            part: of the global batch, `0 <= part < parts`.
            parts: into which it is divided, a divisor of the batch size.

        Returns:
            Feeds by input name, float32 [n, ...], and int64 [n] indices of the right outputs, or None.

        Raises:
            DataError: an example is unreadable, holds a NaN or an Inf, or has a label that the network has no output for.
            UsageError: a batch that cannot be divided so.
        """
        if self._batch_size % parts or not 0 <= part < parts:
            raise UsageError(f"a batch size that {parts} replicas can share equally is expected. Received: {self._batch_size}")
        share = self._batch_size // parts
        start = step * self._batch_size + part * share
        epochs, places = np.divmod(np.arange(start, start + share), len(self._dataset))
        rows = np.empty(share, np.int64)
        for epoch in np.unique(epochs).tolist():
            rows[epochs == epoch] = self._order(epoch)[places[epochs == epoch]]
        inputs, labels = self._parallel(rows, epochs)
        self._dataset.check_finite(inputs, rows)
        return {self._input_name: inputs}, None if labels is None else self._targets(rows, labels)

    def _reader(self, augment: Augmentation | None) -> Callable[[Integers, Integers], Floats]:
        """(rows, epochs) -> inputs."""
        dataset, seed = self._dataset, self._seed
        if not augment:
            return lambda rows, _: dataset.reader.read(rows)
        reader = augment.checked(dataset.reader, dataset.source)
        return lambda rows, epochs: augment.read(reader, rows, seed, epochs)

    def _order(self, epoch: int) -> Integers:
        """Rows of the reader in the order of an epoch; the last two are kept, for batches across their border."""
        order = self._orders.get(epoch)
        if order is None:
            order = self._dataset.rows[random_order(len(self._dataset), self._seed, STREAM, epoch)]
            self._orders = {kept: rows for kept, rows in self._orders.items() if abs(kept - epoch) == 1} | {epoch: order}
        return order

    def _parallel(self, rows: Integers, epochs: Integers) -> tuple[Floats, Integers | None]:
        inputs = np.empty((len(rows), *self._dataset.input_shape), np.float32)
        labels = np.empty(len(rows), np.int64) if self.labelled else None

        def read(start: int) -> None:
            part = slice(start, start + size)
            inputs[part] = self._read(rows[part], epochs[part])
            if labels is not None and self._dataset.all_labels is not None:
                labels[part] = self._dataset.all_labels[rows[part]]

        size = max(_CHUNK, -(-len(rows) // (2 * self._threads)))
        for _ in _pool(self._threads).map(read, range(0, len(rows), size)):
            pass
        return inputs, labels

    def _targets(self, rows: Integers, labels: Integers) -> Integers:
        """Indices of the right outputs."""
        reader = self._dataset.reader
        return output_indices(
            labels, self._offset, self._classes, self._dataset.source, lambda place: reader.name(int(rows[place]))
        )


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that all trainings of this process share: they are idle between trainings, and not one more with each."""
    return ThreadPoolExecutor(threads, "tqt-onnx-data")
