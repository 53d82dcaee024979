"""`train`: retrains a regenerated network, weights and thresholds, in float or quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...ir import DataError
from ..model import RegeneratedModel
from ..regenerate import regenerate
from .blame import first_not_finite
from .checkpoints import Checkpoints, model_fingerprint
from .data import SelectionData, TrainingBatches, check_batches, fingerprint, selection_fingerprint
from .determinism import deterministic_operators
from .errors import BrokenDataError, DivergedError
from .events import TrainingLog
from .listener import Listener, Listeners
from .loop import Calibrate, Loop, NotFiniteError
from .losses import heads_of, make_loss
from .outcome import finish
from .phase import Keep, Mode, check_delay, check_keep, check_mode
from .result import TrainingResult
from .schedule import Schedule
from .selection import Selection
from .state import TrainingState
from .steps import Steps
from .strategies import check_agreement, is_chief, is_multi_worker, own_parts, worker_loss


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
    keep: Keep | None = None,
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    deterministic: bool = True,
    strategy: tf.distribute.Strategy | None = None,
    calibrate: Calibrate | None = None,
    listener: Listener | None = None,
    identity: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Trains the model in place.

    Called again with the same arguments and the same folder it goes on from the last checkpoint, and ends with the same bits as a
    training that never stopped, unless `deterministic` is switched off.

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
        seed: recorded, and given to TensorFlow where it is made deterministic; the data has its own.
        deterministic: makes TensorFlow's operators deterministic for the time of the training (`deterministic_operators`). False
            leaves the process as it is: operators may then be faster, and two trainings differ in the last bits.
        strategy: of `make_strategy`; by default one device.
        calibrate: gives thresholds for the float model at the end of a `quant_delay`; without it they stay what they were.
        listener: told how it goes.
        identity: what else makes it this training and no other, by the name a message has for it: values that JSON can hold.

    Returns:
        What was done.

    Raises:
        UsageError: arguments that contradict each other, or a checkpoint of another training.
        DataError: data that cannot be read, labels that are no classes, or checkpoints that cannot be read. Behind the first step
            `BrokenDataError`: a checkpoint was written, and the model holds what `keep` asks for so far.
        DivergedError: the loss, or what is trained, is not finite any more. The model holds the best state so far; without
            selection data the one in front of the ten steps with the smallest training loss.
        WorkerLostError: another worker is gone.
    """
    schedule = schedule or Schedule()
    check_mode(mode, schedule, bool(model.groups))
    strategy = strategy or tf.distribute.get_strategy()
    keep = check_keep(keep, schedule, select is not None, is_multi_worker(strategy))
    if mode != "float":
        model.quantizers_on = True
    with strategy.scope():
        teacher = regenerate(model.float_model()) if loss == "distill" else None
    chosen = make_loss(loss, heads_of(model, teacher), temperature=temperature, label_smoothing=label_smoothing)
    check_batches(batches, schedule.batch, strategy.num_replicas_in_sync, chosen.needs_labels)
    check_delay(schedule, batches.steps_per_epoch)
    total = schedule.total(batches.steps_per_epoch)
    whole = {
        **(identity or {}),
        "model": model_fingerprint(model),
        "schedule": schedule.to_dict(),
        "mode": mode,
        "loss": f"{chosen.name} {temperature} {label_smoothing}",
        "seed": seed,
        "data": fingerprint(batches),
        "first batch of the selection data": selection_fingerprint(select),
        "keep": keep,
        "batch norm momentum": model.batch_norm_momentum,
    }
    state = TrainingState(model, schedule, total, strategy)
    steps = Steps(state, chosen, teacher, strategy, schedule.batch, schedule.regularization)
    chief = is_chief(strategy)
    checkpoints = None if folder is None else Checkpoints(state, folder, whole, checkpoint_every, chief)
    resumed = state.facts.step if checkpoints is not None and checkpoints.restore() else None
    selection = None if select is None else Selection(select, steps, chosen, select_name)
    with ExitStack() as files:
        if deterministic:
            files.enter_context(deterministic_operators(seed))
        files.enter_context(worker_loss(strategy, folder, lambda: state.facts.step))
        check_agreement(strategy, state.facts.step)
        parts = (own_parts(strategy), strategy.num_replicas_in_sync)
        told = [listener] if listener is not None and chief else []
        if folder is not None and chief:
            told.append(files.enter_context(closing(TrainingLog(folder, schedule.batch, batches.steps_per_epoch, after=resumed))))
        loop = Loop(state, steps, batches, schedule, mode, chosen, parts, selection, checkpoints, calibrate, Listeners(told))
        end = partial(finish, state, loop, batches, select_name=select_name, resumed_from=resumed)
        try:
            interrupted = loop.run()
        except NotFiniteError as error:
            rows = [feeds for feeds, _ in error.rows.values()]
            with np.errstate(all="ignore"):
                where = first_not_finite(model, rows, state.thresholds(), error.phase.quantized, error.phase.moving)
            where = where or ("something on another worker" if is_multi_worker(strategy) else "the loss itself")
            found = end(best=True, blown_up=True)
            raise DivergedError(
                f"training: {error}; what blew up first is {where}. The state of "
                f"step {found.kept} is kept; smaller learning rates are what helps most often. Received: "
                f"weight_lr {schedule.weight_lr}, threshold_lr {schedule.threshold_lr}",
                found,
            ) from error
        except DataError as error:
            if state.facts.step == 0:
                raise
            again = "" if folder is None else "; once that is repaired the same command goes on"
            raise BrokenDataError(
                f"training: stopped behind step {state.facts.step}{again}: {error}", end(best=keep == "best")
            ) from error
        return end(best=keep == "best", interrupted=interrupted)
