"""Where the numbers of a network stop being finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...kernels.tqt import MAX_EXPONENT, MIN_EXPONENT
from ..model import RegeneratedModel


def first_not_finite(
    model: RegeneratedModel, feeds: Mapping[str, npt.NDArray[Any]], log2_t: npt.NDArray[np.float32], quantized: bool
) -> str | None:
    """The first thing that holds a NaN or an infinity, in words: input, weight, threshold, or value in topological order.

    Args:
        model: with the weights to look at.
        feeds: the batch to look at.
        log2_t: thresholds to look at, float32 [groups].
        quantized: whether the quantizers are on.

    Returns:
        What it is, or None where everything up to the outputs is finite.
    """
    for name, array in feeds.items():
        if not np.isfinite(array).all():
            return f"the input {name!r}"
    for name, array in model.arrays().items():
        if not np.isfinite(array).all():
            return f"the weight {name!r}"
    if quantized:
        for group, value in zip(model.groups, log2_t.tolist(), strict=True):
            if not MIN_EXPONENT < value < MAX_EXPONENT:  # False for NaN; up to its bits this is the range of Q5
                return f"the threshold of {group!r} (log2 {value})"
    outputs = [name for step in model.program.steps for name in step.outputs]
    tensors = {name: tf.convert_to_tensor(array) for name, array in feeds.items()}
    values = model.forward(tensors, tf.constant(log2_t), quantized=quantized, also=outputs, wide=frozenset())
    for step in model.program.steps:
        for name in step.outputs:
            if not bool(tf.reduce_all(tf.math.is_finite(values[name]))):
                return f"{name!r}, an output of the {step.op} {step.name!r}"
    return None
