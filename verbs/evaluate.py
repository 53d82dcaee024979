"""`evaluate`: top-1 and top-5 of several models on the same images, side by side, the first one being the reference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ..datasets import AccuracyCounter, AccuracyResult
from ..ir import DataError, UsageError, fed_inputs, name_of
from .sources import Feeder, Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset


def evaluate(
    models: Mapping[str, onnx_ir.Model | str | os.PathLike[str]],
    data: Dataset | str | os.PathLike[str] | npt.NDArray[Any],
    *,
    preprocess: str = "none",
    label_offset: int = 0,
    limit: int | None = None,
    seed: int | None = None,
    labelled: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> AccuracyResult:
    """Counts right answers in onnxruntime with all optimizations: what users run. One batch is in memory.

    Args:
        models: name -> model or file; all take the same single input; their first output holds the classes.
        data: labelled images (or unlabelled ones: then only the agreement between models is counted).
        preprocess: preset for images.
        label_offset: output index of class 0 (1 for networks with a background class).
        limit: at most so many images.
        seed: draw them at random.
        labelled: refuse data without labels instead of counting the agreement alone.
        batch_size: images run at once.
        progress: called with (done, total, what).

    Raises:
        DataError: images or labels that do not fit the models.
        ModelError: a file that is no model.
        UsageError: no models.
    """
    from ..verify import Session

    if not models:
        raise UsageError("at least one model is expected")
    opened = {name: open_model(model) for name, model in models.items()}
    sessions = {name: Session(model, optimize=True) for name, model in opened.items()}
    inputs = {name: fed_inputs(model.graph) for name, model in opened.items()}
    for name, values in inputs.items():
        if len(values) != 1:
            raise DataError(f"{name}: a network with one input is expected. Received: {len(values)}")
    first = next(iter(opened.values()))
    feeder = Feeder(first, data, preprocess=preprocess, limit=limit, seed=seed)
    counter = AccuracyCounter(list(models), label_offset=label_offset)
    done = 0
    for feeds, labels in feeder.batches(batch_size):
        if labelled and labels is None:
            raise DataError("labelled data is expected where an accuracy is asked for; these examples have no labels")
        (images,) = feeds.values()
        outputs = {name: session.run({name_of(inputs[name][0]): images})[session.outputs[0]] for name, session in sessions.items()}
        counter.update(outputs, labels)
        done += len(images)
        if progress is not None:
            progress(done, len(feeder), "evaluating")
    return counter.result()
