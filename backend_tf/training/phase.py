"""What one step of a training computes; a training is a few phases, each traced once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from ...ir import UsageError
from .schedule import Schedule

Keep = Literal["best", "last"]
Mode = Literal["float", "weights", "thresholds", "both"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Phase:
    """What is on.

    Attributes:
        quantized: the quantizers.
        moving: batch norm uses and moves statistics (B2).
        weights: gradients of weights, gamma and beta.
        thresholds: gradients of thresholds.
    """

    quantized: bool
    moving: bool
    weights: bool
    thresholds: bool


def phase_at(step: int, mode: Mode, schedule: Schedule, statistics_steps: int, all_frozen: bool) -> Phase:
    """The phase of step `step` (0, 1, ...)."""
    quantized = mode != "float" and step >= schedule.quant_delay
    return Phase(
        quantized=quantized,
        moving=step < statistics_steps and mode != "thresholds",  # statistics are part of the weights, which stay (B2)
        weights=mode != "thresholds",
        thresholds=quantized and mode in ("thresholds", "both") and not all_frozen,
    )


def check_mode(mode: str, schedule: Schedule, quantizers: bool) -> None:
    """Refuses modes and delays that contradict each other or the model.

    Raises:
        UsageError: an unknown mode, a mode with quantizers for a model without, or a delay where nothing would be trained.
    """
    if mode not in MODES:
        raise UsageError(f"the training mode must be one of {', '.join(MODES)}. Received: {mode!r}")
    if mode != "float" and not quantizers:
        raise UsageError(f"a model regenerated without a quantizer graph trains in the mode float only. Received: {mode!r}")
    if schedule.quant_delay and mode in ("float", "thresholds"):
        raise UsageError(
            f"quant_delay means float training of the weights first: the modes weights and both have it. "
            f"Received: {schedule.quant_delay} with the mode {mode}"
        )


def check_delay(schedule: Schedule, steps_per_epoch: int) -> None:
    """Refuses a `quant_delay` that leaves no step with the quantizers on.

    Raises:
        UsageError: the run is not longer than it.
    """
    total = schedule.total(steps_per_epoch)
    if schedule.quant_delay >= total:
        raise UsageError(
            f"training schedule: quant_delay must leave steps with the quantizers on, out of {total}. "
            f"Received: {schedule.quant_delay}"
        )


def check_keep(keep: Keep | None, schedule: Schedule, selects: bool, processes: bool = False) -> Keep:
    """Which state is kept: by default the best where there is something to select by.

    Args:
        keep: what was asked for.
        schedule: the numbers.
        selects: whether there are selection data.
        processes: whether several processes train; each of them validates, and they must not end at different steps.

    Raises:
        UsageError: the best state, or an end by `patience`, without selection data; `patience` with several processes.
    """
    if keep == "best" and not selects:
        raise UsageError("keeping the best state needs data to select by, other than the training data. Received: none")
    if schedule.patience is not None and not selects:
        raise UsageError(f"patience needs data to select by, other than the training data. Received: {schedule.patience} and none")
    if schedule.patience is not None and processes:
        raise UsageError(f"patience is for one process: workers might not agree on the end. Received: {schedule.patience}")
    return keep or ("best" if selects else "last")
