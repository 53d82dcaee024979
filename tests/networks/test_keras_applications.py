"""Networks of `keras.applications`, the whole road: full depth and width, small images, ten classes."""

from __future__ import annotations

import pytest
from keras_networks import application, images
from whole_road import NETWORK, record, take

SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
"""The smallest that the network takes, where that is not 32."""

ISLANDS: dict[str, tuple[str, ...]] = {
    "VGG16": (),
    "ResNet50": (),
    "ResNet50V2": (),
    "InceptionV3": (),
    "InceptionResNetV2": (),
    "Xception": (),
    "DenseNet121": (),
    "MobileNet": (),
    "MobileNetV2": (),
    "MobileNetV3Small": (),
    "EfficientNetB0": (),
}
"""What stays float, one entry per node."""

WITHOUT_CERTIFICATE = {"ResNet50": 3, "ResNet50V2": 3, "MobileNetV3Small": 8}
"""Layers of so many taps that random weights leave them without a bound (X2), and hard-swishes that meet a tie (`x = 12k` of the
grid): they are checked all the same."""


@pytest.mark.parametrize("name", ISLANDS)
def test_application(name: str) -> None:
    size = SIZES.get(name, 32)
    journey = take(application(name, size), images(name, size, 2), settings=NETWORK, check_images=1)
    journey.assert_exact(ISLANDS[name], without_certificate=WITHOUT_CERTIFICATE.get(name, 0))
    record("networks", f"keras {name}", journey)
