"""A training in the progress bar: one piece of work from its first step to its last, validations included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from .sources import Feeds, Labels, Progress

if TYPE_CHECKING:
    from ..backend_tf.training import Row
    from ..datasets import Dataset

Select = Callable[[], Iterator[tuple[Feeds, Labels]]]


class TrainingProgress:
    """A `Listener` that calls `progress(step, total, "training, loss 0.123")`.

    Args:
        progress: what is called.
        total: steps of the training.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._step = 0
        self._loss = self._top1 = ""

    @property
    def _what(self) -> str:
        return f"training{self._loss}{self._top1}"

    def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
        """As `Listener.on_step`."""
        self._step = step
        if scalars is not None and "train/loss" in scalars:
            self._loss = f", loss {scalars['train/loss']:.3g}"
        self._progress(step, total, self._what)

    def on_validation(self, row: Row) -> None:
        """As `Listener.on_validation`."""
        self._top1 = f", selection loss {row.loss:.3g}" if row.accuracy is None else f", top-1 {row.accuracy:.1%}"

    def on_freeze(self, step: int, group: str, log2_t: float) -> None:
        """As `Listener.on_freeze`."""

    def watched(self, select: Select | None, data: Dataset | None) -> Select | None:
        """The same selection data; how much of it is measured is shown without a bar of its own, which each validation would add.

        Args:
            select: gives them in batches.
            data: the data, or None.
        """
        if select is None or data is None:
            return select
        examples = len(data)

        def batches() -> Iterator[tuple[Feeds, Labels]]:
            done = 0
            for feeds, labels in select():
                self._progress(self._step, self._total, f"{self._what}; validating {done:,}/{examples:,}")
                yield feeds, labels
                done += len(next(iter(feeds.values())))
            self._progress(self._step, self._total, self._what)

        return batches
