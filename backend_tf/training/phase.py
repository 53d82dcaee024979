"""What one step of a training computes; a training is a few phases, each traced once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from ...ir import UsageError
from .schedule import Schedule

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
        moving=step < statistics_steps,
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
