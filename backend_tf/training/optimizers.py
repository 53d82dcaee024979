"""The two optimizers of a training (Keras), and the learning rate of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import keras
import tensorflow as tf

from .schedule import Schedule


class Rate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A learning rate as a function of the optimizer's own steps: a staircase, or half a cosine; warmed up linearly.

    Args:
        start: the rate at the beginning.
        decay: factor of the staircase.
        interval: steps between two of its stairs.
        cosine_steps: steps in which half a cosine reaches zero, instead of the staircase.
        warmup_steps: steps in which the rate rises from zero; the first step has `1 / warmup_steps` of it.
    """

    def __init__(self, start: float, decay: float, interval: int, cosine_steps: int | None = None, warmup_steps: int = 0) -> None:
        super().__init__()
        self._config: dict[str, Any] = {
            "start": start,
            "decay": decay,
            "interval": interval,
            "cosine_steps": cosine_steps,
            "warmup_steps": warmup_steps,
        }

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate of step `step` (0, 1, ...), float32 scalar."""
        config = self._config
        done = tf.cast(step, tf.float32)
        if config["cosine_steps"] is None:
            rate = config["start"] * tf.pow(tf.constant(config["decay"], tf.float32), tf.floor(done / config["interval"]))
        else:
            share = tf.minimum(done / config["cosine_steps"], 1.0)
            rate = config["start"] * 0.5 * (1.0 + tf.cos(math.pi * share))
        if config["warmup_steps"]:
            rate *= tf.minimum((done + 1.0) / config["warmup_steps"], 1.0)
        return rate

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return dict(self._config)


def weight_optimizer(schedule: Schedule, total: int) -> Any:
    """The optimizer of weights, gamma and beta for a run of `total` steps."""
    cosine = total if schedule.weight_schedule == "cosine" else None
    rate = Rate(schedule.weight_lr, schedule.weight_lr_decay, schedule.weight_interval, cosine, schedule.warmup_steps)
    return _OPTIMIZERS[schedule.weight_optimizer](schedule, rate)


def threshold_optimizer(schedule: Schedule) -> Any:
    """The Adam of the thresholds."""
    return _adam(schedule, Rate(schedule.threshold_lr, schedule.threshold_lr_decay, schedule.threshold_interval))


def _adam(schedule: Schedule, rate: Rate) -> Any:
    return keras.optimizers.Adam(rate, schedule.beta_1, schedule.beta_2, schedule.epsilon)


_OPTIMIZERS: Final[dict[str, Callable[[Schedule, Rate], Any]]] = {
    "adam": _adam,
    "sgd-momentum": lambda schedule, rate: keras.optimizers.SGD(rate, schedule.momentum),
    "rmsprop": lambda schedule, rate: keras.optimizers.RMSprop(rate, schedule.beta_2, schedule.momentum, schedule.epsilon),
}
