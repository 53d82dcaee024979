"""`quantize --retrain`: thresholds and weights are trained in the regenerated TensorFlow graph (TQT), then written back.

The network is prepared and calibrated as in static mode, regenerated (R1), trained, and its weights and thresholds go through the
same insertion of Q/DQ pairs as static ones (R5): what is shipped is never a second code path.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..calibrate import PERCENTILE
from ..datasets import AccuracyResult, Augmentation, Dataset, Preprocessing
from ..ir import UsageError
from ..passes import BitWidths
from .evaluate import evaluate
from .quantize import calibrate_prepared, check_methods, decide_trained, finish, prepare
from .retraining import Retraining, StoppedError
from .sources import Data, Progress, open_model
from .training_data import training_data
from .training_progress import TrainingProgress

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf.training import Listener, Schedule, TrainingResult
    from ..passes import Pass

FLOAT, STATIC, RETRAINED = "float", "static", "retrained"
"""What the models of the final comparison are called."""

NOTHING: Final = "nothing"
"""What is said of data that were not used."""


def retrain(
    model: onnx_ir.Model | str | os.PathLike[str],
    train: Data | Any,
    *,
    calibration: Data | None = None,
    select: Data | float | None = 0.1,
    test: Data | None = None,
    bits: BitWidths | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    weight_method: str = "3sd",
    parallel: bool = False,
    ignore_ranges: bool = False,
    passes: str | Sequence[Pass] | None = None,
    preprocess: str | Preprocessing = "none",
    label_offset: int = 0,
    limit: int | None = None,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    augment: Augmentation | str | None = None,
    steps_per_epoch: int | None = None,
    mode: Literal["float", "weights", "thresholds", "both"] = "both",
    loss: str | Callable[..., Any] = "labels",
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    keep: Literal["best", "last"] | None = None,
    schedule: Schedule | None = None,
    batch_norm_momentum: float = 0.99,
    folder: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    restart: bool = False,
    strategy: str = "none",
    seed: int = 0,
    listener: Listener | None = None,
    progress: Progress | None = None,
) -> Retraining:
    """Quantizes a float model and trains its weights and thresholds.

    Batch norms that `convert --keep-batch-norm` left in the model are trained as such (B2); in other models weights and biases are.

    Args:
        model: float ONNX; a model in memory is not changed.
        train: what is trained on: labelled images or arrays, a pair of arrays `(inputs, labels)`, or a `tf.data.Dataset`; without
            labels for `loss="distill"`.
        calibration: what the first thresholds are from; by default 50 of the training examples.
        select: what chooses the best step: data, or how much of `train` is held back for it (a share below 1, or a number of
            examples); None for nothing.
        test: measured at the end, and used for nothing else.
        bits: as for `quantize`, as are `method`, `percentile`, `parallel`, `ignore_ranges`, `passes`.
        method: of activation thresholds.
        percentile: of that method.
        weight_method: of weight thresholds; `3sd` is the paper's for training (C1).
        parallel: one float pass instead of the sequential walk.
        ignore_ranges: measure tensors too whose range came with the source.
        passes: instead of the recipes.
        preprocess: preset for images, of all data.
        label_offset: output index of class 0 (1 for networks with a background class).
        limit: train on at most so many examples, drawn with the seed.
        exclude: names of examples to leave out of `train`.
        augment: random changes of training images, `flip,pad=4` for example.
        steps_per_epoch: of a `tf.data.Dataset` that does not know its length.
        mode: what is trained; `float` trains the network without quantizers and gives a float model.
        loss: `labels`, `distill` (the float network's own answers), or a function.
        temperature: of `distill`.
        label_smoothing: of `labels`.
        keep: the best or the last step; by default the best where there is something to select by.
        schedule: numbers of the training; the paper's by default.
        batch_norm_momentum: of moving statistics.
        folder: takes checkpoints and logs, and is gone on from where it holds a checkpoint of the same training; None for none.
        checkpoint_every: steps between checkpoints; about a minute's by default.
        restart: begin anew instead.
        strategy: of `tf.distribute`: none, mirrored, multi-worker.
        seed: of the order of the data, augmentation, and what is drawn from it.
        listener: told of steps, validations and freezing.
        progress: called with (done, total, what).

    Raises:
        ModelError: unreadable, or quantized already.
        UnsupportedError: nothing to quantize, or an operator that has no counterpart in TensorFlow.
        DataError: data that does not fit, or overlaps.
        UsageError: arguments that contradict each other, a checkpoint of another training, or devices that are not there.
        StoppedError: the loss is not finite any more; it holds the best state so far.
        WorkerLostError: another worker is gone.
    """
    from ..frontend_tf.quiet import quiet

    check_methods(method, weight_method)
    with quiet():
        from ..backend_tf import regenerate
        from ..backend_tf.training import (
            DivergedError,
            Listeners,
            Schedule,
            check_batches,
            check_mode,
            forget_checkpoints,
            heads_of,
            is_chief,
            make_loss,
            make_strategy,
        )
        from ..backend_tf.training import train as run

    schedule = schedule or Schedule()
    check_mode(mode, schedule, quantizers=True)
    augmentation = Augmentation.parse(augment) if isinstance(augment, str) else augment
    place = None if folder is None else writable_folder(folder)
    distribution = make_strategy(strategy)  # before TensorFlow runs anything
    source = open_model(model)
    data = training_data(
        source,
        train,
        select=select,
        test=test,
        calibration=calibration,
        preprocess=preprocess,
        limit=limit,
        exclude=exclude,
        seed=seed,
    )
    widths = bits or BitWidths()
    if mode == "float":
        widths = replace(widths, layer=32)  # its lowered form is the closest to the float network
    prepared = prepare(source, data.calibration, bits=widths, ignore_ranges=ignore_ranges, passes=passes, preprocess=preprocess)
    with distribution.scope():  # in float, so that all that can be refused is refused before the calibration
        network = regenerate(prepared.model, batch_norm_momentum=batch_norm_momentum)
    expected = make_loss(loss, heads_of(network), temperature=temperature, label_smoothing=label_smoothing)
    batches = data.batches(
        network, schedule.batch, augmentation, seed, label_offset, classes=expected.classes, steps_per_epoch=steps_per_epoch
    )
    check_batches(batches, schedule.batch, distribution.num_replicas_in_sync, expected.needs_labels)
    data.check_labels(expected.classes, label_offset, needed=expected.needs_labels)
    calibrate = partial(calibrate_prepared, method=method, percentile=percentile, parallel=parallel, progress=progress)
    if mode != "float":
        calibrated = calibrate(prepared, weight_method=weight_method)
        with distribution.scope():
            network = regenerate(
                prepared.model, calibrated.graph, calibrated.log2_thresholds, batch_norm_momentum=batch_norm_momentum
            )

    def recalibrate(floating: onnx_ir.Model) -> dict[str, float]:
        return calibrate(replace(prepared, model=floating), weight_method=weight_method).log2_thresholds

    def result(training: TrainingResult) -> Retraining:
        trained = replace(prepared, model=network.float_model())
        quantization = None if mode == "float" else finish(trained, decide_trained(trained, network.log2_thresholds()))
        written = trained.model if quantization is None else quantization.model
        tested = data.test if chief and not training.interrupted else None  # who presses Ctrl-C does not want to wait
        accuracy = None
        if tested is not None:  # against the same network in static mode
            static = None if mode == "float" else finish(prepared, calibrate(prepared)).model
            accuracy = _accuracy({FLOAT: source, STATIC: static, RETRAINED: written}, tested, label_offset, progress)
        return Retraining(
            written,
            quantization,
            training,
            dict(network.folded_layers),
            data.trained_on,
            data.selected_on,
            NOTHING if tested is None else data.tested_on,
            NOTHING if mode == "float" else data.calibrated_on,
            accuracy,
            chief,
        )

    chief = is_chief(distribution)
    selection = data.selection(network, schedule.batch, label_offset)
    shown = TrainingProgress(progress or _silent, schedule.total(batches.steps_per_epoch))
    if place is not None and restart:
        forget_checkpoints(place)
    try:
        done = run(
            network,
            batches,
            schedule=schedule,
            mode=mode,
            loss=loss,
            temperature=temperature,
            label_smoothing=label_smoothing,
            select=shown.watched(selection, data.select),
            select_name=data.selected_on,
            keep=keep,
            folder=place,
            checkpoint_every=checkpoint_every,
            seed=seed,
            strategy=distribution,
            calibrate=recalibrate,
            listener=Listeners([shown] if listener is None else [shown, listener]),
        )
    except DivergedError as error:
        raise StoppedError(error, result(error.result)) from error
    return result(done)


def make_schedule(**numbers: Any) -> Schedule:
    """A `Schedule` of these numbers.

    Raises:
        UsageError: a number outside its range.
    """
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf.training import Schedule
    return Schedule(**numbers)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """A folder that need not be there yet; nothing is made or left in it.

    Raises:
        UsageError: it cannot be made or written.
    """
    folder = Path(path)
    there = next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), Path())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: a folder that can be written is expected. Received: {there}: {error.strerror}") from None
    return folder


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what


def _accuracy(
    models: dict[str, onnx_ir.Model | None], test: Dataset, label_offset: int, progress: Progress | None
) -> AccuracyResult:
    there = {name: model for name, model in models.items() if model is not None}
    return evaluate(there, test, label_offset=label_offset, labelled=test.all_labels is not None, progress=progress)
