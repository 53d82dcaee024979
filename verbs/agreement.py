"""How far a quantized model answers as its float model does, on data without labels: a cheap measure of what quantization lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import PASS_THROUGH, name_of
from ..verify import Session
from .sources import Feeds

if TYPE_CHECKING:
    import onnx_ir

IMAGES: Final = 50
"""Examples that are enough to tell a collapse from a small loss."""

POOR_TOP1: Final = 0.85
"""Below this share of common answers a classifier is worth repairing."""

POOR_SQNR: Final = 12.0
"""The same, in dB, for networks that are no classifiers."""

_SMALLEST: Final = 1e-9
"""Probabilities below this count as this: their logarithm says nothing."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """Float and quantized model on the same examples.

    Attributes:
        images: how many.
        top1: share of examples on which both have the same largest output; None where no output is one of a classifier.
        divergence: mean Kullback-Leibler divergence of the probabilities, in nats; None without a Softmax at the end.
        sqnr: signal to quantization noise of the outputs in dB, of logits up to a constant where there is a Softmax; infinite
            where nothing differs. The worst one of several outputs.
    """

    images: int
    top1: float | None
    divergence: float | None
    sqnr: float

    @property
    def poor(self) -> bool:
        """Whether so much is lost that tuning or retraining should be proposed."""
        return self.sqnr < POOR_SQNR if self.top1 is None else self.top1 < POOR_TOP1

    def better_than(self, other: Agreement) -> bool:
        """Closer to the float model: by divergence where there is one, else by noise."""
        if self.divergence is not None and other.divergence is not None:
            return self.divergence < other.divergence
        return self.sqnr > other.sqnr

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an infinite ratio is None."""
        found = dataclasses.asdict(self)
        return found | {"sqnr": found["sqnr"] if math.isfinite(found["sqnr"]) else None}


def agreement(
    float_model: onnx_ir.Model, quantized: onnx_ir.Model, batches: Iterable[Feeds], *, limit: int | None = IMAGES
) -> Agreement:
    """Runs both models in onnxruntime and compares their outputs.

    Args:
        float_model: before quantization, lowered or not.
        quantized: the Q/DQ model, with the same inputs and outputs.
        batches: feeds by input name; only as many are read as are needed.
        limit: at most so many examples, to the next whole batch; None takes all.

    Raises:
        ModelError: onnxruntime does not load a model.
        DataError: feeds that do not fit.
    """
    sessions = Session(float_model), Session(quantized)
    after_softmax = {name_of(value): _is_probability(value) for value in float_model.graph.outputs}
    totals = {name: _Totals(probabilities) for name, probabilities in after_softmax.items()}
    images = 0
    for feeds in batches:
        exact, rounded = (session.run(feeds) for session in sessions)
        for name, total in totals.items():
            total.add(exact[name], rounded[name])
        images += max((len(array) for array in islice(feeds.values(), 1) if array.ndim), default=0)
        if limit is not None and images >= limit:
            break
    classifiers = [total for total in totals.values() if total.examples]
    diverging = [total for total in classifiers if total.probabilities]
    return Agreement(
        images,
        min((total.same / total.examples for total in classifiers), default=None),
        max((total.divergence / total.examples for total in diverging), default=None),
        min((total.sqnr for total in totals.values()), default=math.inf),
    )


class _Totals:
    """What is added up of one output."""

    def __init__(self, probabilities: bool) -> None:
        self.probabilities = probabilities
        self.signal = self.noise = self.divergence = 0.0
        self.same = self.examples = 0

    def add(self, exact: Array, rounded: Array) -> None:
        """One batch."""
        exact, rounded = (np.asarray(array, np.float64) for array in (exact, rounded))
        classes = exact.reshape(len(exact), -1).shape[1] if exact.ndim and len(exact) else 0
        if classes > 1 and exact.ndim >= 2 and classes == max(exact.shape[1:]):
            self.examples += len(exact)
            exact, rounded = (array.reshape(len(array), classes) for array in (exact, rounded))
            self.same += int((exact.argmax(axis=1) == rounded.argmax(axis=1)).sum())
        if self.probabilities:
            logs, others = (np.log(np.maximum(array, _SMALLEST)) for array in (exact, rounded))
            self.divergence += float((exact * (logs - others)).sum())
            exact, rounded = (array - array.mean(axis=-1, keepdims=True) for array in (logs, others))
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(exact - rounded).sum())

    @property
    def sqnr(self) -> float:
        """In dB."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def _is_probability(value: onnx_ir.Value) -> bool:
    """Whether a Softmax gives it, directly or through operators that only move."""
    node = value.producer()
    while node is not None and node.op_type in PASS_THROUGH and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Softmax"
