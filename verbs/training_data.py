"""What a retraining reads: training, selection, test and calibration data, opened and kept apart."""

from __future__ import annotations

import hashlib
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ..datasets import (
    Augmentation,
    Dataset,
    Preprocessing,
    Shuffled,
    open_array,
    open_dataset,
    output_indices,
    refuse_overlap,
    split_for_training,
)
from ..ir import DataError, UsageError, fed_inputs, name_of, static_shape
from .sources import Data, Feeds, Labels, drawn, refuse_negative

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf import RegeneratedModel
    from ..backend_tf.training import TrainingBatches

CALIBRATION: Final = 50
"""Training examples that calibrate where nothing else is given."""

SELECTION: Final = 0.1
"""Share of the training examples that is held back for selection where nothing else is asked for."""

AUTO: Final = "auto"
"""Selection by that share of examples, and by nothing with a `tf.data.Dataset`, of which nothing can be held back."""


@dataclass(frozen=True)
class TrainingData:
    """Data of one training.

    Attributes:
        train: examples to train on, or a `tf.data.Dataset`.
        select: examples that choose the best step, or None.
        test: examples that nothing is decided by, or None.
        calibration: what the first thresholds are from.
        trained_on: in words.
        selected_on: in words.
        tested_on: in words.
        calibrated_on: in words, behind the number of examples.
    """

    train: Any
    select: Dataset | None
    test: Dataset | None
    calibration: Data
    trained_on: str
    selected_on: str
    tested_on: str
    calibrated_on: str

    def batches(
        self,
        network: RegeneratedModel,
        batch_size: int,
        augment: Augmentation | None,
        seed: int,
        label_offset: int,
        *,
        classes: int | None,
        steps_per_epoch: int | None = None,
        unsigned: bool = False,
    ) -> TrainingBatches:
        """The training data in batches.

        Args:
            network: that is trained.
            batch_size: examples of a global batch.
            augment: random changes.
            seed: of the order and the changes.
            label_offset: output index of class 0.
            classes: that labels must be among; None for any.
            steps_per_epoch: of a `tf.data.Dataset` that does not know its length.
            unsigned: whether inputs were declared unsigned; a batch with a negative one is then refused when it is read.

        Raises:
            DataError: fewer examples than a batch, labels that are no classes, or examples that cannot be changed so.
            UsageError: changes for a `tf.data.Dataset`.
        """
        inputs = {name: shape[1:] for name, (shape, _) in network.program.inputs.items()}
        if not isinstance(self.train, Dataset):
            from ..backend_tf.training import FromTfData

            if augment:
                raise UsageError(f"a tf.data.Dataset brings its own augmentation; none is expected here. Received: {augment}")
            pipeline = FromTfData(self.train, inputs, batch_size, steps_per_epoch=steps_per_epoch, label_offset=label_offset)
            return NeverNegative(pipeline) if unsigned else pipeline
        name = next(iter(inputs))
        shuffled = Shuffled(self.train, name, batch_size, seed, augment, classes=classes, label_offset=label_offset)
        return NeverNegative(shuffled) if unsigned else shuffled

    def check_labels(self, classes: int | None, label_offset: int, *, needed: bool, tested: int | None) -> None:
        """Refuses labels that are no classes before anything is trained: all of the test data, and selection data in memory.

        Labels of other selection data are checked by the first validation, which reads them all.

        Args:
            classes: that labels of the selection data must be among; None for any.
            label_offset: output index of class 0.
            needed: whether the selection data must have labels.
            tested: scores that the first output gives, by which accuracy is counted; None where it gives no `[n, classes]`.

        Raises:
            DataError: no labels, a label that is no class, or test data for an output without classes.
        """
        if needed and self.select is not None and self.select.all_labels is None:
            raise DataError(
                f"{self.select.source}: selection data with labels is expected, as of the training data. Received: none"
            )
        if self.test is not None and tested is None:
            raise DataError(
                f"{self.test.source}: test data is for networks whose first output has a score for each class, [n, classes]. "
                "Received: another output"
            )
        if self.select is not None and isinstance(self.select.all_labels, np.ndarray):
            _targets(self.select, self.select.rows, self.select.labels, label_offset, classes)
        if self.test is not None:
            _targets(self.test, self.test.rows, self.test.labels, label_offset, tested)

    def selection(
        self, network: RegeneratedModel, batch_size: int, label_offset: int, classes: int | None, *, unsigned: bool = False
    ) -> Callable[[], Iterator[tuple[Feeds, Labels]]] | None:
        """The selection data in batches, anew at each call; None where nothing selects. `unsigned` as for `batches`."""
        select, name = self.select, next(iter(network.program.inputs))
        if select is None:
            return None

        def batches() -> Iterator[tuple[Feeds, Labels]]:
            start = 0
            for inputs, labels in select.batches(batch_size):
                rows = select.rows[start : start + len(inputs)]
                if unsigned:
                    refuse_negative({name: inputs}, "selection")
                yield {name: inputs}, _targets(select, rows, labels, label_offset, classes)
                start += len(inputs)

        return batches

    def identity(self, label_offset: int, augment: Augmentation | None) -> dict[str, Any]:
        """What a checkpoint and the training that goes on from it must share, besides what the trainer itself compares."""
        changes = None if augment is None else asdict(augment)
        data = {"selection data": _named(self.select), "training data": _named(self.train)}  # what selects is told first
        return {"label offset": label_offset, "augmentation": changes, **data}


def _named(dataset: Any) -> dict[str, Any] | None:
    """How many examples and a hash of their names; None for a `tf.data.Dataset`, which has none."""
    if not isinstance(dataset, Dataset):
        return None
    names = hashlib.sha256("\n".join(dataset.names()).encode("utf-8", "surrogateescape"))
    return {"count": len(dataset), "names": names.hexdigest()}


def _targets(dataset: Dataset, rows: Any, labels: Labels, label_offset: int, classes: int | None) -> Labels:
    """Indices of the right outputs of these rows."""
    if labels is None:
        return None
    return output_indices(labels, label_offset, classes, dataset.source, lambda place: dataset.reader.name(int(rows[place])))


class NeverNegative:
    """Batches whose inputs were declared unsigned: a negative number would silently become 0 in every step.

    Args:
        batches: what is checked.
    """

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[Feeds, Labels]:
        """As `TrainingBatches.batch`.

        Raises:
            DataError: a negative number.
        """
        feeds, labels = self._batches.batch(step, part, parts)
        refuse_negative(feeds, "training")
        return feeds, labels


def training_data(
    model: onnx_ir.Model,
    train: Any,
    *,
    select: Data | float | Literal["auto"] | None,
    test: Data | None,
    calibration: Data | None,
    preprocess: str | Preprocessing,
    limit: int | None,
    exclude: str | os.PathLike[str] | Sequence[str] | None,
    seed: int,
) -> TrainingData:
    """Opens everything, and refuses examples that would serve two purposes.

    Raises:
        DataError: a source that cannot be read or does not fit, or data that overlap.
        UsageError: a `tf.data.Dataset` of which a part is to be held back or left out, or without calibration data.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"at least one training example is expected. Received: limit={limit}")
    inputs = fed_inputs(model.graph)
    pipeline = hasattr(train, "element_spec")
    if isinstance(select, str) and select == AUTO:
        select = None if pipeline else SELECTION
    held = float(select) if isinstance(select, numbers.Real) else None
    if pipeline:
        if held is not None or calibration is None:
            raise UsageError(
                "of a tf.data.Dataset nothing can be held back: selection data or select=None, and calibration data, are expected. "
                f"Received: select={select!r}, calibration {'missing' if calibration is None else 'given'}"
            )
        if limit is not None or exclude is not None:
            raise UsageError(f"of a tf.data.Dataset nothing can be left out. Received: limit={limit}, exclude={exclude!r}")
        chosen, tested = (None if data is None else _open(model, data, preprocess) for data in (select, test))
        if chosen is not None and tested is not None:
            refuse_overlap(chosen, tested, "selection", "test")
        _refuse_calibration(model, calibration, tested)
        return TrainingData(
            train,
            chosen,
            tested,
            calibration,
            "a tf.data.Dataset",
            _words(chosen),
            _words(tested),
            _calibration_words(calibration),
        )
    if len(inputs) != 1:
        names = ", ".join(name_of(value) for value in inputs)
        raise DataError(f"the model has the inputs {names}: a tf.data.Dataset of dictionaries is expected to train on")
    dataset = _open(model, train, preprocess, limit=limit, seed=seed, exclude=exclude)
    chooses = held if select is None or held is not None else _open(model, select, preprocess)
    split = split_for_training(dataset, chooses, test=None if test is None else _open(model, test, preprocess), seed=seed)
    _refuse_calibration(model, calibration, split.test)
    calibrated_on = f"of the {len(split.train):,} training examples of {split.train.source}"
    if calibration is None:
        calibration = split.train.sample(min(CALIBRATION, len(split.train)), seed)
    else:
        calibrated_on = _calibration_words(calibration)
    return TrainingData(
        split.train,
        split.select,
        split.test,
        calibration,
        split.trained_on,
        split.selected_on,
        split.tested_on,
        calibrated_on,
    )


def _refuse_calibration(model: onnx_ir.Model, calibration: Data | None, test: Dataset | None) -> None:
    """Thresholds from the test data would make the accuracies on them look better than they are."""
    if calibration is not None and test is not None and not isinstance(calibration, Mapping):
        refuse_overlap(_open(model, calibration, "none"), test, "calibration", "test")


def _open(
    model: onnx_ir.Model,
    data: Any,
    preprocess: str | Preprocessing,
    *,
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
) -> Dataset:
    """Data for the only input of a model: a dataset, a path, an array, or a pair of inputs and labels."""
    shape = static_shape(fed_inputs(model.graph)[0])
    example = None if shape is None else shape[1:]
    if isinstance(data, (str, os.PathLike)):
        return open_dataset(data, input_shape=example, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    if hasattr(data, "element_spec"):
        raise UsageError(
            "a tf.data.Dataset is trained on; to select or test by, a path or arrays are expected. Received: a tf.data.Dataset"
        )
    if not isinstance(data, Dataset):
        pair = isinstance(data, tuple) or (isinstance(data, list) and [type(part) for part in data] == [np.ndarray] * 2)
        inputs, labels = data if pair else (data, None)
        data = open_array(np.asarray(inputs), labels=labels, input_shape=example, preprocess=preprocess)
    return drawn(data, limit, seed if limit is not None else None, exclude)


def _words(dataset: Dataset | None) -> str:
    return "nothing" if dataset is None else f"{len(dataset):,} examples of {dataset.source}"


def _calibration_words(calibration: Data) -> str:
    if isinstance(calibration, Dataset):
        return f"examples of {calibration.source}"
    if isinstance(calibration, (str, os.PathLike)):
        return f"examples of {os.fspath(calibration)}"
    return "examples of arrays"
