"""Options of `quantize --retrain`, `--tune` and `--from-trained`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from .options import FILE, together
from .sections import option

MODES: Final = ("both", "weights", "thresholds", "float")
OPTIMIZERS: Final = ("adam", "sgd-momentum", "rmsprop")
WEIGHT_SCHEDULES: Final = ("staircase", "cosine")
STRATEGIES: Final = ("none", "mirrored", "multi-worker")
"""Repeated here, as the numbers below, so that `--help` loads no TensorFlow; a test compares them with their tables."""

_POSITIVE: Final = click.FloatRange(0, min_open=True)
_NOT_NEGATIVE: Final = click.FloatRange(0)
_DECAY: Final = click.FloatRange(0, 1, max_open=True)
_COUNT: Final = click.IntRange(min=1)

TUNE: Final = "Repair without labels (--tune)"
_RETRAIN: Final = "Retraining (--retrain)"
_DATA: Final = "Data of a retraining"
_LENGTH: Final = "Length of a retraining (paper's numbers are for 24 images a step and stretch with 24/N)"
_WEIGHTS: Final = "Weights"
_THRESHOLDS: Final = "Thresholds and batch norm statistics"


@dataclass(frozen=True)
class ScheduleOption:
    """An option that is a number of `Schedule`.

    Attributes:
        section: of the help.
        flag: as typed.
        kind: what click reads it as.
        default: the paper's; None where it depends on the batch or on the length of the run.
        help: one line.
        field: of `Schedule`, where it is not the flag's own name.
    """

    section: str
    flag: str
    kind: Any
    default: Any
    help: str
    field: str | None = None

    @property
    def name(self) -> str:
        """The field of `Schedule`."""
        return self.field or self.flag.lstrip("-").replace("-", "_")


SCHEDULE: Final = (
    ScheduleOption(_LENGTH, "--batch-size", _COUNT, 24, "Images of a step, over all replicas: N.", "batch"),
    ScheduleOption(_LENGTH, "--epochs", _POSITIVE, 5.0, "Passes over the training data."),
    ScheduleOption(_LENGTH, "--steps", _COUNT, None, "Steps instead of epochs."),
    ScheduleOption(_LENGTH, "--validate-every", _COUNT, None, "Steps between validations.  [default: 1000*24/N, four at least]"),
    ScheduleOption(_LENGTH, "--patience", _COUNT, None, "End after so many validations without a better one.  [default: never]"),
    ScheduleOption(_LENGTH, "--quant-delay", click.IntRange(min=0), 0, "Steps in float before the quantizers are switched on."),
    ScheduleOption(_WEIGHTS, "--weight-optimizer", click.Choice(OPTIMIZERS), "adam", "How they are moved."),
    ScheduleOption(_WEIGHTS, "--weight-lr", _POSITIVE, 1e-6, "Learning rate, also of gamma and beta."),
    ScheduleOption(_WEIGHTS, "--weight-lr-decay", _POSITIVE, 0.94, "Factor on it at every interval."),
    ScheduleOption(_WEIGHTS, "--weight-lr-every", _COUNT, None, "Steps of that interval.  [default: 3000*24/N]"),
    ScheduleOption(
        _WEIGHTS, "--weight-schedule", click.Choice(WEIGHT_SCHEDULES), "staircase", "cosine: down to zero, without decay."
    ),
    ScheduleOption(_WEIGHTS, "--warmup-steps", click.IntRange(min=0), 0, "Steps in which their learning rate rises from zero."),
    ScheduleOption(_WEIGHTS, "--regularization", _NOT_NEGATIVE, 0.0, "Factor of half the squared weights in their loss."),
    ScheduleOption(_WEIGHTS, "--momentum", _DECAY, 0.9, "Of sgd-momentum and rmsprop."),
    ScheduleOption(_WEIGHTS, "--beta-1", _DECAY, 0.9, "Of Adam, of the thresholds' too."),
    ScheduleOption(_WEIGHTS, "--beta-2", _DECAY, 0.999, "Of Adam, of the thresholds' too, and of rmsprop."),
    ScheduleOption(_WEIGHTS, "--epsilon", _POSITIVE, 1e-8, "Of Adam, of the thresholds' too, and of rmsprop."),
    ScheduleOption(_THRESHOLDS, "--threshold-lr", _POSITIVE, 1e-2, "Learning rate of the thresholds (Adam)."),
    ScheduleOption(_THRESHOLDS, "--threshold-lr-decay", _POSITIVE, 0.5, "Factor on it at every interval."),
    ScheduleOption(_THRESHOLDS, "--threshold-lr-every", _COUNT, None, "Steps of that interval.  [default: 1000*24/N]"),
    ScheduleOption(_THRESHOLDS, "--freezing/--no-freezing", None, True, "Freeze one threshold after the other.", "freezing"),
    ScheduleOption(_THRESHOLDS, "--freeze-from", _COUNT, None, "Step of the first.  [default: 1000*24/N, less in short runs]"),
    ScheduleOption(_THRESHOLDS, "--freeze-every", _COUNT, None, "Steps between two.  [default: 50, less in short runs]"),
    ScheduleOption(
        _THRESHOLDS,
        "--freeze-share",
        click.FloatRange(0, 1, min_open=True),
        0.75,
        "Share of a short run by which all had their turn.",
    ),
    ScheduleOption(_THRESHOLDS, "--freeze-ema", _DECAY, 0.9999, "Decay of the average that a threshold must agree with.", "ema"),
    ScheduleOption(_THRESHOLDS, "--statistics-epochs", _NOT_NEGATIVE, 1.0, "Epochs in which batch norm statistics move."),
)
"""Every number of `Schedule`."""


def _schedule_option(entry: ScheduleOption) -> Callable[..., Any]:
    attributes: dict[str, Any] = {"default": entry.default, "help": entry.help, "show_default": entry.default is not None}
    if entry.kind is not None:
        attributes["type"] = entry.kind
    return option(entry.section, entry.flag, entry.name, **attributes)


_retrain = partial(option, _RETRAIN)
_data = partial(option, _DATA)
_tune = partial(option, TUNE)

tune_options: Callable[..., Any] = together(
    _tune("--tune", is_flag=True, help="Repair layers from the calibration images where static thresholds lose accuracy."),
    _tune("--tune-minutes", type=_POSITIVE, default=5.0, show_default=True, help="Time for it, at most."),
)

retrain_options: Callable[..., Any] = together(
    _retrain("--retrain", is_flag=True, help="Train weights and thresholds (TQT) on --train."),
    _retrain(
        "--mode",
        type=click.Choice(MODES),
        default="both",
        show_default=True,
        help="What is trained: weights and thresholds, one of them, or the weights of the float network, which is then written.",
    ),
    _retrain("--distill", is_flag=True, help="Learn from the float network's own answers instead of labels."),
    _retrain("--temperature", type=_POSITIVE, default=1.0, show_default=True, help="Of --distill."),
    _retrain("--label-smoothing", type=_DECAY, default=0.0, show_default=True, help="Share of the target spread over all classes."),
    _retrain(
        "--keep", type=click.Choice(("best", "last")), help="Which step is written.  [default: best; last where nothing selects]"
    ),
    _retrain("--folder", type=FILE, help="Checkpoints, CSV and TensorBoard files.  [default: OUTPUT, its suffix .train]"),
    _retrain("--checkpoint-every", type=_COUNT, help="Steps between checkpoints.  [default: about a minute's]"),
    _retrain("--restart", is_flag=True, help="Begin anew instead of going on from the folder's checkpoint."),
    _retrain("--strategy", type=click.Choice(STRATEGIES), default="none", show_default=True, help="Of tf.distribute."),
    _data("--train", type=FILE, help="Images or arrays with labels; without, for --distill."),
    _data(
        "--select",
        metavar="DATA|SHARE",
        default="0.1",
        show_default=True,
        help="What chooses the best step: data, or a share or number of --train that is held back; 0 for nothing.",
    ),
    _data("--test", type=FILE, help="Measured at the end and used for nothing else."),
    _data("--label-offset", type=int, default=0, show_default=True, help="Output index of class 0 (1 with a background class)."),
    _data(
        "--augment",
        metavar="LIST",
        help='Random changes: "flip,pad=4" for small images, "flip,crop=0.08,colour=0.5" for photographs.',
    ),
    *(_schedule_option(entry) for entry in SCHEDULE),
    option(
        _THRESHOLDS,
        "--batch-norm-momentum",
        type=_DECAY,
        default=0.99,
        show_default=True,
        help="Of batch norm statistics (convert --keep-batch-norm).",
    ),
)

from_trained_option = option(
    "Trained elsewhere", "--from-trained", type=FILE, help="Write a .keras file of `tqt_onnx.to_keras` back; takes no MODEL."
)


def share_or_path(text: str) -> float | Path:
    """`0.1` as a number, anything else as a path."""
    try:
        return float(text)
    except ValueError:
        return Path(text)
