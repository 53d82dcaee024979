"""Statistics over calibration data, streamed, and the thresholds decided from them (numerics C)."""

from ..kernels.percentile import PERCENTILE
from .calibration import calibrate
from .decisions import METHODS, WEIGHT_METHODS
from .feeds import Batches, Feed
from .parallel import Progress

__all__ = ["METHODS", "PERCENTILE", "WEIGHT_METHODS", "Batches", "Feed", "Progress", "calibrate"]
