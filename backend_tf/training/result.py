"""What a training leaves behind besides the trained model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

SCHEMA: Final = "tqt_onnx.training/1"


@dataclass(frozen=True)
class Row:
    """One validation.

    Attributes:
        step: steps done.
        loss: mean loss on the selection data.
        accuracy: top-1 accuracy there, or None without labels.
        agreement: share of the examples with the float model's class, or None where there is no float model beside.
        train_loss: mean loss of the training batches since the last validation; None at the start.
        weight_lr: learning rate of the weights at that moment.
        threshold_lr: of the thresholds.
        frozen: thresholds frozen by then.
    """

    step: int
    loss: float
    accuracy: float | None
    agreement: float | None
    train_loss: float | None
    weight_lr: float
    threshold_lr: float
    frozen: int

    def better_than(self, other: Row | None) -> bool:
        """More accurate, and with the smaller loss among equals; without labels by loss alone. Ties keep the earlier one."""
        if other is None:
            return True
        return (self.accuracy or 0.0, -self.loss) > (other.accuracy or 0.0, -other.loss)


@dataclass(frozen=True)
class TrainedThreshold:
    """A threshold before and after.

    Attributes:
        group: share group.
        initial: `log2_t` when the quantizers were switched on.
        final: `log2_t` of the model that was kept.
        frozen_at: step at which it was frozen, or None.
    """

    group: str
    initial: float
    final: float
    frozen_at: int | None


@dataclass(frozen=True)
class TrainingResult:
    """What was done and which state was kept.

    Attributes:
        steps: steps done, of earlier sittings too.
        total: steps that were to be done.
        epochs: passes over the training data.
        kept: step of the kept state.
        selected_by: which data and which number chose it, in words.
        history: validations in order; none where the training ended in front of the quantizers.
        thresholds: of every share group.
        seconds_per_step: mean over this sitting, without tracing and validation; None where no step was left to do.
        interrupted: whether Ctrl-C ended it early; calling again with the same folder goes on.
        resumed_from: step of the checkpoint it went on from, or None.
        ended_by: why not all steps were done, in words; None where they were, and where it was interrupted.
    """

    steps: int
    total: int
    epochs: float
    kept: int
    selected_by: str
    history: tuple[Row, ...]
    thresholds: tuple[TrainedThreshold, ...]
    seconds_per_step: float | None
    interrupted: bool = False
    resumed_from: int | None = None
    ended_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; a loss that is not finite any more is null."""
        rows = [{name: _finite(value) for name, value in asdict(row).items()} for row in self.history]
        return {"schema": SCHEMA, **asdict(self), "history": rows}


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
