"""Inputs for calibration and evaluation: arrays, images in folders, zips, CSVs and TFRecord files; counting of right answers."""

from .accuracy import AccuracyCounter, AccuracyResult, ModelAccuracy, PairedDifference
from .dataset import Dataset, Reader
from .digits import DigitSplits, demo_digits
from .geometry import CentralCrop, Geometry, Letterbox, ShorterSide, Shrink
from .intervals import exact_mcnemar, paired_interval, wilson_interval
from .preprocess import PREPROCESS, Preprocessing
from .sources import listed_names, open_array, open_dataset

__all__ = [
    "PREPROCESS",
    "AccuracyCounter",
    "AccuracyResult",
    "CentralCrop",
    "Dataset",
    "DigitSplits",
    "Geometry",
    "Letterbox",
    "ModelAccuracy",
    "PairedDifference",
    "Preprocessing",
    "Reader",
    "ShorterSide",
    "Shrink",
    "demo_digits",
    "exact_mcnemar",
    "listed_names",
    "open_array",
    "open_dataset",
    "paired_interval",
    "wilson_interval",
]
