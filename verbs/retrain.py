"""`quantize --retrain`: thresholds and weights are trained in the regenerated TensorFlow graph (TQT), then written back.

The network is prepared and calibrated as in static mode, regenerated (R1), trained, and its weights and thresholds go through the
same insertion of Q/DQ pairs as static ones (R5): what is shipped is never a second code path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..calibrate import PERCENTILE
from ..datasets import AccuracyResult, Augmentation, Preprocessing
from ..ir import TqtOnnxError
from ..passes import BitWidths
from .evaluate import evaluate
from .quantize import Prepared, Quantization, calibrate_prepared, check_methods, decide_trained, finish, prepare
from .sources import Data, Progress, open_model
from .training_data import TrainingData, training_data

if TYPE_CHECKING:
    import onnx_ir

    from ..backend_tf.training import Listener, Schedule, TrainingResult
    from ..passes import Pass

SCHEMA: Final = "tqt_onnx.retraining/1"

FLOAT, STATIC, RETRAINED = "float", "static", "retrained"
"""What the models of the final comparison are called."""


@dataclass(frozen=True)
class Retraining:
    """A retrained model and how it came about.

    Attributes:
        model: what is to be written: Q/DQ, or float in the mode `float`.
        quantization: what was decided; None in the mode `float`.
        training: steps, history, thresholds before and after.
        folded_layers: compute layers whose batch norm could not be kept apart for training, with the reason.
        trained_on: which data were trained on, in words.
        selected_on: which data chose the step.
        tested_on: which data the accuracies are of.
        calibrated_on: which data the first thresholds are from.
        accuracy: float, static and retrained network on the test data; None without such.
    """

    model: onnx_ir.Model
    quantization: Quantization | None
    training: TrainingResult
    folded_layers: dict[str, str]
    trained_on: str
    selected_on: str
    tested_on: str
    calibrated_on: str
    accuracy: AccuracyResult | None

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "schema": SCHEMA,
            "training": self.training.to_dict(),
            "data": {
                "trained_on": self.trained_on,
                "selected_on": self.selected_on,
                "tested_on": self.tested_on,
                "calibrated_on": self.calibrated_on,
            },
            "folded_layers": self.folded_layers,
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
        }


class StoppedError(TqtOnnxError):
    """A training whose loss is no finite number any more.

    Attributes:
        retraining: the best state so far.
        reason: the error, which names the step and the layer.
    """

    def __init__(self, reason: TqtOnnxError, retraining: Retraining) -> None:
        super().__init__(str(reason))
        self.reason, self.retraining = reason, retraining


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
        from ..backend_tf.training import DivergedError, Schedule, forget_checkpoints, make_strategy
        from ..backend_tf.training import train as run

    schedule = schedule or Schedule()
    distribution = make_strategy(strategy)  # before TensorFlow runs anything
    widths = bits or BitWidths()
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
    if mode == "float":
        widths = replace(widths, layer=32)  # its lowered form is the closest to the float network
    prepared = prepare(source, data.calibration, bits=widths, ignore_ranges=ignore_ranges, passes=passes, preprocess=preprocess)
    calibrated = calibrate_prepared(
        prepared, method=method, percentile=percentile, weight_method=weight_method, parallel=parallel, progress=progress
    )
    with distribution.scope():
        network = regenerate(prepared.model, calibrated.graph, calibrated.log2_thresholds, batch_norm_momentum=batch_norm_momentum)

    def recalibrate(floating: onnx_ir.Model) -> dict[str, float]:
        again = replace(prepared, model=floating)
        return calibrate_prepared(
            again, method=method, percentile=percentile, weight_method=weight_method, parallel=parallel
        ).log2_thresholds

    def result(training: TrainingResult) -> Retraining:
        trained = replace(prepared, model=network.float_model())
        quantization = None if mode == "float" else finish(trained, decide_trained(trained, network.log2_thresholds()))
        written = trained.model if quantization is None else quantization.model
        static = None if mode == "float" else _static(prepared, data, method, percentile, parallel)
        return Retraining(
            written,
            quantization,
            training,
            dict(network.folded_layers),
            data.trained_on,
            data.selected_on,
            data.tested_on,
            data.calibrated_on,
            _tested({FLOAT: source, STATIC: static, RETRAINED: written}, data, label_offset, progress),
        )

    batches = data.batches(
        network, schedule.batch, augment, seed, label_offset, labels=loss == "labels", steps_per_epoch=steps_per_epoch
    )
    place = None if folder is None else Path(folder)
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
            select=data.selection(network, schedule.batch, label_offset),
            select_name=data.selected_on,
            keep=keep,
            folder=place,
            checkpoint_every=checkpoint_every,
            seed=seed,
            strategy=distribution,
            calibrate=recalibrate,
            listener=listener,
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


def _static(prepared: Prepared, data: TrainingData, method: str, percentile: float, parallel: bool) -> onnx_ir.Model | None:
    """The same network in static mode, for the comparison on test data."""
    if data.test is None:
        return None
    return finish(prepared, calibrate_prepared(prepared, method=method, percentile=percentile, parallel=parallel)).model


def _tested(
    models: dict[str, onnx_ir.Model | None], data: TrainingData, label_offset: int, progress: Progress | None
) -> AccuracyResult | None:
    if data.test is None:
        return None
    there = {name: model for name, model in models.items() if model is not None}
    return evaluate(there, data.test, label_offset=label_offset, labelled=data.test.all_labels is not None, progress=progress)
