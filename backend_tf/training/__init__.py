"""Retraining of a regenerated network: weights, batch norms and thresholds, on one device or many."""

from .checkpoints import check_folder, forget_checkpoints
from .data import TrainingBatches, check_batches, digest
from .errors import BrokenDataError, DivergedError, StoppedTrainingError, WorkerLostError
from .listener import Listener, Listeners
from .losses import heads_of, make_loss
from .phase import check_delay, check_keep, check_mode
from .result import Row, TrainingResult
from .schedule import Schedule
from .strategies import is_chief, is_multi_worker, make_strategy
from .tf_data import FromTfData
from .train import train

__all__ = [
    "BrokenDataError",
    "DivergedError",
    "FromTfData",
    "Listener",
    "Listeners",
    "Row",
    "Schedule",
    "StoppedTrainingError",
    "TrainingBatches",
    "TrainingResult",
    "WorkerLostError",
    "check_batches",
    "check_delay",
    "check_folder",
    "check_keep",
    "check_mode",
    "digest",
    "forget_checkpoints",
    "heads_of",
    "is_chief",
    "is_multi_worker",
    "make_loss",
    "make_strategy",
    "train",
]
