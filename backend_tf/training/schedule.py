"""The numbers of a training, with the paper's defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from ...ir import UsageError

PAPER_BATCH: Final = 24
"""Images in a batch of the paper: its intervals are given for this batch and stretch with `24 / batch`."""

OPTIMIZERS: Final = ("adam", "sgd-momentum", "rmsprop")
WEIGHT_SCHEDULES: Final = ("staircase", "cosine")

_LEAST_VALIDATIONS: Final = 4
"""A run shorter than four of the paper's intervals is validated this often all the same."""

Fits = tuple[str, Callable[[float], bool]]

_POSITIVE: Final[Fits] = ("a number above 0", lambda x: x > 0)
_NOT_NEGATIVE: Final[Fits] = ("a number of at least 0", lambda x: x >= 0)
_AT_LEAST_ONE: Final[Fits] = ("a number of at least 1", lambda x: x >= 1)
_BELOW_ONE: Final[Fits] = ("a number in [0, 1)", lambda x: 0 <= x < 1)
_SHARE: Final[Fits] = ("a number in (0, 1]", lambda x: 0 < x <= 1)

_RANGES: Final = {
    **dict.fromkeys(("epochs", "weight_lr", "threshold_lr", "weight_lr_decay", "threshold_lr_decay", "epsilon"), _POSITIVE),
    **dict.fromkeys(("warmup_steps", "regularization", "statistics_epochs", "quant_delay"), _NOT_NEGATIVE),
    **dict.fromkeys(("batch", "steps", "weight_lr_every", "threshold_lr_every"), _AT_LEAST_ONE),
    **dict.fromkeys(("freeze_from", "freeze_every", "validate_every", "patience"), _AT_LEAST_ONE),
    **dict.fromkeys(("beta_1", "beta_2", "momentum", "ema"), _BELOW_ONE),
    "freeze_share": _SHARE,
}
"""What a number may be; None is the paper's."""

_COUNTS: Final = (
    *("batch", "steps", "weight_lr_every", "warmup_steps", "threshold_lr_every", "freeze_from", "freeze_every"),
    *("validate_every", "patience", "quant_delay"),
)
"""What is a number of steps, images or validations."""


@dataclass(frozen=True)
class Schedule:
    """What is trained how long and how fast; every default is the paper's (arXiv 1903.08066).

    An interval left at None is the paper's number of steps times `24 / batch`. A number that is given is a number of steps, taken
    as it is. Intervals of thresholds and of freezing count from the step at which the quantizers are switched on.

    Attributes:
        batch: images in a step, over all replicas.
        epochs: passes over the training data; may be a fraction. Unused where `steps` is given.
        steps: exact number of steps.
        weight_optimizer: adam, sgd-momentum or rmsprop.
        weight_lr: its learning rate at the start, for weights, gamma and beta.
        weight_lr_decay: factor on it every `weight_lr_every` steps.
        weight_lr_every: None: 3000 * (24 / batch).
        weight_schedule: staircase, or cosine: down to zero at the last step, without `weight_lr_decay`.
        warmup_steps: steps in which the weights' learning rate rises linearly from zero.
        threshold_lr: learning rate of the thresholds' Adam at the start.
        threshold_lr_decay: factor on it every `threshold_lr_every` steps.
        threshold_lr_every: None: 1000 * (24 / batch).
        beta_1: of both Adams.
        beta_2: of both Adams; of rmsprop the decay of the mean square.
        epsilon: of both Adams and of rmsprop.
        momentum: of sgd-momentum and rmsprop.
        regularization: factor of `sum(w^2) / 2` over the weights of compute layers, added to the loss of the weights alone.
        freezing: whether thresholds are frozen one after the other.
        freeze_from: step of the first freezing. None: 1000 * (24 / batch), less in a short run.
        freeze_every: steps between two. None: 50, less in a short run.
        freeze_share: a short run is one whose thresholds could not all be frozen within this share of it; both intervals are then
            multiplied by the one factor that lets the last of them have its turn there (`freeze_plan`).
        ema: decay of the thresholds' exponential moving average.
        statistics_epochs: epochs in which batch norm statistics move, at most half of the run (B2).
        validate_every: None: 1000 * (24 / batch), but at least four times in a run.
        patience: the run ends after so many validations in a row that were not better than the best one; None: it never does.
        quant_delay: steps of float training before the quantizers are switched on (R4).

    Raises:
        UsageError: a number outside its range, or an unknown name.
    """

    batch: int = PAPER_BATCH
    epochs: float = 5
    steps: int | None = None
    weight_optimizer: str = "adam"
    weight_lr: float = 1e-6
    weight_lr_decay: float = 0.94
    weight_lr_every: int | None = None
    weight_schedule: str = "staircase"
    warmup_steps: int = 0
    threshold_lr: float = 1e-2
    threshold_lr_decay: float = 0.5
    threshold_lr_every: int | None = None
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    momentum: float = 0.9
    regularization: float = 0.0
    freezing: bool = True
    freeze_from: int | None = None
    freeze_every: int | None = None
    freeze_share: float = 0.75
    ema: float = 0.9999
    statistics_epochs: float = 1
    validate_every: int | None = None
    patience: int | None = None
    quant_delay: int = 0

    def __post_init__(self) -> None:
        for name, (what, fits) in _RANGES.items():
            value = getattr(self, name)
            kind, numbers = ("a whole number", int) if name in _COUNTS else ("a number", (int, float))
            if value is not None and (not isinstance(value, numbers) or isinstance(value, bool)):
                raise UsageError(f"training schedule: {name} must be {kind}. Received: {value!r}")
            if value is not None and not (math.isfinite(value) and fits(value)):
                raise UsageError(f"training schedule: {name} must be {what}. Received: {value}")
        for name, known in (("weight_optimizer", OPTIMIZERS), ("weight_schedule", WEIGHT_SCHEDULES)):
            if getattr(self, name) not in known:
                raise UsageError(f"training schedule: {name} must be one of {', '.join(known)}. Received: {getattr(self, name)!r}")
        if self.steps is not None and self.quant_delay >= self.steps:
            raise UsageError(
                f"training schedule: quant_delay must leave steps with the quantizers on, out of {self.steps}. "
                f"Received: {self.quant_delay}"
            )

    def total(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        return self.steps if self.steps is not None else max(1, round(self.epochs * steps_per_epoch))

    @property
    def weight_interval(self) -> int:
        """Steps between two decays of the weights' learning rate."""
        return self._interval(self.weight_lr_every, 3000)

    @property
    def threshold_interval(self) -> int:
        """Steps between two decays of the thresholds' learning rate."""
        return self._interval(self.threshold_lr_every, 1000)

    def validation_interval(self, total: int) -> int:
        """Steps between two validations of a run of `total` steps."""
        if self.validate_every is not None:
            return self.validate_every
        return min(self._interval(None, 1000), max(1, total // _LEAST_VALIDATIONS))

    def statistics_steps(self, steps_per_epoch: int) -> int:
        """Steps in which batch norm statistics move: afterwards the network trains on as the one that is written (B2)."""
        return min(round(self.statistics_epochs * steps_per_epoch), self.total(steps_per_epoch) // 2)

    def freeze_plan(self, quantized_steps: int, thresholds: int) -> tuple[float, float]:
        """When thresholds are frozen, in steps since the quantizers were switched on: `(step of the first, steps between two)`.

        The paper's numbers where `from + every * thresholds` is at most `freeze_share` of the run; in a shorter run those that
        were not given are multiplied by the ratio of the two. They may then be fractions: `freezing.turns` counts.

        Args:
            quantized_steps: steps of the run with the quantizers on.
            thresholds: how many there are.
        """
        first, every = self._interval(None, 1000), 50
        share = min(1.0, self.freeze_share * quantized_steps / (first + every * thresholds))
        return (
            share * first if self.freeze_from is None else float(self.freeze_from),
            share * every if self.freeze_every is None else float(self.freeze_every),
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number, for JSON and for the comparison with a checkpoint's."""
        return asdict(self)

    def _interval(self, given: int | None, papers: int) -> int:
        return max(1, round(papers * PAPER_BATCH / self.batch)) if given is None else given
