"""The logs of a training: CSV files and TensorBoard curves, which a resumed training goes on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from ...ir import DataError
from .csv_log import CsvLog
from .result import Row
from .tensorboard import EventFiles

THRESHOLD: Final = "log2_t/"
"""What the scalars of thresholds begin with, followed by the share group."""


class TrainingLog:
    """A `Listener` that writes files into one folder.

    - `log.csv`: step, epoch, examples per second since the last row, and the scalars of the step (loss, learning rates);
    - `thresholds.csv`: step, and the `log2_t` of every share group in a column of its own;
    - `validation.csv`: step, and what was measured on the selection data (an empty cell for what there is not);
    - `frozen.csv`: step, share group and `log2_t` of each threshold that was frozen;
    - `tensorboard/`: the same as curves, and each freezing as a text.

    Validation counts into no rate. The system has rows of the CSV files at once, so that they outlive the process, and those of
    TensorBoard after ten seconds.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        steps_per_epoch: int,
        *,
        after: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the logs, or goes on with those of an earlier sitting.

        Args:
            folder: made where it is missing.
            batch_size: examples of a step.
            steps_per_epoch: of the training data.
            after: step of the checkpoint that the training goes on from: what was logged for later steps is cut. None begins anew.
            clock: seconds.

        Raises:
            DataError: the folder cannot be written, or a file there is no such log.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: a folder for logs is expected. Received: {error.strerror}") from None
        self._steps, self._thresholds, self._validations, self._frozen = (
            CsvLog(folder / f"{name}.csv", after) for name in ("log", "thresholds", "validation", "frozen")
        )
        self._events = EventFiles(folder / "tensorboard", after)
        self._batch_size, self._steps_per_epoch, self._clock = batch_size, steps_per_epoch, clock
        self._since: tuple[int, float] | None = None

    def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
        """As `Listener.on_step`: a row for every step that comes with scalars."""
        del total
        now = self._clock()
        if self._since is None:
            self._since = (step, now)  # the first step of a sitting traced
        if scalars is None:
            return
        begun, since = self._since
        rate = (step - begun) * self._batch_size / (now - since) if now > since and step > begun else None
        self._since = (step, now)
        log2_t = {name.removeprefix(THRESHOLD): value for name, value in scalars.items() if name.startswith(THRESHOLD)}
        others = {name: value for name, value in scalars.items() if not name.startswith(THRESHOLD)}
        self._steps.row(step, {"epoch": step / self._steps_per_epoch, "examples_per_second": rate, **others})
        if log2_t:
            self._thresholds.row(step, log2_t)
        for name, value in scalars.items():
            self._events.scalar(name, value, step)
        if rate is not None:
            self._events.scalar("examples_per_second", rate, step)

    def on_validation(self, row: Row) -> None:
        """As `Listener.on_validation`."""
        values = asdict(row)
        step = values.pop("step")
        self._validations.row(step, values)
        for name in ("loss", "accuracy", "agreement"):
            if values[name] is not None:
                self._events.scalar(f"validation/{name}", values[name], step)
        self._events.flush()
        self._since = (step, self._clock()) if self._since is not None else None

    def on_freeze(self, step: int, group: str, log2_t: float) -> None:
        """As `Listener.on_freeze`."""
        self._frozen.row(step, {"group": group, "log2_t": log2_t})
        self._events.scalar("thresholds/frozen", self._frozen.rows, step)
        self._events.text(f"frozen/{group}", f"{group} frozen at log2_t = {log2_t:.9g}", step)

    def close(self) -> None:
        """Closes all files."""
        for log in (self._steps, self._thresholds, self._validations, self._frozen, self._events):
            log.close()
