"""`train`: retrains a regenerated network, weights and thresholds, in float or quantized."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from ...ir import UsageError
from ..model import RegeneratedModel
from ..regenerate import regenerate
from .blame import first_not_finite
from .checkpoints import Checkpoints, model_fingerprint
from .data import SelectionData, TrainingBatches, check_batches, fingerprint
from .determinism import make_deterministic
from .errors import DivergedError, WorkerLostError
from .events import TrainingLog
from .listener import Listener, Listeners
from .loop import Calibrate, Loop, NotFiniteError
from .losses import heads_of, make_loss
from .outcome import finish
from .phase import Mode, check_mode
from .result import TrainingResult
from .schedule import Schedule
from .selection import Selection
from .state import TrainingState
from .steps import Steps
from .strategies import check_agreement, is_chief, is_multi_worker, own_parts

LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
)
"""What TensorFlow raises in a step when another worker is gone."""


def train(
    model: RegeneratedModel,
    batches: TrainingBatches,
    *,
    schedule: Schedule | None = None,
    mode: Mode = "both",
    loss: str | Callable[..., Any] = "labels",
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    select: SelectionData | None = None,
    select_name: str = "the selection data",
    keep: Literal["best", "last"] | None = None,
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    strategy: tf.distribute.Strategy | None = None,
    calibrate: Calibrate | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Trains the model in place.

    Called again with the same arguments and the same folder it goes on from the last checkpoint, and ends with the same bits as a
    training that never stopped. TensorFlow's operators are made deterministic for the whole process (`make_deterministic`).

    Args:
        model: made by `regenerate` in the scope of the strategy; holds the kept weights and thresholds afterwards.
        batches: the training data, in the schedule's batch size.
        schedule: the numbers; the paper's by default.
        mode: float (weights, without quantizers), weights, thresholds, or both.
        loss: labels, distill, or a function (`losses.make_loss`).
        temperature: of distill.
        label_smoothing: of labels.
        select: gives batches of data that is not trained on, for validation before, during and after; None for none.
        select_name: what to call it in the result.
        keep: the best validated state, or the last; by default the best where there is something to select by.
        folder: takes checkpoints and the files of `TrainingLog`; None for none.
        checkpoint_every: steps between two checkpoints; by default one a minute.
        seed: recorded, and given to TensorFlow; the data has its own.
        strategy: of `make_strategy`; by default one device.
        calibrate: gives thresholds for the float model at the end of a `quant_delay`; without it they stay what they were.
        listener: told how it goes.

    Returns:
        What was done.

    Raises:
        UsageError: arguments that contradict each other, or a checkpoint of another training.
        DataError: data that cannot be read, labels that are no classes, or checkpoints that cannot be read.
        DivergedError: the loss is not finite any more; the model holds the best state so far.
        WorkerLostError: another worker is gone.
    """
    schedule = schedule or Schedule()
    check_mode(mode, schedule, bool(model.groups))
    keep = keep or ("last" if select is None else "best")
    if keep == "best" and select is None:
        raise UsageError("keeping the best state needs data to select by, other than the training data. Received: none")
    strategy = strategy or tf.distribute.get_strategy()
    make_deterministic(seed)
    if mode != "float":
        model.quantizers_on = True
    with strategy.scope():
        teacher = regenerate(model.float_model()) if loss == "distill" else None
    chosen = make_loss(loss, heads_of(model, teacher), temperature=temperature, label_smoothing=label_smoothing)
    check_batches(batches, schedule.batch, strategy.num_replicas_in_sync, chosen.needs_labels)
    total = schedule.total(batches.steps_per_epoch)
    identity = {
        "model": model_fingerprint(model),
        "schedule": schedule.to_dict(),
        "mode": mode,
        "loss": f"{chosen.name} {temperature} {label_smoothing}",
        "seed": seed,
        "data": fingerprint(batches),
    }
    state = TrainingState(model, schedule, total, strategy)
    steps = Steps(state, chosen, teacher, strategy, schedule.batch, schedule.regularization)
    chief = is_chief(strategy)
    checkpoints = None if folder is None else Checkpoints(state, folder, identity, checkpoint_every, chief)
    resumed = state.facts.step if checkpoints is not None and checkpoints.restore() else None
    check_agreement(strategy, state.facts.step)
    selection = None if select is None else Selection(select, steps, chosen, select_name)
    parts = (own_parts(strategy), strategy.num_replicas_in_sync)
    with ExitStack() as files:
        told = [listener] if listener is not None and chief else []
        if folder is not None and chief:
            told.append(files.enter_context(closing(TrainingLog(folder, schedule.batch, batches.steps_per_epoch, after=resumed))))
        loop = Loop(state, steps, batches, schedule, mode, chosen, parts, selection, checkpoints, calibrate, Listeners(told))
        end = partial(finish, state, loop, batches, select_name=select_name, resumed_from=resumed)
        try:
            interrupted = loop.run()
        except NotFiniteError as error:
            feeds = batches.batch(error.step, parts[0][0], parts[1])[0]
            with np.errstate(all="ignore"):
                where = first_not_finite(model, feeds, state.thresholds(), error.phase.quantized) or "the loss itself"
            found = end(best=True)
            raise DivergedError(
                f"training: the loss of step {error.step} is not finite; what blew up first is {where}. The state of "
                f"step {found.kept} is kept; smaller learning rates are what helps most often. Received: "
                f"weight_lr {schedule.weight_lr}, threshold_lr {schedule.threshold_lr}",
                found,
            ) from error
        except LOST as error:
            if not is_multi_worker(strategy):
                raise
            again = "start all workers anew" + ("" if folder is None else f" with the same folder, {folder}, and they go on")
            raise WorkerLostError(
                f"training: another worker is gone at step {state.facts.step}; {again}. Received: {type(error).__name__}"
            ) from error
        return end(best=keep == "best", interrupted=interrupted)
