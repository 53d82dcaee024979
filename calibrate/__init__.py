"""Statistics over calibration data, streamed, and the thresholds decided from them (numerics C)."""

from .calibration import calibrate
from .decisions import METHODS
from .feeds import Batches, Feed
from .parallel import Progress

__all__ = ["METHODS", "Batches", "Feed", "Progress", "calibrate"]
