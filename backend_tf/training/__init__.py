"""Retraining of a regenerated network: weights, batch norms and thresholds, on one device or many."""

from .checkpoints import forget_checkpoints
from .data import SelectionData, TrainingBatches, check_batches
from .determinism import make_deterministic
from .errors import DivergedError, WorkerLostError
from .events import TrainingLog
from .freezing import settled, to_freeze, turns
from .listener import Listener, Listeners
from .losses import LOSSES, heads_of, make_loss
from .phase import MODES, Mode, check_mode
from .result import Row, TrainedThreshold, TrainingResult
from .schedule import OPTIMIZERS, WEIGHT_SCHEDULES, Schedule
from .strategies import STRATEGIES, is_chief, make_strategy
from .tf_data import FromTfData
from .train import train

__all__ = [
    "LOSSES",
    "MODES",
    "OPTIMIZERS",
    "STRATEGIES",
    "WEIGHT_SCHEDULES",
    "DivergedError",
    "FromTfData",
    "Listener",
    "Listeners",
    "Mode",
    "Row",
    "Schedule",
    "SelectionData",
    "TrainedThreshold",
    "TrainingBatches",
    "TrainingLog",
    "TrainingResult",
    "WorkerLostError",
    "check_batches",
    "check_mode",
    "forget_checkpoints",
    "heads_of",
    "is_chief",
    "make_deterministic",
    "make_loss",
    "make_strategy",
    "settled",
    "to_freeze",
    "train",
    "turns",
]
