"""Inputs for calibration, training and evaluation: arrays, images in folders, zips, CSVs and TFRecord files; right answers."""

from .accuracy import AccuracyCounter, AccuracyResult, ModelAccuracy, PairedDifference
from .augmentation import Augmentation
from .dataset import Dataset, PixelReader, Reader
from .digits import DigitSplits, demo_digits
from .geometry import CentralCrop, Geometry, Letterbox, ShorterSide, Shrink
from .intervals import exact_mcnemar, paired_interval, wilson_interval
from .labels import output_indices
from .preprocess import PREPROCESS, Preprocessing
from .sources import listed_names, open_array, open_dataset
from .splits import TrainingSplit, refuse_overlap, split_for_training
from .training import Shuffled

__all__ = [
    "PREPROCESS",
    "AccuracyCounter",
    "AccuracyResult",
    "Augmentation",
    "CentralCrop",
    "Dataset",
    "DigitSplits",
    "Geometry",
    "Letterbox",
    "ModelAccuracy",
    "PairedDifference",
    "PixelReader",
    "Preprocessing",
    "Reader",
    "ShorterSide",
    "Shrink",
    "Shuffled",
    "TrainingSplit",
    "demo_digits",
    "exact_mcnemar",
    "listed_names",
    "open_array",
    "open_dataset",
    "output_indices",
    "paired_interval",
    "refuse_overlap",
    "split_for_training",
    "wilson_interval",
]
