"""Which images networks get right, and the 95% interval of a difference that was seen with several seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tqt_onnx.datasets import Dataset
from tqt_onnx.verify import Session

Bools = npt.NDArray[np.bool_]


def right(model: Any, images: Dataset, label_offset: int = 0) -> Bools:
    """Which images a model gets right, in onnxruntime as users run it: bool [N].

    Args:
        model: ONNX, of one input.
        images: labelled.
        label_offset: output index of class 0.
    """
    session, feed = Session(model, optimize=True), model.graph.inputs[0].name
    answers = [
        next(iter(session.run({feed: inputs}).values())).argmax(axis=-1) == labels + label_offset
        for inputs, labels in images.batches(50)
        if labels is not None
    ]
    return np.concatenate(answers)


def packed(flags: Bools) -> str:
    """Bits as hexadecimal digits."""
    return np.packbits(flags).tobytes().hex()


def unpacked(text: str, count: int) -> Bools:
    """The inverse of `packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(np.bool_)


def difference(gains: npt.NDArray[np.int64], seen: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The difference of two accuracies and half its 95% interval, in points.

    Seeds that see the same image are no further images: the interval is that of a ratio of sums over images, each with all of its
    seeds together (Cochran, Sampling Techniques, 1977, section 9A.1, without the correction for finite populations).

    Args:
        gains: int [images]; seeds in which only the network gets the image right, minus those in which only the reference does.
        seen: int [images]; seeds in which the image was evaluated.
    """
    total = seen.sum()
    middle = gains.sum() / total
    spread = np.sqrt(np.square(gains - middle * seen).sum()) / total
    return 100 * middle, 196 * spread
