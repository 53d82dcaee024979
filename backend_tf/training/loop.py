"""The training loop: one for every strategy."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir
import tensorflow as tf

from ...ir import DataError, UnsupportedError
from ..thresholds import initial_log2_t
from .checkpoints import Checkpoints
from .data import Batch, Prefetcher, TrainingBatches
from .freezing import turns
from .interrupt import Interrupt
from .listener import Listener
from .losses import Loss, check_labels
from .phase import Mode, Phase, phase_at
from .result import Row
from .schedule import Schedule
from .selection import Selection
from .state import TrainingState
from .steps import Steps

Calibrate = Callable[[onnx_ir.Model], Mapping[str, float]]
"""From the float model to `{share group: log2_t}`."""

LOG_EVERY: Final = 10
"""Steps between two looks at the loss: reading it waits for the step."""

MOST_BYTES: Final = 1 << 28
"""Of batches that are held for the search for what blew up; beyond, the loss is looked at earlier."""


class NotFiniteError(Exception):
    """A loss, or what a step made of the weights, is not finite; `train` knows what more to say."""

    def __init__(self, message: str, phase: Phase, rows: Mapping[int, Batch]) -> None:
        super().__init__(message)
        self.phase, self.rows = phase, rows


class Loop:
    """The steps of one sitting, from where the state is.

    Args:
        state: what is trained.
        steps: runs training steps.
        batches: the training data.
        schedule: the numbers.
        mode: what is trained.
        loss: for the check of labels.
        parts: `(replicas of this process, replicas of all)`.
        selection: validation, or None.
        checkpoints: where the state is saved, or None.
        calibrate: for the thresholds behind a `quant_delay`.
        listener: told how it goes.
    """

    def __init__(
        self,
        state: TrainingState,
        steps: Steps,
        batches: TrainingBatches,
        schedule: Schedule,
        mode: Mode,
        loss: Loss,
        parts: tuple[tuple[int, ...], int],
        selection: Selection | None,
        checkpoints: Checkpoints | None,
        calibrate: Calibrate | None,
        listener: Listener,
    ) -> None:
        self._state, self._steps, self._batches, self._schedule, self._mode = state, steps, batches, schedule, mode
        self._loss, self._parts, self._selection, self._checkpoints = loss, parts, selection, checkpoints
        self._calibrate, self._listener = calibrate, listener
        self.total = schedule.total(batches.steps_per_epoch)
        self._moving = schedule.statistics_steps(batches.steps_per_epoch) if state.model.batch_norm_layers else 0
        self._every = schedule.validation_interval(self.total)
        self._plan = schedule.freeze_plan(self.total - schedule.quant_delay, len(state.model.groups))
        self._interrupt = Interrupt()
        self._unread: list[tuple[tf.Tensor, Phase, Mapping[int, Batch]]] = []
        self._asked = self._told = False
        self._former: tuple[int, list[tf.Tensor]] | None = None
        self._window: list[npt.NDArray[np.float32]] = []
        self._timed: list[float] = []

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of this sitting without the steps that traced; None without steps."""
        return float(np.mean(self._timed)) if self._timed else None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self._state.facts.step >= self.total or self.ended_by is not None

    @property
    def ended_by(self) -> str | None:
        """What ends it before all steps are done, in words: nothing left to train, or no hope of a better state."""
        facts, patience = self._state.facts, self._schedule.patience
        if facts.step >= self.total or self.delayed:
            return None
        if self._mode == "thresholds" and self._state.all_frozen:
            return "the last freezing of a threshold"
        if patience is not None and facts.stale >= patience:
            return f"{facts.stale} validations without improvement"
        return None

    @property
    def delayed(self) -> bool:
        """Whether the quantizers are still to be switched on: what was trained and validated is the float network."""
        return self._mode != "float" and self._state.facts.quantized_from is None

    def run(self) -> bool:
        """Trains to the end.

        Returns:
            Whether Ctrl-C ended it before.

        Raises:
            NotFiniteError: the loss of a step, or what it trained, is not finite.
            DataError: what the data or its labels make of it; a checkpoint holds what was done.
        """
        with self._interrupt:
            try:
                self._begin()
                steps = range(self._state.facts.step, self.total)
                with Prefetcher(self._batches, steps, *self._parts, self._check) as ahead:
                    while not self.ended and not self._stopping:
                        self._step(ahead)
                if self.ended:
                    self._widen()
                    self._validate()
            except DataError:
                self._save()
                raise
            self._save()
        return self._stopping and not (self.ended and self._validated)

    @property
    def _stopping(self) -> bool:
        """Whether Ctrl-C ends it; with several workers once all of them know, so that all stop at the same step."""
        return self._told if self._steps.several_workers else self._interrupt.asked

    def _begin(self) -> None:
        """Validates, and writes a checkpoint, before the first step; a sitting makes up for a validation that Ctrl-C cut short."""
        facts = self._state.facts
        if self.delayed and facts.step >= self._schedule.quant_delay:
            self._quantizers_on()
        if facts.step == 0 or self._due:
            self._validate()
        if facts.step == 0:
            self._save()
        self._mark()

    def _step(self, ahead: Prefetcher) -> None:
        facts, began = self._state.facts, time.perf_counter()
        phase, traces = self._enter()
        rows = ahead.next()
        self._unread.append((self._steps.run(phase, rows, self._interrupt.asked), phase, rows))
        facts.step += 1
        if not traces:
            self._timed.append(time.perf_counter() - began)
        if phase.thresholds and self._schedule.freezing:
            self._freeze(facts.step - (facts.quantized_from or 0))
        scalars = None
        if facts.step % LOG_EVERY == 0 or self.ended:
            self._read()
            scalars = self._scalars()
            self._told = self._asked
            self._remember(scalars["train/loss"])
        elif _bytes(rows) * len(self._unread) > MOST_BYTES:
            self._read()
        self._listener.on_step(facts.step, self.total, scalars)
        if self.delayed and facts.step == self._schedule.quant_delay:
            self._read()
            self._quantizers_on()
        elif self._due:
            self._read()
            self._widen()
        if self._due:
            self._validate()
        if self._checkpoints is not None and self._checkpoints.due():
            self._save()

    @property
    def _due(self) -> bool:
        """Whether a validation follows the steps done: every so often, and where the quantizers were switched on."""
        facts = self._state.facts
        return facts.step % self._every == 0 or facts.step == facts.quantized_from

    @property
    def _validated(self) -> bool:
        """Whether the steps done are validated, or nothing is."""
        facts = self._state.facts
        return self._selection is None or bool(facts.history and facts.history[-1].step == facts.step)

    def _enter(self) -> tuple[Phase, bool]:
        """The phase of the coming step, with what begins with it; and whether it will be traced."""
        facts = self._state.facts
        phase = phase_at(facts.step, self._mode, self._schedule, self._moving, self._state.all_frozen)
        began = [phase.quantized, phase.moving, phase.thresholds]
        if facts.wide_phase != began:
            self._widen()
            facts.wide_phase = began
        return phase, self._steps.traces(phase)

    def _widen(self) -> None:
        """Finds anew which layers run in float64 (X2), as weights and thresholds have moved.

        The names are kept in checkpoints, so that a resumed training computes as one that never stopped.
        """
        state = self._state
        if state.facts.quantized_from is None or not state.is_finite():
            return
        state.model.set_thresholds(state.thresholds())
        with contextlib.suppress(UnsupportedError):  # a threshold that has left the exact range, and may come back
            state.facts.wide = sorted(state.model.wide_layers())

    def _mark(self) -> None:
        """Without selection data: from here on the training loss tells whether the present state is one to go back to."""
        self._window.clear()
        if self._selection is None:
            self._former = (self._state.facts.step, self._state.copy())

    def _remember(self, loss: float) -> None:
        """Without selection data: keeps the state in front of the steps with the smallest loss, for when the loss blows up."""
        best = self._state.facts.kept_loss
        if self._former is not None and (best is None or loss < best):
            step, copy = self._former
            self._state.keep_former(copy, step, loss)
        self._mark()

    def _quantizers_on(self) -> None:
        """Switches the quantizers on; behind a delay with thresholds for the weights as they are by now (R4)."""
        state, model = self._state, self._state.model
        log2_t = state.thresholds()
        if state.facts.step and self._calibrate is not None:
            found = dict(self._calibrate(model.float_model()))
            groups = model.quantizer_graph().decide(found).groups()
            log2_t = np.array([initial_log2_t(groups[group][0], found[group]) for group in model.groups], np.float32)
        state.quantizers_on(log2_t)
        self._widen()
        self._mark()

    def _freeze(self, steps: int) -> None:
        first, every = self._plan
        if steps == math.floor(first - every):
            self._state.begin_turn()
        most = turns(steps, *self._plan) - turns(steps - 1, *self._plan)
        for group, log2_t in self._state.freeze(most) if most else ():
            self._listener.on_freeze(self._state.facts.step, group, log2_t)

    def _validate(self) -> None:
        facts = self._state.facts
        if self._selection is None or self._validated:
            return
        alone = not self._steps.several_workers  # else all of them must go on alike
        found = self._selection.measure(facts.quantized_from is not None, lambda: alone and self._interrupt.asked)
        if found is None:
            return
        train_loss = facts.loss_sum / facts.loss_steps if facts.loss_steps else None
        row = Row(facts.step, found.loss, found.accuracy, found.agreement, train_loss, *self._state.rates(), len(facts.frozen_at))
        facts.history.append(row)
        facts.loss_sum, facts.loss_steps = 0.0, 0
        self._listener.on_validation(row)
        if math.isfinite(row.loss) and row.better_than(facts.best):
            self._state.keep(row)

    def _read(self) -> None:
        """Looks at the losses of the steps since it was last called, and at what they trained.

        Raises:
            NotFiniteError: one of them is not finite.
        """
        facts = self._state.facts
        first = facts.step - len(self._unread)
        for offset, (tensor, phase, rows) in enumerate(self._unread):
            found = tensor.numpy()
            if not math.isfinite(found[0]):
                raise NotFiniteError(f"the loss of step {first + offset} is not finite", phase, rows)
            self._window.append(found)
            self._asked |= bool(found[2])
            facts.loss_sum += float(found[0])
            facts.loss_steps += 1
        if self._unread and not self._state.is_finite():  # a Relu may hide it from the loss
            broken = (offset for offset, (_, _, rows) in enumerate(self._unread) if not _finite(rows))
            offset = next(broken, len(self._unread) - 1)
            raise NotFiniteError(f"what step {first + offset} trained is not finite", *self._unread[offset][1:])
        self._unread.clear()

    def _scalars(self) -> dict[str, float]:
        state = self._state
        means = np.mean(self._window, axis=0)
        rates = dict(zip(("learning_rate/weights", "learning_rate/thresholds"), state.rates(), strict=True))
        accuracy = {"train/accuracy": float(means[1])} if self._loss.needs_labels else {}
        curves = zip(state.model.groups, state.thresholds().tolist(), strict=True) if state.facts.quantized_from is not None else ()
        return {"train/loss": float(means[0]), **accuracy, **rates, **{f"log2_t/{group}": value for group, value in curves}}

    def _save(self) -> None:
        """Looks at all steps done, and writes a checkpoint where there are any: none may hold what has blown up."""
        self._read()
        if self._checkpoints is not None:
            self._checkpoints.save()

    def _check(self, step: int, labels: npt.NDArray[Any] | None) -> None:
        if labels is not None and self._loss.classes is not None:
            check_labels(labels, self._loss.classes, f"training data, step {step}")


def _bytes(rows: Mapping[int, Batch]) -> int:
    return sum(array.nbytes for feeds, _ in rows.values() for array in feeds.values())


def _finite(rows: Mapping[int, Batch]) -> bool:
    return all(bool(np.isfinite(array).all()) for feeds, _ in rows.values() for array in feeds.values())
