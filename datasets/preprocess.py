"""From an image to the numbers a network was trained on: a table of presets.

A preset is a geometry (how an image gets the network's size, `geometry.py`) and two numbers, x / divide - subtract. An image
that already has the network's height and width is taken as it is: it has been prepared. Rows of integer arrays are pixels at
the network's size, so that only their values are mapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .geometry import CentralCrop, Geometry, ShorterSide, Shrink

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preset:
    """One way to prepare images. `dataclasses.replace(PREPROCESS["darknet"], geometry=Letterbox())` makes another.

    Attributes:
        help: one line for people.
        geometry: how an image of another size gets the network's.
        divide: what pixels of 0..255 are divided by.
        subtract: what is subtracted then, one number or one for each channel (R, G, B).
    """

    help: str
    geometry: Geometry = field(default_factory=Shrink)
    divide: float = 1.0
    subtract: tuple[float, ...] = (0.0,)

    @property
    def maps(self) -> bool:
        """Whether values change."""
        return self.divide != 1 or any(self.subtract)

    def values(self, pixels: Floats) -> Floats:
        """Inputs [..., C] for pixels [..., C] of 0..255, both float32."""
        scaled = pixels if self.divide == 1 else pixels / np.float32(self.divide)
        return scaled - np.array(self.subtract, np.float32) if any(self.subtract) else scaled


_MEANS: Final = (123.68, 116.78, 103.94)

PREPROCESS: Final = MappingProxyType(
    {
        "none": Preset("pixels as they are, 0..255"),
        "unit": Preset("x / 255, in 0..1", divide=255),
        "signed_unit": Preset("x / 127.5 - 1, in -1..1 (Keras' MobileNet, Inception; aspect ratio kept)", Shrink(), 127.5, (1.0,)),
        "inception": Preset(
            "87.5% of each side, resized; x / 127.5 - 1, in -1..1 (slim's Inception and MobileNet)", CentralCrop(), 127.5, (1.0,)
        ),
        "vgg": Preset(
            "shorter side to 256 for 224, central crop; RGB minus (123.68, 116.78, 103.94) (slim's VGG and ResNet v1)",
            ShorterSide(),
            subtract=_MEANS,
        ),
        "resnet_v1p5": Preset(
            "as vgg: shorter side to 256 for 224, central crop, RGB minus the means (TensorFlow's official ResNet)",
            ShorterSide(),
            subtract=_MEANS,
        ),
        "darknet": Preset("87.5% of each side, resized; x / 255, in 0..1 (Darknet19 as a classifier)", CentralCrop(), 255),
    }
)
"""Presets by name.

Where they come from: `inception_preprocessing.py` and `vgg_preprocessing.py` of TensorFlow's slim models (evaluation branch),
`official/resnet/imagenet_preprocessing.py` of TensorFlow's official models. The latter's evaluation differs from `vgg` in name
alone. `darknet` is what Graffitist's validation script did, that is, what the published accuracies of Darknet19 belong to;
darknet itself resizes the shorter side and crops (`ShorterSide(share=1)`), and letterboxes for its detectors (`Letterbox()`).
"""


def preset(chosen: str | Preset, channels: int | None = None) -> Preset:
    """The preset of that name, or the one given.

    Raises:
        DataError: there is none, or it does not fit that number of channels.
    """
    if isinstance(chosen, str) and chosen not in PREPROCESS:
        raise DataError(f"preprocess must be one of {', '.join(PREPROCESS)}. Received: {chosen!r}")
    found = PREPROCESS[chosen] if isinstance(chosen, str) else chosen
    expected = len(found.subtract)
    if channels is not None and expected not in (1, channels):
        name = repr(chosen) if isinstance(chosen, str) else "given"
        raise DataError(
            f"preprocess {name} subtracts {expected} means; inputs of {expected} channels are expected. Received: {channels}"
        )
    return found
