"""Right answers, counted batch by batch for several models side by side, and how sure a difference is.

The models answer for the same images, so their difference is judged on the pairs (`intervals.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .intervals import exact_mcnemar, paired_interval, wilson_interval
from .labels import output_indices

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

SCHEMA: Final = "tqt_onnx.accuracy/1"
"""Name and version of what `AccuracyResult.to_dict` returns; the number grows when a field goes or changes its meaning."""


@dataclass(frozen=True)
class ModelAccuracy:
    """Counts of one model.

    Attributes:
        name: the model.
        count: labelled images.
        top1: images whose label has the highest output.
        top5: images whose label is among the five highest outputs.
    """

    name: str
    count: int
    top1: int
    top5: int

    @property
    def top1_share(self) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.top1 / self.count

    @property
    def top5_share(self) -> float:
        """Top-5 accuracy, 0 to 1."""
        return self.top5 / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the top-1 accuracy."""
        return wilson_interval(self.top1, self.count)


@dataclass(frozen=True)
class PairedDifference:
    """One model against the reference, on the same images.

    Attributes:
        name: the model.
        reference: what it is compared with.
        count: images.
        agree: images on which both name the same class.
        only_reference: labelled images that only the reference gets right, or None without labels.
        only_name: labelled images that only the model gets right, or None without labels.
    """

    name: str
    reference: str
    count: int
    agree: int
    only_reference: int | None
    only_name: int | None

    @property
    def agreement(self) -> float:
        """Share of images on which both name the same class."""
        return self.agree / self.count

    @property
    def difference(self) -> float | None:
        """Top-1 accuracy of the model minus that of the reference."""
        return (
            None if self.only_name is None or self.only_reference is None else (self.only_name - self.only_reference) / self.count
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the difference, by `paired_interval`."""
        if self.only_name is None or self.only_reference is None:
            return None
        return paired_interval(self.only_name, self.only_reference, self.count)

    @property
    def p_value(self) -> float | None:
        """Chance of so uneven a split of the discordant images between equally good models, by `exact_mcnemar`."""
        return None if self.only_name is None or self.only_reference is None else exact_mcnemar(self.only_name, self.only_reference)


@dataclass(frozen=True)
class AccuracyResult:
    """What was counted.

    Attributes:
        models: one for each model, in the order given; empty without labels.
        differences: each model but the first against the first.
        count: images.
        names: the models, in the order given.
        agree: `agree[i][j]`: images on which the models i and j name the same class.
    """

    models: tuple[ModelAccuracy, ...]
    differences: tuple[PairedDifference, ...]
    count: int
    names: tuple[str, ...]
    agree: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and strings; `docs/json.md` says what each field means."""
        models = [
            {
                "name": model.name,
                "top1": model.top1,
                "top5": model.top5,
                "top1_share": model.top1_share,
                "top5_share": model.top5_share,
                "interval": list(model.interval),
            }
            for model in self.models
        ]
        differences = [
            {
                "name": pair.name,
                "reference": pair.reference,
                "agree": pair.agree,
                "agreement": pair.agreement,
                "only_reference": pair.only_reference,
                "only_name": pair.only_name,
                "difference": pair.difference,
                "interval": None if pair.interval is None else list(pair.interval),
                "p_value": pair.p_value,
            }
            for pair in self.differences
        ]
        return {
            "schema": SCHEMA,
            "images": self.count,
            "labelled": bool(self.models),
            "names": list(self.names),
            "models": models,
            "differences": differences,
            "agreement": [[count / self.count for count in row] for row in self.agree],
        }


class AccuracyCounter:
    """Counts over batches; memory does not grow with the number of images.

    Equal outputs rank by class index, the lower first, as `numpy.argmax` has it. Quantized logits tie often, so it matters that
    every engine's answer is read the same way.
    """

    def __init__(self, names: Sequence[str], *, label_offset: int | Mapping[str, int] = 0):
        """Starts at zero.

        Args:
            names: models, the reference first; each once.
            label_offset: output index of class 0: 1 for networks of 1001 classes whose first output is "background"; -1 where
                labels count from 1 (slim's ImageNet TFRecord files) and the network has 1000 classes. One number for all
                models, or one for each by name.

        Raises:
            DataError: no models, a model twice, or offsets of other models.
        """
        if not names or len(set(names)) != len(names):
            raise DataError(f"at least one model, each named once, is expected. Received: {', '.join(names) or 'none'}")
        self._names = tuple(names)
        self._offset = dict(label_offset) if isinstance(label_offset, Mapping) else dict.fromkeys(names, label_offset)
        if set(self._offset) != set(names):
            raise DataError(f"a label offset for each of {', '.join(names)} is expected. Received: {', '.join(self._offset)}")
        self._count = 0
        self._labelled: bool | None = None
        self._top1 = dict.fromkeys(names, 0)
        self._top5 = dict.fromkeys(names, 0)
        self._agree = np.zeros((len(names), len(names)), np.int64)
        self._only = dict.fromkeys(names, (0, 0))

    def update(self, outputs: Mapping[str, Array], labels: npt.NDArray[np.integer[Any]] | None = None) -> None:
        """Counts one batch.

        Args:
            outputs: for each model [n, classes] (dimensions of 1 between are dropped); logits or probabilities.
            labels: [n] class indices before `label_offset`, or None to count agreement only.

        Raises:
            DataError: a model missing, shapes that do not fit, a label beyond the classes, a NaN, or labels in only some batches.
        """
        if set(outputs) != set(self._names):
            raise DataError(f"outputs of {', '.join(self._names)} are expected. Received: {', '.join(outputs)}")
        if self._labelled not in (None, labels is not None):
            raise DataError("labels are expected for all batches or for none")
        scores = {name: _scores(name, outputs[name]) for name in self._names}
        sizes = {name: len(array) for name, array in scores.items()} | ({} if labels is None else {"labels": len(labels)})
        if len(set(sizes.values())) != 1:
            raise DataError(f"outputs and labels must be of one number of images. Received: {sizes}")
        tops = np.stack([scores[name].argmax(axis=1) - self._offset[name] for name in self._names])  # classes, as labels count
        ranks = {} if labels is None else {name: self._ranks(name, array, labels) for name, array in scores.items()}
        self._labelled = labels is not None
        reference = self._names[0]
        self._count += len(scores[reference])
        self._agree += (tops[:, None] == tops[None]).sum(axis=2)
        for name in self._names:
            if labels is not None:
                right, reference_right = ranks[name] < 1, ranks[reference] < 1
                self._top1[name] += int(right.sum())
                self._top5[name] += int((ranks[name] < 5).sum())
                before = self._only[name]
                self._only[name] = (
                    before[0] + int((reference_right & ~right).sum()),
                    before[1] + int((right & ~reference_right).sum()),
                )

    def result(self) -> AccuracyResult:
        """The counts so far.

        Raises:
            DataError: no image has been counted.
        """
        if not self._count:
            raise DataError("there were no images to evaluate")
        labelled = bool(self._labelled)
        models = tuple(ModelAccuracy(name, self._count, self._top1[name], self._top5[name]) for name in self._names if labelled)
        differences = tuple(
            PairedDifference(
                name, self._names[0], self._count, int(self._agree[0, index]), *(self._only[name] if labelled else (None, None))
            )
            for index, name in enumerate(self._names)
            if index
        )
        return AccuracyResult(models, differences, self._count, self._names, tuple(tuple(row) for row in self._agree.tolist()))

    def _ranks(self, name: str, scores: Array, labels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """How many classes rank before the label's."""
        classes = scores.shape[1]
        targets = output_indices(np.asarray(labels), self._offset[name], classes, name)
        own = np.take_along_axis(scores, targets[:, None], axis=1)
        before: Bools = (scores > own) | ((scores == own) & (np.arange(classes) < targets[:, None]))
        ranks: npt.NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
        return ranks


def _scores(name: str, output: Array) -> Array:
    array = np.asarray(output)
    if array.ndim < 2 or 0 in array.shape or any(dim != 1 for dim in array.shape[1:-1]):
        raise DataError(f"{name}: outputs [N, classes] are expected for counting right answers. Received: {list(array.shape)}")
    array = array.reshape(len(array), -1)
    if np.isnan(array).any():  # no comparison with a NaN is true: it would count as a right answer
        raise DataError(f"{name}: the output holds a NaN")
    return array
