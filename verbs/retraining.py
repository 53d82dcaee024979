"""What `quantize --retrain` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..ir import TqtOnnxError

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf.training import TrainingResult
    from ..datasets import AccuracyResult
    from .quantize import Quantization

SCHEMA: Final = "tqt_onnx.retraining/1"


@dataclass(frozen=True)
class Retraining:
    """A retrained model and how it came about.

    Attributes:
        model: what is to be written: Q/DQ, or float in the mode `float`.
        quantization: what was decided; None in the mode `float`.
        training: steps, history, thresholds before and after.
        folded_layers: compute layers whose batch norm could not be kept apart for training, with the reason.
        trained_on: which data were trained on, in words.
        selected_on: which data chose the step.
        tested_on: which data the accuracies are of.
        calibrated_on: which data the first thresholds are from.
        accuracy: float, static and retrained network on the test data; None without such, and where the training did not end well.
        chief: whether this process is the one of its strategy that writes files.
    """

    model: onnx_ir.Model
    quantization: Quantization | None
    training: TrainingResult
    folded_layers: dict[str, str]
    trained_on: str
    selected_on: str
    tested_on: str
    calibrated_on: str
    accuracy: AccuracyResult | None
    chief: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "schema": SCHEMA,
            "training": self.training.to_dict(),
            "data": {
                "trained_on": self.trained_on,
                "selected_on": self.selected_on,
                "tested_on": self.tested_on,
                "calibrated_on": self.calibrated_on,
            },
            "folded_layers": self.folded_layers,
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
        }


class StoppedError(TqtOnnxError):
    """A training that cannot go on: its loss is no finite number any more, or data cannot be read.

    Attributes:
        retraining: the best state so far.
        reason: the error, which names the step and the layer.
    """

    def __init__(self, reason: TqtOnnxError, retraining: Retraining) -> None:
        super().__init__(str(reason))
        self.reason, self.retraining = reason, retraining
