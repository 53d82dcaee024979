"""From an image to the numbers a network was trained on: a table of preprocessings.

A preprocessing is a geometry (how an image gets the network's size, `geometry.py`) and two numbers, x / divide - subtract. An image
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
from .geometry import CentralCrop, Geometry, Letterbox, ShorterSide, Shrink

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """One way to prepare images. `dataclasses.replace(PREPROCESS["unit"], geometry=ShorterSide(share=1))` makes another.

    Attributes:
        help: one line for people.
        geometry: how an image of another size gets the network's.
        divide: what pixels of 0..255 are divided by.
        subtract: what is subtracted then, one number or one for each channel (R, G, B).
        name: what messages call it.
        lenient: floating-point arrays are taken as they are, prepared already, where otherwise they are refused.
    """

    help: str
    geometry: Geometry = field(default_factory=Shrink)
    divide: float = 1.0
    subtract: tuple[float, ...] = (0.0,)
    name: str = ""
    lenient: bool = False

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
        "none": Preprocessing("pixels as they are, 0..255"),
        "unit": Preprocessing("x / 255, in 0..1", divide=255),
        "signed_unit": Preprocessing(
            "x / 127.5 - 1, in -1..1 (Keras' MobileNet, Inception; aspect ratio kept)", Shrink(), 127.5, (1.0,)
        ),
        "inception": Preprocessing(
            "87.5% of each side, resized; x / 127.5 - 1, in -1..1 (slim's Inception and MobileNet)",
            CentralCrop(),
            127.5,
            (1.0,),
        ),
        "vgg": Preprocessing(
            "shorter side to 256 for 224, central crop; RGB minus (123.68, 116.78, 103.94) (slim's VGG and ResNet v1)",
            ShorterSide(),
            subtract=_MEANS,
        ),
        "resnet_v1p5": Preprocessing(
            "as vgg: shorter side to 256 for 224, central crop, RGB minus the means (TensorFlow's official ResNet)",
            ShorterSide(),
            subtract=_MEANS,
        ),
        "darknet": Preprocessing("87.5% of each side, resized; x / 255, in 0..1 (Darknet19 as a classifier)", CentralCrop(), 255),
        "letterbox": Preprocessing("resized to fit, borders grey; x / 255, in 0..1 (darknet's detectors)", Letterbox(), 255),
    }
)
"""Preprocessings by name.

Where they come from: `inception_preprocessing.py` and `vgg_preprocessing.py` of TensorFlow's slim models (evaluation branch),
`official/resnet/imagenet_preprocessing.py` of TensorFlow's official models. The latter's evaluation differs from `vgg` in name
alone. `darknet` is what Graffitist's validation script did, that is, what the published accuracies of Darknet19 belong to;
darknet itself resizes the shorter side and crops (`ShorterSide(share=1)`) for its classifiers.
"""


def preprocessing(chosen: str | Preprocessing, channels: int | None = None) -> Preprocessing:
    """The preprocessing of that name, or the one given.

    Raises:
        DataError: there is none, or it does not fit that number of channels.
    """
    if isinstance(chosen, str) and chosen not in PREPROCESS:
        raise DataError(f"preprocess must be one of {', '.join(PREPROCESS)}. Received: {chosen!r}")
    found = PREPROCESS[chosen] if isinstance(chosen, str) else chosen
    expected = len(found.subtract)
    if channels is not None and expected not in (1, channels):
        name = repr(chosen if isinstance(chosen, str) else chosen.name or "of one's own")
        raise DataError(
            f"preprocess {name} subtracts {expected} means; inputs of {expected} channels are expected. Received: {channels}"
        )
    return found
