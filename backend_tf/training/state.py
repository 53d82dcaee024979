"""Everything a training changes, as TensorFlow variables and one plain record: what a checkpoint holds."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..model import RegeneratedModel
from .freezing import debiased, to_freeze
from .optimizers import threshold_optimizer, weight_optimizer
from .result import Row
from .schedule import Schedule


@dataclass
class Facts:
    """What is known besides tensors.

    Attributes:
        step: steps done; the position in the data.
        quantized_from: step at which the quantizers were switched on, or None as long as they are off.
        turn_from: step of the last turn to freeze: gradients are averaged from there.
        initial: `log2_t` by group when the quantizers were switched on.
        frozen_at: step by group that is frozen.
        wide: layers that run in float64, found at the beginning of the phase (X2).
        wide_phase: the phase they were found for.
        history: validations.
        best: the validation whose state is the best so far, or None.
        kept_step: step of the state to go back to: of `best`; without, the beginning, or what `keep_former` was given last.
        kept_loss: mean training loss of the steps behind that state, or None where it was not looked at.
        loss_sum: of the training steps since the last validation.
        loss_steps: how many these are.
    """

    step: int = 0
    quantized_from: int | None = None
    turn_from: int = 0
    initial: dict[str, float] = field(default_factory=dict)
    frozen_at: dict[str, int] = field(default_factory=dict)
    wide: list[str] = field(default_factory=list)
    wide_phase: list[bool] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    best: Row | None = None
    kept_step: int = 0
    kept_loss: float | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0

    @property
    def stale(self) -> int:
        """Validations since the best one; those in front of the quantizers do not count."""
        begun = self.quantized_from or 0
        since = begun if self.best is None else self.best.step
        return sum(row.step > since for row in self.history)

    def to_json(self) -> str:
        """The record as text; floats come back as they are."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """The inverse of `to_json`."""
        found = json.loads(text)
        found["history"] = [Row(**row) for row in found["history"]]
        found["best"] = None if found["best"] is None else Row(**found["best"])
        return cls(**found)


class TrainingState:
    """The variables of a training. Those that steps on replicas use are made in the scope of its strategy, the others are local.

    Attributes:
        model: the network.
        weights: its variables that are no thresholds, statistics among them.
        trained: the Keras variables among them that have gradients.
        log2_t: every threshold in one Keras variable, float32 [groups].
        weight_optimizer: of the weights.
        threshold_optimizer: of the thresholds.
        frozen: bool [groups].
        facts: the plain record.
    """

    def __init__(self, model: RegeneratedModel, schedule: Schedule, total: int, strategy: tf.distribute.Strategy) -> None:
        self.model = model
        self.trained = model.trainable_weights_only
        self.weights = [*self.trained, *model.non_trainable_variables]
        with strategy.scope():
            self.log2_t = keras.Variable(model.threshold_vector(), dtype="float32", name="log2_t")
            self.weight_optimizer = weight_optimizer(schedule, total)
            self.weight_optimizer.build(self.trained)
            self.threshold_optimizer = threshold_optimizer(schedule)
            self.threshold_optimizer.build([self.log2_t])
        groups = len(model.groups)
        self.frozen = tf.Variable(tf.zeros([groups], tf.bool), trainable=False)
        self.average = tf.Variable(tf.zeros([groups], tf.float64), trainable=False)
        self.gradient_sum = tf.Variable(tf.zeros([groups], tf.float64), trainable=False)
        self.facts = Facts()
        self._ema = schedule.ema
        self._best = [tf.Variable(variable.value.numpy(), trainable=False) for variable in self.weights]
        self._best_log2_t = tf.Variable(self.thresholds(), trainable=False)
        self._record = tf.Variable("", trainable=False)

    @property
    def all_frozen(self) -> bool:
        """Whether no threshold may move any more."""
        return len(self.facts.frozen_at) == len(self.model.groups)

    def thresholds(self) -> npt.NDArray[np.float32]:
        """Where the thresholds are, float32 [groups]."""
        return np.asarray(self.log2_t.value.numpy(), np.float32)

    def rates(self) -> tuple[float, float]:
        """Learning rates of the next step: of weights and of thresholds."""
        return float(self.weight_optimizer.learning_rate), float(self.threshold_optimizer.learning_rate)

    def quantizers_on(self, log2_t: npt.NDArray[np.float32]) -> None:
        """Begins the quantized part of the training with these thresholds; the float network is no candidate any more."""
        self.log2_t.assign(log2_t)
        self.keep(None)
        self.facts.quantized_from = self.facts.turn_from = self.facts.step
        self.facts.initial = dict(zip(self.model.groups, log2_t.tolist(), strict=True))

    def move_thresholds(self, gradient: tf.Tensor) -> None:
        """One step of the thresholds (traced). A frozen one keeps its bits, whatever its momentum would do (T4).

        Args:
            gradient: float32 [groups], summed over all replicas.
        """
        held = tf.identity(self.log2_t.value)
        self.threshold_optimizer.apply([gradient], [self.log2_t])
        moved = tf.where(self.frozen, held, tf.convert_to_tensor(self.log2_t.value))
        self.log2_t.value.assign(moved)
        self.average.assign(self._ema * self.average + (1 - self._ema) * tf.cast(moved, tf.float64))
        self.gradient_sum.assign_add(tf.cast(gradient, tf.float64))

    def freeze(self, most: int) -> list[tuple[str, float]]:
        """Takes up to `most` turns to freeze; see `freezing.to_freeze`.

        Returns:
            Groups that were frozen, with their `log2_t`.
        """
        facts, log2_t, frozen = self.facts, self.thresholds(), self.frozen.numpy()
        steps = facts.step - (facts.quantized_from or 0)
        gradient = self.gradient_sum.numpy() / max(1, facts.step - facts.turn_from)
        chosen = to_freeze(gradient, log2_t, debiased(self.average.numpy(), self._ema, steps), frozen, most)
        frozen[list(chosen)] = True
        self.frozen.assign(frozen)
        self.begin_turn()
        groups = [self.model.groups[index] for index in chosen]
        facts.frozen_at |= dict.fromkeys(groups, facts.step)
        return [(group, float(log2_t[index])) for group, index in zip(groups, chosen, strict=True)]

    def begin_turn(self) -> None:
        """From here on gradients are averaged for the next turn to freeze."""
        self.gradient_sum.assign(tf.zeros_like(self.gradient_sum))
        self.facts.turn_from = self.facts.step

    def keep(self, row: Row | None) -> None:
        """Makes the present state the one to go back to, the best so far where there is a validation of it."""
        self.facts.best = row
        self.keep_former(self.copy(), self.facts.step, None)

    def copy(self) -> list[tf.Tensor]:
        """Weights and thresholds as they are."""
        return [tf.identity(variable.value) for variable in (*self.weights, self.log2_t)]

    def keep_former(self, copy: list[tf.Tensor], step: int, loss: float | None) -> None:
        """Makes a former state the one to go back to.

        Args:
            copy: of it.
            step: at which it was.
            loss: mean training loss of the steps behind it, where that is what speaks for it.
        """
        for kept, tensor in zip((*self._best, self._best_log2_t), copy, strict=True):
            kept.assign(tensor)
        self.facts.kept_step, self.facts.kept_loss = step, loss

    def to_best(self) -> None:
        """Goes back to the state that was kept."""
        for kept, variable in zip(self._best, self.weights, strict=True):
            variable.assign(kept)
        self.log2_t.assign(self._best_log2_t)

    def is_finite(self) -> bool:
        """Whether every weight and every threshold is a finite number."""
        tensors = [variable.value for variable in (*self.weights, self.log2_t)]
        return all(bool(tf.reduce_all(tf.math.is_finite(tensor))) for tensor in tensors)

    def tracked(self) -> dict[str, Any]:
        """All variables, for `tf.train.Checkpoint`; call `pack` before saving and `unpack` after restoring."""
        return {
            "weights": [variable.value for variable in self.weights],
            "log2_t": self.log2_t.value,
            "weight_optimizer": [variable.value for variable in self.weight_optimizer.variables],
            "threshold_optimizer": [variable.value for variable in self.threshold_optimizer.variables],
            "frozen": self.frozen,
            "average": self.average,
            "gradient_sum": self.gradient_sum,
            "best": self._best,
            "best_log2_t": self._best_log2_t,
            "record": self._record,
        }

    def pack(self) -> None:
        """Puts the plain record into its variable."""
        self._record.assign(self.facts.to_json())

    def unpack(self) -> None:
        """Takes the plain record from its variable."""
        self.facts = Facts.from_json(self._record.numpy().decode())
