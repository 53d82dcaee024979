"""Training data as the loop reads it: a function of the step, fetched ahead in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ...ir import DataError, UsageError

Feeds = dict[str, npt.NDArray[Any]]
Batch = tuple[Feeds, npt.NDArray[Any] | None]
SelectionData = Callable[[], Iterable[Batch]]
"""Gives the selection data anew for every validation, in batches of feeds and labels (or None)."""

_AHEAD: Final = 2


class TrainingBatches(Protocol):
    """What `train` reads; `datasets.Shuffled` and `FromTfData` are such."""

    @property
    def batch_size(self) -> int:
        """Examples of a global batch."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every example has been seen."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the batches have labels."""
        ...

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The rows of replica `part` of `parts` of the global batch `step` (0, 1, ... across epochs)."""
        ...


class Prefetcher:
    """Fetches the batches of the next steps while one is computed.

    Args:
        batches: the data.
        steps: steps to come, in order.
        parts: replicas of this process.
        of: replicas of all processes.
        check: called with a step and its labels, in the thread; what it raises is raised by `next`.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        steps: Sequence[int],
        parts: Sequence[int],
        of: int,
        check: Callable[[int, npt.NDArray[Any] | None], None],
    ) -> None:
        self._batches, self._steps, self._parts, self._of, self._check = batches, steps, parts, of, check
        self._ready: queue.Queue[dict[int, Batch] | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tqt-onnx-prefetch", daemon=True)

    def __enter__(self) -> Prefetcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            self._drop()
            self._thread.join(0.01)

    def next(self) -> dict[int, Batch]:
        """The rows of each replica of this process for the next step.

        Raises:
            DataError: the data cannot be read, or `check` refused it.
        """
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _work(self) -> None:
        try:
            for step in self._steps:
                rows = {part: self._batches.batch(step, part, self._of) for part in self._parts}
                for _, labels in rows.values():
                    self._check(step, labels)
                self._put(rows)
                if self._stopped.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: dict[int, Batch] | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def _drop(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._ready.get_nowait()


def check_batches(batches: TrainingBatches, batch: int, replicas: int, needs_labels: bool) -> None:
    """Refuses data that does not fit the schedule, the strategy or the loss.

    Raises:
        UsageError: another batch size than the schedule's, or one that the replicas cannot share equally; no labels.
        DataError: no steps in an epoch.
    """
    if batches.batch_size != batch:
        raise UsageError(f"the training data must come in the schedule's batches of {batch}. Received: {batches.batch_size}")
    if batch % replicas:
        raise UsageError(f"a batch size that {replicas} replicas can share equally is expected. Received: {batch}")
    if batches.steps_per_epoch < 1:
        raise DataError(f"an epoch of at least one batch is expected. Received: {batches.steps_per_epoch} batches")
    if needs_labels and not batches.labelled:
        raise UsageError("training with labels needs labelled training data; --distill needs no labels. Received: none")


def fingerprint(batches: TrainingBatches) -> str:
    """What tells this data, its order and its augmentation from others: a hash of the sizes and of the first batch.

    Data that have a `fingerprint()` of their own, as `FromTfData`, are asked for that instead.
    """
    own = getattr(batches, "fingerprint", None)
    if callable(own):
        return str(own())
    return digest(batches.batch(0), f"{batches.batch_size} {batches.steps_per_epoch}")


def selection_fingerprint(select: SelectionData | None) -> str | None:
    """What tells selection data from others: a hash of the first batch; None without any."""
    if select is None:
        return None
    batches = iter(select())
    return digest(next(batches, ({}, None)))


def digest(batch: Batch, sizes: str = "") -> str:
    """A hash of one batch, and of a text before it."""
    feeds, labels = batch
    found = hashlib.sha256(sizes.encode())
    for name in sorted(feeds):
        found.update(f"{name} {feeds[name].shape} {feeds[name].dtype}".encode())
        found.update(np.ascontiguousarray(feeds[name]).tobytes())
    found.update(b"" if labels is None else np.ascontiguousarray(labels).tobytes())
    return found.hexdigest()
