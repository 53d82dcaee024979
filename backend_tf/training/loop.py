"""The training loop: one for every strategy."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir
import tensorflow as tf

from ..thresholds import initial_log2_t
from .checkpoints import Checkpoints
from .data import Prefetcher, TrainingBatches
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

logger = logging.getLogger(__name__)

Calibrate = Callable[[onnx_ir.Model], Mapping[str, float]]
"""From the float model to `{share group: log2_t}`."""

LOG_EVERY: Final = 10
"""Steps between two looks at the loss: reading it waits for the step."""


class NotFiniteError(Exception):
    """The loss of a step is not finite; `train` knows what to say."""

    def __init__(self, step: int, phase: Phase) -> None:
        super().__init__(step)
        self.step, self.phase = step, phase


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
        self._unread: list[tf.Tensor] = []
        self._window: list[npt.NDArray[np.float32]] = []
        self._timed: list[float] = []

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of this sitting without the steps that traced; None without steps."""
        return float(np.mean(self._timed)) if self._timed else None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: all steps are done, or all thresholds are frozen and nothing else is trained."""
        facts = self._state.facts
        frozen = self._mode == "thresholds" and facts.quantized_from is not None and self._state.all_frozen
        return facts.step >= self.total or frozen

    def run(self) -> bool:
        """Trains to the end.

        Returns:
            Whether Ctrl-C ended it before.

        Raises:
            NotFiniteError: the loss of a step is not finite.
            DataError: what the data or its labels make of it.
        """
        with Interrupt() as interrupt:
            self._begin()
            facts = self._state.facts
            with Prefetcher(self._batches, range(facts.step, self.total), *self._parts, self._check) as ahead:
                while not self.ended and not interrupt.asked:
                    self._step(ahead)
            if self.ended:
                self._validate()
            self._save()
        return interrupt.asked and not self.ended

    def _begin(self) -> None:
        """Validates, and writes a checkpoint, before the first step."""
        if self._state.facts.step == 0:
            self._enter()
            self._validate()
            self._save()

    def _step(self, ahead: Prefetcher) -> None:
        state, facts, began = self._state, self._state.facts, time.perf_counter()
        phase, traces = self._enter()
        self._unread.append(self._steps.run(phase, ahead.next()))
        facts.step += 1
        if not traces:
            self._timed.append(time.perf_counter() - began)
        if phase.thresholds and self._schedule.freezing:
            self._freeze(state.facts.step - (facts.quantized_from or 0))
        scalars = None
        if facts.step % LOG_EVERY == 0 or self.ended:
            self._read(phase)
            scalars = self._scalars()
        self._listener.on_step(facts.step, self.total, scalars)
        if facts.step % self._every == 0:
            self._read(phase)
            self._validate()
        if self._checkpoints is not None and self._checkpoints.due():
            self._read(phase)
            self._checkpoints.save()

    def _enter(self) -> tuple[Phase, bool]:
        """The phase of the coming step, with what begins with it; and whether it will be traced."""
        facts = self._state.facts
        if self._mode != "float" and facts.quantized_from is None and facts.step >= self._schedule.quant_delay:
            self._quantizers_on()
        phase = phase_at(facts.step, self._mode, self._schedule, self._moving, self._state.all_frozen)
        began = [phase.quantized, phase.moving]
        if facts.wide_phase != began:  # kept in checkpoints, so that a resumed training computes as one that never stopped
            self._state.model.set_thresholds(self._state.thresholds())
            facts.wide = sorted(self._state.model.wide_layers()) if phase.quantized else []
            facts.wide_phase = began
        return phase, self._steps.traces(phase)

    def _quantizers_on(self) -> None:
        """Switches the quantizers on; behind a delay with thresholds for the weights as they are by now (R4)."""
        state, model = self._state, self._state.model
        log2_t = state.thresholds()
        if state.facts.step and self._calibrate is not None:
            found = dict(self._calibrate(model.float_model()))
            groups = model.quantizer_graph().decide(found).groups()
            log2_t = np.array([initial_log2_t(groups[group][0], found[group]) for group in model.groups], np.float32)
        state.quantizers_on(log2_t)
        if state.facts.step:
            state.facts.best = None  # the float network is no candidate
            self._validate(again=True)

    def _freeze(self, steps: int) -> None:
        most = turns(steps, *self._plan) - turns(steps - 1, *self._plan)
        for group, log2_t in self._state.freeze(most) if most else ():
            self._listener.on_freeze(self._state.facts.step, group, log2_t)

    def _validate(self, again: bool = False) -> None:
        facts = self._state.facts
        if self._selection is None or (not again and facts.history and facts.history[-1].step == facts.step):
            return
        found = self._selection.measure(facts.quantized_from is not None)
        train_loss = facts.loss_sum / facts.loss_steps if facts.loss_steps else None
        row = Row(facts.step, found.loss, found.accuracy, found.agreement, train_loss, *self._state.rates(), len(facts.frozen_at))
        facts.history.append(row)
        facts.loss_sum, facts.loss_steps = 0.0, 0
        self._listener.on_validation(row)
        if math.isfinite(row.loss) and row.better_than(facts.best):
            self._state.keep(row)

    def _read(self, phase: Phase) -> None:
        """Reads the losses of the steps since it was last called.

        Raises:
            NotFiniteError: one of them is not.
        """
        facts = self._state.facts
        first = facts.step - len(self._unread)
        for offset, tensor in enumerate(self._unread):
            found = tensor.numpy()
            if not math.isfinite(found[0]):
                raise NotFiniteError(first + offset, phase)
            self._window.append(found)
            facts.loss_sum += float(found[0])
            facts.loss_steps += 1
        self._unread.clear()

    def _scalars(self) -> dict[str, float]:
        state = self._state
        means = np.mean(self._window, axis=0)
        self._window.clear()
        rates = dict(zip(("learning_rate/weights", "learning_rate/thresholds"), state.rates(), strict=True))
        accuracy = {"train/accuracy": float(means[1])} if self._loss.needs_labels else {}
        curves = zip(state.model.groups, state.thresholds().tolist(), strict=True) if state.facts.quantized_from is not None else ()
        return {"train/loss": float(means[0]), **accuracy, **rates, **{f"log2_t/{group}": value for group, value in curves}}

    def _save(self) -> None:
        if self._checkpoints is not None:
            self._read(phase_at(self._state.facts.step, self._mode, self._schedule, self._moving, self._state.all_frozen))
            self._checkpoints.save()

    def _check(self, step: int, labels: npt.NDArray[Any] | None) -> None:
        if labels is not None and self._loss.classes is not None:
            check_labels(labels, self._loss.classes, f"training data, step {step}")
