"""Inputs for calibration and evaluation: arrays, image folders and zips of them, and the counting of right answers."""

from .accuracy import AccuracyCounter, AccuracyResult, ModelAccuracy, PairedDifference
from .dataset import Dataset, Reader
from .digits import DigitSplits, demo_digits
from .intervals import exact_mcnemar, paired_interval, wilson_interval
from .preprocess import PREPROCESS, Preset
from .sources import open_array, open_dataset

__all__ = [
    "PREPROCESS",
    "AccuracyCounter",
    "AccuracyResult",
    "Dataset",
    "DigitSplits",
    "ModelAccuracy",
    "PairedDifference",
    "Preset",
    "Reader",
    "demo_digits",
    "exact_mcnemar",
    "open_array",
    "open_dataset",
    "paired_interval",
    "wilson_interval",
]
