"""Statistics over calibration data, streamed, and the thresholds decided from them (numerics C)."""

from ..kernels.percentile import PERCENTILE
from .calibration import calibrate
from .decisions import METHODS, WEIGHT_METHODS
from .feeds import Batches, Feed
from .parallel import Progress
from .sampling import FEWEST_TO_HOLD, HOLD_EVERY
from .tuned import TunedCalibration, TunedRow, calibrate_tuned

__all__ = [
    "FEWEST_TO_HOLD",
    "HOLD_EVERY",
    "METHODS",
    "PERCENTILE",
    "WEIGHT_METHODS",
    "Batches",
    "Feed",
    "Progress",
    "TunedCalibration",
    "TunedRow",
    "calibrate",
    "calibrate_tuned",
]
