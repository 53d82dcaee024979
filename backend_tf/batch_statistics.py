"""A layer whose batch norm still uses the statistics of the batch (B2).

    y  = w . x                                   float weight, the (quantized) input
    mu, sigma = mean and deviation of y over the batch
    q8( q16( (q(w') . x) * sigma_moving / sigma ) + q16( beta - gamma * mu / sigma ) )

`w'` is the weight folded with the *moving* statistics, so that its scale does not jump from batch to batch; the factor behind
the sum makes up for it. The layer's own bias is in the moving mean alone: it cancels out. In float the sum is
`y * gamma / sigma`, and the layer is an ordinary batch norm in training.
"""

from __future__ import annotations

import math
from dataclasses import replace

import tensorflow as tf

from .batch_norm import NormalizedLayer
from .layout import Laid
from .ops import OPS
from .trace import Trace


def normalize(trace: Trace, layer: NormalizedLayer, biases: dict[str, tf.Tensor], momentum: float) -> Laid:
    """The layer's output as a training step sees it; moves the moving statistics.

    Args:
        trace: whose weights hold the layer's folded weight.
        layer: the layer.
        biases: takes the bias of this batch under its name in the lowered graph, for the step that adds it (L1).
        momentum: how much of the moving statistics stays.
    """
    spec, step = layer.spec, replace(layer.step, inputs=layer.step.inputs[:2])
    held, moving = {role: tf.convert_to_tensor(variable) for role, variable in layer.variables.items()}, layer.deviation
    run = OPS[step.op]
    plain = run(trace.with_weight(spec.weight, held["weight"]), step)
    assert isinstance(plain, Laid)
    y, axis = tf.cast(plain.tensor, tf.float32), plain.axis(1)
    mean, variance = tf.nn.moments(y, [index for index in range(plain.rank) if index != axis])
    deviation = tf.sqrt(variance + spec.epsilon)
    _move(layer, held, mean, variance, tf.size(y), momentum)  # what is read of them below was read before

    def along(vector: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        return tf.reshape(tf.cast(vector, dtype), [-1 if index == axis else 1 for index in range(plain.rank)])

    if spec.weight in trace.quantizers:
        found = run(trace, step)
        assert isinstance(found, Laid)
        total = found.tensor * along(tf.cast(moving, tf.float32) / deviation, found.tensor.dtype)
    else:
        total = y * along(held["gamma"] / deviation, y.dtype)
    biases[spec.bias] = layer.as_bias(held["beta"] - held["gamma"] * mean / deviation)
    if layer.step.given(2):
        total += along(trace.value(spec.bias).tensor, total.dtype)
    return plain.like(total)


def _move(
    layer: NormalizedLayer, held: dict[str, tf.Tensor], mean: tf.Tensor, variance: tf.Tensor, size: tf.Tensor, momentum: float
) -> None:
    """The moving statistics, a step further towards those of the batch; those of a channel stay where it would not be finite."""
    if "bias" in held:
        mean += held["bias"]
    if layer.spec.unbiased:
        count = tf.cast(size, tf.float32) / math.prod(held["mean"].shape)
        variance *= count / tf.maximum(count - 1, 1)  # Bessel
    seen = {"mean": mean, "variance": variance}
    moved = {role: held[role] * momentum + tf.stop_gradient(found) * (1 - momentum) for role, found in seen.items()}
    finite = tf.math.is_finite(moved["mean"]) & tf.math.is_finite(moved["variance"])
    for role, found in moved.items():
        layer.variables[role].assign(tf.where(finite, found, held[role]))
