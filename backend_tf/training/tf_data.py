"""Any `tf.data` pipeline as training data."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import DataError, UsageError
from .data import Batch
from .tf_elements import Elements

_INFINITE: Final = -1
_UNKNOWN: Final = -2


class FromTfData:
    """Batches of a `tf.data.Dataset`, read in its order and from the beginning again at its end.

    Batches are always full: what does not fill the last one of an epoch is joined with the next epoch's. Each replica takes its
    rows of every batch.

    A pipeline gives its elements one after another, so that for a training that is resumed TensorFlow runs it up to that step
    (`Dataset.skip`). It goes on bit for bit as if it had not been interrupted only where the pipeline gives the same elements each
    time: every random operation has a seed of its own, and no `map` or `interleave` is `deterministic=False`. Any other pipeline
    can be gone on with too, in an order of its own.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        inputs: Mapping[str, Sequence[int | None]],
        batch_size: int | None = None,
        *,
        steps_per_epoch: int | None = None,
        label_offset: int = 0,
    ) -> None:
        """Finds out what the elements are; a batched pipeline whose batch size is not fixed is asked for its first batch.

        Args:
            dataset: elements `(x, y)`, `x` or `(x,)`, single examples or batches, told apart by their ranks; `x` is a tensor of
                the only input, or a dictionary of tensors by input name; `y` are whole numbers, class indices. Numbers are
                passed on as float32, otherwise as they are.
            inputs: shape of one example by input name, without the batch dimension; None where a size is free.
            batch_size: examples of a global batch; by default that of a batched pipeline.
            steps_per_epoch: needed where the pipeline does not know its length, or never ends.
            label_offset: output index of class 0, as in `evaluate`.

        Raises:
            DataError: elements that do not fit the network, or fewer examples than a batch.
            UsageError: a batch size or a number of steps that is missing or not positive.
        """
        self._elements = Elements(dataset.element_spec, inputs)
        own = self._elements.batch_size
        if self._elements.batched and own is None:
            own = self._elements.size(_first(dataset))
        size = own if batch_size is None else batch_size
        if size is None or size < 1:
            wanted = "single examples: a batch size" if not self._elements.batched else "a batch size"
            raise UsageError(f"the tf.data pipeline: {wanted} of at least 1 is expected. Received: {size}")
        self._size, self._offset = size, label_offset
        self._steps = _steps(dataset, own if self._elements.batched else 1, size, steps_per_epoch)
        self._identity = f"{dataset.element_spec} {int(dataset.cardinality())} {size} {self._steps} {label_offset}"
        self._pipeline = dataset.repeat()
        if not self._elements.batched:
            self._pipeline = self._pipeline.batch(size, drop_remainder=True)
        elif self._elements.batch_size != size:
            self._pipeline = self._pipeline.rebatch(size, drop_remainder=True)
        self._lock = threading.Lock()
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._last: Batch | None = None

    @property
    def batch_size(self) -> int:
        """Examples of a global batch."""
        return self._size

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every example has been seen."""
        return self._steps

    @property
    def labelled(self) -> bool:
        """Whether the elements have labels."""
        return self._elements.labelled

    def fingerprint(self) -> str:
        """What tells this pipeline from others: its element specification, its length and the batch size.

        Nothing is read for it: an order that is drawn anew each time would make it another one.
        """
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The rows of one replica of a global batch.

        Args:
            step: 0, 1, ... across epochs. Forward, everything between is dropped; backward, the pipeline is started anew, which
                gives other elements where it shuffles anew for each iteration.
            part: of the global batch, `0 <= part < parts`.
            parts: into which it is divided, a divisor of the batch size.

        Returns:
            Feeds by input name, float32 [n, ...], and int64 [n] indices of the right outputs, or None.

        Raises:
            DataError: the pipeline fails, or gives a NaN, an Inf or a negative label.
            UsageError: a batch that cannot be divided so.
        """
        if self._size % parts or not 0 <= part < parts:
            raise UsageError(f"a batch size that {parts} replicas can share equally is expected. Received: {self._size}")
        with self._lock:
            feeds, labels = self._at(step)
        rows = slice(part * (self._size // parts), (part + 1) * (self._size // parts))
        return {name: array[rows] for name, array in feeds.items()}, None if labels is None else labels[rows]

    def _at(self, step: int) -> Batch:
        if self._last is not None and step == self._next - 1:
            return self._last
        if self._iterator is None or step < self._next:
            self._iterator, self._next = iter(self._pipeline.skip(step)), step
        iterator, self._iterator, self._last = self._iterator, None, None  # after an error the next call starts anew
        element = None
        try:
            while self._next <= step:
                element = next(iterator)
                self._next += 1
        except StopIteration:
            raise DataError(f"the tf.data pipeline: a batch of {self._size} examples is expected. Received: none") from None
        except tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0]
            raise DataError(f"the tf.data pipeline: step {self._next} cannot be read: {reason}") from None
        self._last, self._iterator = self._arrays(element, step), iterator
        return self._last

    def _arrays(self, element: Any, step: int) -> Batch:
        feeds, labels = self._elements.arrays(element)
        for name, array in feeds.items():
            if not np.isfinite(array).all():
                value = array[~np.isfinite(array)][0]
                raise DataError(f"the tf.data pipeline: finite numbers are expected for {name!r} of step {step}. Received: {value}")
        return feeds, None if labels is None else self._targets(labels, step)

    def _targets(self, labels: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int64]:
        targets: npt.NDArray[np.int64] = labels + self._offset
        if targets.min() < 0:
            raise DataError(
                f"the tf.data pipeline: labels of at least {max(0, -self._offset)} are expected (label offset {self._offset}). "
                f"Received: {int(labels.min())} in step {step}"
            )
        return targets


def _first(dataset: tf.data.Dataset) -> Any:
    try:
        return next(iter(dataset.take(1)))
    except StopIteration:
        raise DataError("the tf.data pipeline: elements are expected. Received: none") from None
    except tf.errors.OpError as error:
        raise DataError(f"the tf.data pipeline: its first element cannot be read: {str(error.message).splitlines()[0]}") from None


def _steps(dataset: tf.data.Dataset, each: int | None, size: int, given: int | None) -> int:
    """Steps of an epoch.

    Args:
        dataset: the pipeline.
        each: examples of an element.
        size: examples of a batch.
        given: by the caller.
    """
    elements = int(dataset.cardinality())
    examples = elements * (each or 1)
    if 0 <= examples < size:
        raise DataError(f"the tf.data pipeline: at least {size} examples, one batch, are expected. Received: {examples}")
    if given is None and elements in (_INFINITE, _UNKNOWN):
        why = "never ends" if elements == _INFINITE else "does not know its length"
        raise UsageError(f"the tf.data pipeline {why}: steps_per_epoch is expected. Received: none")
    if given is not None and given < 1:
        raise UsageError(f"steps_per_epoch of at least 1 is expected. Received: {given}")
    return -(-examples // size) if given is None else given
