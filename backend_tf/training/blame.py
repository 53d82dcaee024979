"""Where the numbers of a network stop being finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import COMPUTE
from ...kernels.tqt import MAX_EXPONENT, MIN_EXPONENT
from ..model import RegeneratedModel
from ..program import Program

Feeds = Mapping[str, npt.NDArray[Any]]


def first_not_finite(
    model: RegeneratedModel, rows: Sequence[Feeds], log2_t: npt.NDArray[np.float32], quantized: bool, moving: bool = False
) -> str | None:
    """The first thing that holds a NaN or an infinity, in words.

    First are inputs and thresholds, then every step of the program in its order: its weights, then what it computes.

    Args:
        model: with the weights to look at.
        rows: the batch to look at, in the parts that it was computed in; empty to look at weights and thresholds alone.
        log2_t: thresholds to look at, float32 [groups].
        quantized: whether the quantizers are on.
        moving: whether batch norm uses the statistics of the batch; the moving ones then move.

    Returns:
        What it is, or None where everything up to the outputs is finite.
    """
    for feeds in rows:
        for name, array in feeds.items():
            if not np.isfinite(array).all():
                return f"the input {name!r}"
    if quantized:
        for group, value in zip(model.groups, log2_t.tolist(), strict=True):
            if not MIN_EXPONENT < value < MAX_EXPONENT:  # False for NaN; up to its bits this is the range of Q5
                return f"the threshold of {group!r} (log2 {value})"
    bad = {name for name, array in model.arrays().items() if not np.isfinite(array).all()}
    outputs = [name for step in model.program.steps for name in step.outputs]
    model.statistics_frozen = not moving
    for feeds in rows:
        tensors = {name: tf.convert_to_tensor(array) for name, array in feeds.items()}
        values = model.forward(tensors, tf.constant(log2_t), training=moving, quantized=quantized, also=outputs, wide=frozenset())
        bad |= {name for name in outputs if not bool(tf.reduce_all(tf.math.is_finite(values[name])))}
    for step in model.program.steps:
        for weight in step.inputs:
            if weight is not None and weight in bad:
                return _weights(model.program, weight)
        for name in step.outputs:
            if name in bad:
                return f"{name!r}, an output of the {step.op} {step.name!r}"
    return None


def _weights(program: Program, name: str) -> str:
    """A constant by the layer it belongs to: what a batch norm was folded into bears names of the batch norm."""
    makers = {output: step for step in program.steps for output in step.outputs}
    reader = next((step for step in program.steps if name in step.inputs), None)
    layer = reader
    while layer is not None and layer.op not in COMPUTE:
        layer = next((makers[value] for value in layer.inputs if value in makers), None)
    if reader is None or layer is None:
        return f"the weight {name!r}"
    return f"{'the weights' if reader is layer and layer.inputs[1] == name else 'the bias'} of {layer.name!r}"
