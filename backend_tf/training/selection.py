"""Validation during a training: on data that is neither trained on nor tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...ir import DataError, UsageError
from .data import SelectionData
from .losses import Loss, check_labels
from .steps import Steps


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over the selection data.

    Attributes:
        loss: of the training's own loss.
        accuracy: top-1, or None without labels or class scores.
        agreement: share with the float model's class, or None where that does not run.
    """

    loss: float
    accuracy: float | None
    agreement: float | None


class Selection:
    """Measures the network on the selection data.

    Args:
        data: gives the batches, anew for every measurement.
        steps: runs them.
        loss: of the training.
        name: of the data, for messages.
    """

    def __init__(self, data: SelectionData, steps: Steps, loss: Loss, name: str) -> None:
        self._data, self._steps, self._loss, self._name = data, steps, loss, name

    def measure(self, quantized: bool, stopped: Callable[[], bool] = lambda: False) -> Measured | None:
        """One pass over the data.

        Args:
            quantized: whether the quantizers are on.
            stopped: asked before every batch whether to give up.

        Returns:
            The means, or None where it was given up.

        Raises:
            DataError: no examples, or a label that is no class.
            UsageError: the loss needs labels and there are none.
        """
        sums, rows, labelled = np.zeros(3), 0, self._loss.scored is not None
        for feeds, labels in self._data():
            if stopped():
                return None
            if self._loss.needs_labels and labels is None:
                raise UsageError(f"{self._name}: training with labels needs labels here too. Received: none")
            if labels is not None and self._loss.classes is not None:
                check_labels(labels, self._loss.classes, self._name)
            labelled = labelled and labels is not None and labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
            sums += self._steps.evaluate(quantized, (feeds, labels)).numpy()
            rows += len(next(iter(feeds.values())))
        if rows == 0:
            raise DataError(f"{self._name}: at least one example is expected. Received: none")
        loss, right, agreeing = (float(value) for value in sums / rows)
        taught = self._loss.needs_teacher and self._loss.scored is not None
        return Measured(loss, right if labelled else None, agreeing if taught else None)
