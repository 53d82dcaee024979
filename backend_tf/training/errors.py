"""Errors of a training that began well: what has been done by then is kept."""

from __future__ import annotations

from ...ir import DataError, TqtOnnxError
from .result import TrainingResult


class StoppedTrainingError(TqtOnnxError):
    """A training that cannot go on. The model holds the best weights and thresholds so far.

    Attributes:
        result: what had been done.
    """

    def __init__(self, message: str, result: TrainingResult) -> None:
        super().__init__(message)
        self.result = result


class DivergedError(StoppedTrainingError):
    """The loss, or what is trained, is not a finite number any more."""


class BrokenDataError(StoppedTrainingError, DataError):
    """Data that cannot be used was met on the way; a checkpoint holds what was done, where there is a folder."""


class WorkerLostError(TqtOnnxError):
    """Another worker of a multi-worker training is gone; the last checkpoint is what there is."""
