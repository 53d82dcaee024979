"""`quantize --retrain`: thresholds and weights are trained in the regenerated TensorFlow graph (TQT), then written back.

The network is prepared and calibrated as in static mode, regenerated (R1), trained, and its weights and thresholds go through the
same insertion of Q/DQ pairs as static ones (R5): what is shipped is never a second code path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from ..calibrate import PERCENTILE
from ..datasets import Augmentation, Preprocessing
from ..ir import UsageError
from ..passes import BitWidths
from .evaluate import evaluate
from .preparation import calibrate_prepared, check_methods, decide_trained, prepare
from .quantize import finish
from .retraining import Retraining, StoppedError
from .sources import Data, Progress, open_model
from .training_data import TrainingData, training_data
from .training_folder import training_folder
from .training_progress import TrainingProgress

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf.training import Listener, Schedule, TrainingResult
    from ..passes import Pass

FLOAT, STATIC, RETRAINED, FINE_TUNED = "float", "static", "retrained", "fine-tuned"
"""What the models of the final comparison are called; the last one is that of the mode `float`."""

NOTHING: Final = "nothing"
"""What is said of data that were not used."""


def retrain(
    model: onnx_ir.Model | str | os.PathLike[str],
    train: Data | Any,
    *,
    calibration: Data | None = None,
    select: Data | float | Literal["auto"] | None = "auto",
    test: Data | None = None,
    bits: BitWidths | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    weight_method: str | None = None,
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
    deterministic: bool = True,
    seed: int = 0,
    listener: Listener | None = None,
    progress: Progress | None = None,
    save: Callable[[Retraining], None] | None = None,
) -> Retraining:
    """Quantizes a float model and trains its weights and thresholds.

    Batch norms that `convert --keep-batch-norm` left in the model are trained as such (B2); in other models weights and biases are.

    Args:
        model: float ONNX; a model in memory is not changed.
        train: what is trained on: labelled images or arrays, a pair of arrays `(inputs, labels)`, or a `tf.data.Dataset`; without
            labels for `loss="distill"`.
        calibration: what the first thresholds are from; by default 50 of the training examples.
        select: what chooses the best step: data, or how much of `train` is held back for it (a share below 1, or a number of
            examples); None for nothing. By default a tenth is held back, of a `tf.data.Dataset` nothing.
        test: measured at the end, and used for nothing else.
        bits: as for `quantize`, as are `method`, `percentile`, `parallel`, `ignore_ranges`, `passes`; none in the mode `float`.
        method: of activation thresholds.
        percentile: of that method.
        weight_method: of weight thresholds: where training starts, by default `3sd`, the paper's (C1); and of the static network
            it is compared with on the test data, by default `mse`, the best of static mode.
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
        deterministic: the same bits for the same seed; switched off, operators may be faster.
        seed: of the order of the data, augmentation, and what is drawn from it.
        listener: told of steps, validations and freezing.
        progress: called with (done, total, what).
        save: called with the result as soon as there is one, in the process that writes files: before the test data are measured,
            so that nothing they do can lose a training.

    Raises:
        ModelError: unreadable, or quantized already.
        UnsupportedError: nothing to quantize, or an operator that has no counterpart in TensorFlow.
        DataError: data that does not fit, or overlaps.
        UsageError: arguments that contradict each other, a checkpoint of another training, or devices that are not there.
        StoppedError: the loss is not finite any more, or data cannot be read on the way; it holds the best state so far, of which
            nothing is measured.
        WorkerLostError: another worker is gone.
    """
    from ..frontend_tf.quiet import quiet

    begins = weight_method or "3sd"
    check_methods(method, begins)
    with quiet():
        from ..backend_tf import regenerate
        from ..backend_tf.training import (
            Listeners,
            Schedule,
            StoppedTrainingError,
            check_batches,
            check_delay,
            check_keep,
            check_mode,
            digest,
            forget_checkpoints,
            heads_of,
            is_chief,
            is_multi_worker,
            make_loss,
            make_strategy,
        )
        from ..backend_tf.training import train as run

    schedule = schedule or Schedule()
    check_mode(mode, schedule, quantizers=True)
    augmentation = Augmentation.parse(augment) if isinstance(augment, str) else augment
    widths = _widths(mode, bits)
    place = None if folder is None else training_folder(folder)
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
    keep = check_keep(keep, schedule, data.select is not None, is_multi_worker(distribution))
    prepared = prepare(source, data.calibration, bits=widths, ignore_ranges=ignore_ranges, passes=passes, preprocess=preprocess)
    with distribution.scope():  # in float, so that all that can be refused is refused before the calibration
        network = regenerate(prepared.model, batch_norm_momentum=batch_norm_momentum)
    expected = make_loss(loss, heads_of(network), temperature=temperature, label_smoothing=label_smoothing)
    batches = data.batches(
        network,
        schedule.batch,
        augmentation,
        seed,
        label_offset,
        classes=expected.classes,
        steps_per_epoch=steps_per_epoch,
        unsigned=widths.unsigned_input,
    )
    check_batches(batches, schedule.batch, distribution.num_replicas_in_sync, expected.needs_labels)
    check_delay(schedule, batches.steps_per_epoch)
    data.check_labels(expected.classes, label_offset, needed=expected.needs_labels, tested=expected.heads[0].classes)
    calibrate = partial(calibrate_prepared, method=method, percentile=percentile, parallel=parallel, progress=progress)
    if mode != "float":
        calibrated = calibrate(prepared, weight_method=begins)
        with distribution.scope():
            network = regenerate(
                prepared.model, calibrated.graph, calibrated.log2_thresholds, batch_norm_momentum=batch_norm_momentum
            )

    def recalibrate(floating: onnx_ir.Model) -> dict[str, float]:
        return calibrate(replace(prepared, model=floating), weight_method=begins).log2_thresholds

    def result(training: TrainingResult) -> Retraining:
        trained = replace(prepared, model=network.float_model())
        quantization = (
            None if mode == "float" else finish(trained, decide_trained(trained.model, trained.graph, network.log2_thresholds()))
        )
        found = Retraining(
            model=trained.model if quantization is None else quantization.model,
            quantization=quantization,
            training=training,
            folded_layers=dict(network.folded_layers),
            trained_on=data.trained_on,
            selected_on=data.selected_on,
            tested_on=NOTHING,
            calibrated_on=NOTHING if mode == "float" else f"{len(prepared.feeder or ()):,} {data.calibrated_on}",
            accuracy=None,
            chief=chief,
        )
        if save is not None and chief:
            save(found)
        return found

    def static() -> onnx_ir.Model:
        return finish(prepared, calibrate(prepared, weight_method=weight_method or "mse")).model

    chief = is_chief(distribution)
    identity = data.identity(label_offset, augmentation) | (
        {  # without a delay the thresholds it gave are in the network that is compared
            "calibration": {
                "method": method,
                "percentile": percentile,
                "weight method": begins,
                "parallel": parallel,
                "count": len(prepared.feeder or ()),
                "first batch": digest((next(prepared.feeds()), None)),
            }
        }
        if schedule.quant_delay
        else {}
    )
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
            select=shown.watched(
                data.selection(network, schedule.batch, label_offset, expected.classes, unsigned=widths.unsigned_input), data.select
            ),
            select_name=data.selected_on,
            keep=keep,
            folder=place,
            checkpoint_every=checkpoint_every,
            seed=seed,
            strategy=distribution,
            deterministic=deterministic,
            calibrate=recalibrate,
            listener=Listeners([shown] if listener is None else [shown, listener]),
            identity=identity,
        )
    except StoppedTrainingError as error:
        raise StoppedError(error, result(error.result)) from error
    found = result(done)
    if data.test is None or not chief or done.interrupted:  # who presses Ctrl-C does not want to wait
        return found
    return _measured(found, source, None if mode == "float" else static(), data, label_offset, progress)


def make_schedule(**numbers: Any) -> Schedule:
    """A `Schedule` of these numbers.

    Raises:
        UsageError: a number outside its range.
    """
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf.training import Schedule
    return Schedule(**numbers)


def _measured(
    found: Retraining,
    source: onnx_ir.Model,
    static: onnx_ir.Model | None,
    data: TrainingData,
    label_offset: int,
    progress: Progress | None,
) -> Retraining:
    """The same with its accuracy on the test data, beside the float network's and, of a quantized one, the static network's."""
    assert data.test is not None
    models = {FLOAT: source, FINE_TUNED: found.model} if static is None else {FLOAT: source, STATIC: static, RETRAINED: found.model}
    labelled = data.test.all_labels is not None
    accuracy = evaluate(models, data.test, label_offset=label_offset, labelled=labelled, progress=progress)
    return replace(found, tested_on=data.tested_on, accuracy=accuracy)


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what


def _widths(mode: str, bits: BitWidths | None) -> BitWidths:
    """The widths; the mode `float` has none, and its lowered form of 32 bits is the closest to the float network.

    Raises:
        UsageError: widths for the mode `float`.
    """
    if mode != "float":
        return bits or BitWidths()
    given = {} if bits is None else {name: value for name, value in asdict(bits).items() if value != getattr(BitWidths(), name)}
    if given:
        received = ", ".join(f"{name} {value}" for name, value in given.items())
        raise UsageError(f"the mode float trains without quantizers: widths have no effect there. Received: {received}")
    return BitWidths(layer=32)
