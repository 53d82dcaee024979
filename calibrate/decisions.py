"""What is gathered about a tensor under each method, and how a share group's threshold comes out of it (numerics C)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..ir import DataError, ModelError, Quantizer
from ..kernels.histogram import MagnitudeHistogram, PowerOfTwoHistogram, Range
from ..kernels.klj import klj_histogram, klj_log2
from ..kernels.thresholds import ZERO_LOG2, max_log2, mse_log2, weight_log2, weight_mse_log2

logger = logging.getLogger(__name__)

Method = Literal["mse", "max", "klj"]


@dataclass(frozen=True)
class Rule:
    """One calibration method.

    Attributes:
        first: makes the statistics of the first pass.
        second: makes those of a second pass out of the first one's, or None where one pass is enough.
        decide: `log2 t` from the last pass's statistics, bits and sign.
    """

    first: Callable[[], Range]
    second: Callable[[Range, bool], MagnitudeHistogram] | None
    decide: Callable[[Any, int, bool], float]


METHODS: Final[dict[str, Rule]] = {
    "mse": Rule(PowerOfTwoHistogram, None, mse_log2),
    "max": Rule(Range, None, lambda seen, _, signed: max_log2(seen, signed)),
    "klj": Rule(Range, klj_histogram, klj_log2),
}


WEIGHT_METHODS: Final[dict[str, Callable[[npt.NDArray[Any], int, bool], float]]] = {
    "mse": weight_mse_log2,
    "max": weight_log2,
}
"""How thresholds of weights and reciprocals are decided: smallest squared error, or the paper's `max|w|` (C1, Q7)."""


def rule_for(members: Sequence[Quantizer], method: str) -> Rule:
    """The method of a share group: 16-bit tensors, and with them biases and accumulators of any width, take `max` (C2)."""
    wide = any(member.bits >= 16 or member.role in {"bias", "accumulator"} for member in members)
    return METHODS["max" if wide else method]


class GroupStatistics:
    """Everything known about the members of one share group, which are decided together (C6).

    Statistics are kept per member and per worker thread, and merged when asked for: merging is exact.

    Attributes:
        members: the group's quantizers.
        rule: the group's method.
        threshold: `log2 t` once decided.
    """

    def __init__(self, members: Sequence[Quantizer], method: str, workers: int) -> None:
        self.members = tuple(members)
        self.rule = rule_for(members, method)
        self.threshold: float | None = None
        self._workers = workers
        self._measured: set[str] = set()
        self._current: dict[str, list[Any]] = {m.value: [self.rule.first() for _ in range(workers)] for m in members}
        self.second_pass = False

    def update(self, value: str, array: npt.NDArray[Any], worker: int = 0) -> None:
        """Takes in one batch of a member, in the current pass.

        Raises:
            DataError: a NaN or an infinity (Q6).
            ModelError: not float32.
        """
        if array.dtype != np.float32:
            raise ModelError(f"tensor {value!r}: float32 is expected where a quantizer sits. Received: {array.dtype}")
        try:
            self._current[value][worker].update(array)
        except ValueError as error:
            raise DataError(f"tensor {value!r}: finite numbers are expected (Q6). Received: {error}") from None

    def begin_second_pass(self) -> None:
        """Closes the first pass: the second one's statistics need the range and count of all members."""
        assert self.rule.second is not None
        seen, signed = self._merged(), self.members[0].signed
        self._warn_if_zero(seen)
        for value in self._current:
            self._current[value] = [self.rule.second(seen, signed) for _ in range(self._workers)]
        self.second_pass = True

    def decide(self) -> float:
        """`log2 t` of the group; the statistics are dropped."""
        seen = self._merged()
        if isinstance(seen, Range):
            self._warn_if_zero(seen)
        self.threshold = self.rule.decide(seen, self.members[0].bits, self.members[0].signed)
        self._current = {}
        logger.debug("group %s: log2 t = %s", self.members[0].group, self.threshold)
        return self.threshold

    def _merged(self) -> Any:
        parts = [part for shards in self._current.values() for part in shards]
        for part in parts[1:]:
            parts[0].merge(part)
        return parts[0]

    def _warn_if_zero(self, seen: Range) -> None:
        if seen.magnitude(self.members[0].signed) == 0:
            warn_zero([member.value for member in self.members])


def decide_constants(members: Sequence[Quantizer], arrays: Sequence[npt.NDArray[Any]], method: str) -> float:
    """`log2 t` of a group that holds nothing but constants, by a row of `WEIGHT_METHODS`; a lone bias takes its maximum.

    Raises:
        DataError: a NaN or an infinity in a constant (Q6).
    """
    together = np.concatenate([np.asarray(array, np.float32).reshape(-1) for array in arrays])
    names = [member.value for member in members]
    bits, signed = members[0].bits, members[0].signed
    if not np.isfinite(together).all():
        culprit = next(name for name, array in zip(names, arrays, strict=True) if not np.isfinite(array).all())
        raise DataError(f"constant {culprit!r}: finite numbers are expected (Q6). Received: NaN or infinity")
    seen = Range()
    seen.update(together)
    if seen.magnitude(signed) == 0:
        warn_zero(names)
        return ZERO_LOG2
    if any(member.role == "bias" for member in members):
        return max_log2(seen, signed)
    return WEIGHT_METHODS[method](together, bits, signed)


def warn_zero(names: Sequence[str]) -> None:
    """A tensor without a non-zero number is no error, but worth a line that names it (Q6)."""
    logger.warning("%s: nothing but zeros was seen; the threshold is set to %s (Q6)", ", ".join(names), 2.0**ZERO_LOG2)
