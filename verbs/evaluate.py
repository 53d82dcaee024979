"""`evaluate`: top-1 and top-5 of several models on the same images, side by side, the first one being the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..datasets import AccuracyCounter, AccuracyResult
from ..ir import DataError, UsageError, fed_inputs, name_of, static_shape
from .sources import Feeder, Labels, Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset

Shape = tuple[int | None, ...] | None
"""Shape of one example; None where a dimension, or all of them, is free."""


def evaluate(
    models: Mapping[str, onnx_ir.Model | str | os.PathLike[str]],
    data: Dataset | str | os.PathLike[str] | npt.NDArray[Any],
    *,
    preprocess: str = "none",
    label_offset: int | Sequence[int] | Mapping[str, int] = 0,
    limit: int | None = None,
    seed: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    labelled: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> AccuracyResult:
    """Counts right answers in onnxruntime with all optimizations: what users run. Memory does not grow with the images.

    Args:
        models: name -> `.onnx` model or file with a single input; the first output holds the classes. Models of different
            input sizes see the same images, each resized to its own size.
        data: labelled images (or unlabelled ones: then only the agreement between models is counted).
        preprocess: preset for images.
        label_offset: output index of class 0 (1 for networks with a background class): one number for all models, one for each
            in their order, or by name. Models with and without a background class can so be compared.
        limit: at most so many images.
        seed: draw them at random.
        exclude: names of examples to leave out, or a file of them, as `calibration-set --list` writes it.
        labelled: refuse data without labels instead of counting the agreement alone.
        batch_size: images run at once.
        progress: called with (done, total, what).

    Raises:
        DataError: images or labels that do not fit the models.
        ModelError: a file that is no model.
        UsageError: no models, or another number of label offsets.
    """
    from ..verify import Session

    if not models:
        raise UsageError("at least one model is expected")
    counter = AccuracyCounter(list(models), label_offset=_offsets(list(models), label_offset))
    opened = {name: open_model(model) for name, model in models.items()}
    inputs = {name: _input(name, model) for name, model in opened.items()}
    sizes = {name: _example(value) for name, value in inputs.items()}
    feeders = _feeders(opened, sizes, data, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
    sessions = {name: Session(model, optimize=True) for name, model in opened.items()}
    total = len(next(iter(feeders.values())))
    done = 0
    for images, labels in _batches(feeders, batch_size):
        if labelled and labels is None:
            raise DataError("labelled data is expected where an accuracy is asked for; these examples have no labels")
        counter.update({name: _scores(session, inputs[name], images[sizes[name]]) for name, session in sessions.items()}, labels)
        done += len(next(iter(images.values())))
        if progress is not None:
            progress(done, total, "evaluating")
    return counter.result()


def _feeders(models: Mapping[str, onnx_ir.Model], sizes: Mapping[str, Shape], data: Any, **options: Any) -> dict[Shape, Feeder]:
    """One feeder for each input size, named in errors by its first model; a size is decoded and resized by itself."""
    feeders: dict[Shape, Feeder] = {}
    for name, model in models.items():
        if sizes[name] not in feeders:
            try:
                feeders[sizes[name]] = Feeder(model, data, **options)
            except DataError as error:
                hint = "; only images can be resized for models of different input sizes" if feeders else ""
                raise DataError(f"{name}: {error}{hint}") from None
    return feeders


def _batches(feeders: Mapping[Shape, Feeder], batch_size: int) -> Iterator[tuple[dict[Shape, npt.NDArray[Any]], Labels]]:
    """The same examples in every size, batch by batch, and their labels.

    Raises:
        DataError: the sources give other numbers of examples, or other labels.
    """
    lengths = {len(feeder) for feeder in feeders.values()}
    if len(lengths) > 1:
        raise DataError(f"all models must see the same examples. Received: {sorted(lengths)} examples")
    for parts in zip(*(feeder.batches(batch_size) for feeder in feeders.values()), strict=True):
        labels = parts[0][1]
        for _, others in parts[1:]:
            if (labels is None) != (others is None) or (labels is not None and not np.array_equal(labels, np.asarray(others))):
                raise DataError("all models must see the same examples. Received: other labels for another size")
        yield {size: next(iter(feeds.values())) for size, (feeds, _) in zip(feeders, parts, strict=True)}, labels


def _scores(session: Any, value: onnx_ir.Value, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    scores: npt.NDArray[Any] = session.run({name_of(value): images})[session.outputs[0]]
    return scores


def _input(name: str, model: onnx_ir.Model) -> onnx_ir.Value:
    values = fed_inputs(model.graph)
    if len(values) != 1:
        raise DataError(f"{name}: a network with one input is expected. Received: {len(values)}")
    return values[0]


def _example(value: onnx_ir.Value) -> Shape:
    shape = static_shape(value)
    return None if shape is None else shape[1:]


def _offsets(names: Sequence[str], label_offset: int | Sequence[int] | Mapping[str, int]) -> int | Mapping[str, int]:
    if isinstance(label_offset, (int, Mapping)):
        return label_offset
    if len(label_offset) == 1:
        return label_offset[0]
    if len(label_offset) != len(names):
        raise UsageError(f"one label offset, or one for each of {len(names)} models, is expected. Received: {len(label_offset)}")
    return dict(zip(names, label_offset, strict=True))
