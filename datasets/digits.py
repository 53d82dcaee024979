"""The handwritten digits that ship with scikit-learn: real data for the demo and the tests, without a download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DigitSplits:
    """Three parts of the 1,797 digits that do not overlap. Inputs [N, 8, 8, 1] float32 in 0..1 (k / 16), labels [N] int64.

    Attributes:
        train: inputs to train on.
        train_labels: their classes, 0..9.
        calibration: inputs to calibrate on.
        calibration_labels: their classes.
        test: inputs to evaluate on.
        test_labels: their classes.
    """

    train: Floats
    train_labels: Integers
    calibration: Floats
    calibration_labels: Integers
    test: Floats
    test_labels: Integers


def demo_digits(seed: int = 0, *, calibration: int = 100, test: int = 400) -> DigitSplits:
    """Shuffles and splits the digits (E. Alpaydin and C. Kaynak, UCI Optical Recognition of Handwritten Digits).

    Args:
        seed: of the shuffle.
        calibration: size of the calibration part.
        test: size of the test part; the rest is for training.

    Raises:
        ValueError: nothing would be left to train on.
    """
    from sklearn.datasets import load_digits  # 0.5 s, hence only here

    from .dataset import random_order

    digits = load_digits()
    images = (np.asarray(digits.images, np.float32) / np.float32(16))[..., None]
    labels = np.asarray(digits.target, np.int64)
    if calibration < 1 or test < 1 or calibration + test >= len(images):
        raise ValueError(f"calibration and test must leave some of the {len(images)} digits. Received: {calibration} and {test}")
    chosen, held, rest = np.split(random_order(len(images), seed), [calibration, calibration + test])
    return DigitSplits(images[rest], labels[rest], images[chosen], labels[chosen], images[held], labels[held])
