"""Errors of a training that began well: what has been done by then is kept."""

from __future__ import annotations

from ...ir import TqtOnnxError
from .result import TrainingResult


class DivergedError(TqtOnnxError):
    """The loss is not a finite number any more. The model holds the best weights and thresholds so far.

    Attributes:
        result: what had been done.
    """

    def __init__(self, message: str, result: TrainingResult) -> None:
        super().__init__(message)
        self.result = result


class WorkerLostError(TqtOnnxError):
    """Another worker of a multi-worker training is gone; the last checkpoint is what there is."""
