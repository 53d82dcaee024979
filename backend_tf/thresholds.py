"""Thresholds as variables: their first values, and the scale exponents of one trace."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..ir import ModelError, Quantizer, QuantizerGraph
from ..kernels import tqt


def initial_log2_t(member: Quantizer, log2_t: float | None) -> float:
    """First value of a share group's threshold: the given one, else the middle of the interval that has the group's exponent.

    The upper end of that interval, the power of two itself, would flip the scale at the first step of a training; methods that
    compare whole powers of two give nothing else, so it is taken for "this exponent" and not for a real threshold.

    Args:
        member: any quantizer of the group, with its exponent.
        log2_t: binary logarithm of the real threshold, if known.

    Returns:
        A float32 value with `ceil(log2_t) == e + b - 1` (`e + b` unsigned), Q4.

    Raises:
        ModelError: the given threshold belongs to another exponent.
    """
    ceiling = member.decided_exponent + member.bits - int(member.signed)
    if log2_t is None or log2_t == ceiling:
        return ceiling - 0.5
    if math.isnan(log2_t) or math.isinf(log2_t) or math.ceil(log2_t) != ceiling:
        raise ModelError(
            f"share group {member.group!r}: a log2 threshold in ({ceiling - 1}, {ceiling}] is expected. Received: {log2_t}"
        )
    lowest = float(np.nextafter(np.float32(ceiling - 1), np.float32(np.inf)))
    return max(float(np.float32(log2_t)), lowest)  # rounding to float32 must not reach the interval below


class Thresholds:
    """The scale exponents of one trace: every share group's is built once, from its one variable (T5)."""

    def __init__(self, graph: QuantizerGraph, variables: Mapping[str, tf.Tensor]) -> None:
        self._by_id = graph.by_id()
        self._variables = variables
        self._exponents: dict[str, tf.Tensor] = {}

    def exponent(self, quantizer: Quantizer) -> tf.Tensor:
        """The exponent of a quantizer's scale as a float32 scalar; of a derived one, the sum of its sources' (L11)."""
        if quantizer.derived_from is not None:
            first, second = (self.exponent(self._by_id[source]) for source in quantizer.derived_from)
            return first + second
        if quantizer.group not in self._exponents:
            log2_t = tf.convert_to_tensor(self._variables[quantizer.group])
            self._exponents[quantizer.group] = tqt.scale_exponent(log2_t, quantizer.bits, quantizer.signed)
        return self._exponents[quantizer.group]
