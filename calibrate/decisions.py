"""What is gathered about a tensor under each method, and how a share group's threshold comes out of it (numerics C)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError, ModelError, Quantizer
from ..kernels.histogram import MagnitudeHistogram, PowerOfTwoHistogram, Range
from ..kernels.klj import klj_histogram, klj_log2
from ..kernels.percentile import PERCENTILE, FloatHistogram, percentile_log2
from ..kernels.thresholds import ZERO_LOG2, max_log2, mse_log2, weight_log2, weight_log2_for_training, weight_mse_log2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """One calibration method.

    Attributes:
        first: makes the statistics of the first pass, for that sign.
        second: makes those of a second pass out of the first one's, or None where one pass is enough.
        decide: `log2 t` from the last pass's statistics, bits, sign and percentage (which only one method looks at).
    """

    first: Callable[[bool], Range]
    second: Callable[[Range, bool], MagnitudeHistogram] | None
    decide: Callable[[Any, int, bool, float], float]


METHODS: Final[dict[str, Rule]] = {
    "mse": Rule(lambda _: PowerOfTwoHistogram(), None, lambda seen, bits, signed, _: mse_log2(seen, bits, signed)),
    "max": Rule(lambda _: Range(), None, lambda seen, _bits, signed, _: max_log2(seen, signed)),
    "klj": Rule(lambda _: Range(), klj_histogram, lambda seen, bits, signed, _: klj_log2(seen, bits, signed)),
    "percentile": Rule(FloatHistogram, None, lambda seen, _bits, _signed, percentage: percentile_log2(seen, percentage)),
}
"""How thresholds of activations are decided (C2)."""


WEIGHT_METHODS: Final[dict[str, Callable[[npt.NDArray[Any], int, bool], float]]] = {
    "mse": weight_mse_log2,
    "max": weight_log2,
    "3sd": lambda w, _bits, _signed: weight_log2_for_training(w),
}
"""How thresholds of weights and reciprocals are decided: smallest squared error, the paper's `max|w|` (Q7), or where training
starts, `|mean| + 3 std` (C1)."""


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

    def __init__(self, members: Sequence[Quantizer], method: str, workers: int, percentile: float = PERCENTILE) -> None:
        self.members = tuple(members)
        self.rule = rule_for(members, method)
        self.threshold: float | None = None
        self._workers = workers
        self._percentile = percentile
        signed = members[0].signed
        self._current: dict[str, list[Any]] = {m.value: [self.rule.first(signed) for _ in range(workers)] for m in members}

    def update(self, value: str, array: npt.NDArray[Any], worker: int = 0) -> None:
        """Takes in one batch of a member, in the current pass.

        Raises:
            DataError: a NaN or an infinity (Q6).
            ModelError: not float32.
        """
        take_in(self._current[value][worker], value, array)

    def replace(self, value: str, array: npt.NDArray[Any]) -> None:
        """Forgets what was seen of one member, a constant that has changed, and takes in its new contents."""
        self._current[value] = [self.rule.first(self.members[0].signed) for _ in range(self._workers)]
        self.update(value, array)

    def begin_second_pass(self) -> None:
        """Closes the first pass: the second one's statistics need the range and count of all members."""
        assert self.rule.second is not None
        seen, signed = self._merged(), self.members[0].signed
        self._warn_if_zero(seen)
        for value in self._current:
            self._current[value] = [self.rule.second(seen, signed) for _ in range(self._workers)]

    def decide(self) -> float:
        """`log2 t` of the group; the statistics are dropped."""
        seen = self._merged()
        if isinstance(seen, Range):
            self._warn_if_zero(seen)
        self.threshold = self.rule.decide(seen, self.members[0].bits, self.members[0].signed, self._percentile)
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

    Args:
        members: the group's quantizers.
        arrays: their finite contents, in the same order.
        method: for weights and reciprocals.
    """
    together = np.concatenate([np.asarray(array, np.float32).reshape(-1) for array in arrays])
    names = [member.value for member in members]
    bits, signed = members[0].bits, members[0].signed
    seen = Range()
    seen.update(together)
    if seen.magnitude(signed) == 0:
        warn_zero(names)
        return ZERO_LOG2
    if any(member.role == "bias" for member in members):
        return max_log2(seen, signed)
    if method == "3sd" and any(member.role != "weight" for member in members):
        method = "mse"  # reciprocals and slopes are not trained
    return WEIGHT_METHODS[method](together, bits, signed)


def take_in(statistics: Range | MagnitudeHistogram, value: str, array: npt.NDArray[Any]) -> None:
    """Adds one batch of a tensor to its statistics; with a plain `Range`, checks a tensor that is not measured.

    Raises:
        DataError: a NaN or an infinity (Q6).
        ModelError: not float32.
    """
    if array.dtype != np.float32:
        raise ModelError(f"tensor {value!r}: float32 is expected where a quantizer sits. Received: {array.dtype}")
    try:
        statistics.update(array)
    except ValueError as error:
        raise DataError(f"tensor {value!r}: finite numbers are expected (Q6). Received: {error}") from None


def check_constant(name: str, array: npt.NDArray[Any]) -> None:
    """Refuses a NaN or an infinity in a constant that has a quantizer (Q6), whether or not it is measured.

    Raises:
        DataError: naming the constant.
    """
    if not np.isfinite(array).all():
        raise DataError(f"constant {name!r}: finite numbers are expected (Q6). Received: NaN or infinity")


def warn_zero(names: Sequence[str]) -> None:
    """A tensor without a non-zero number is no error, but worth a line that names it (Q6)."""
    logger.warning("%s: nothing but zeros was seen; the threshold is set to %s (Q6)", ", ".join(names), 2.0**ZERO_LOG2)
