"""Functions of one number in float32: what quantizers on both sides make tables of (L12). Gradients flow through all but steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import tensorflow as tf

from ...kernels.functions import HARD_SIGMOID_ALPHA, LEAKY_ALPHA, SELU_ALPHA, SELU_GAMMA
from ..layout import Laid
from ..program import Step
from ..trace import Trace
from .elementwise import aligned


def _exponential(x: tf.Tensor, alpha: float, gamma: float = 1.0, width: float = 1.0) -> tf.Tensor:
    """`gamma x` above zero, `gamma alpha (exp(x / width) - 1)` below; the branch that is not taken stays finite."""
    below = tf.minimum(x, 0.0)
    curve = tf.nn.elu(below if width == 1.0 else below / width)
    y = tf.where(x > 0, x, curve if alpha == 1.0 else alpha * curve)
    return y if gamma == 1.0 else gamma * y


def _gelu(x: tf.Tensor, step: Step) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=step.get("approximate", "none") == "tanh")


def _hard_sigmoid(x: tf.Tensor, step: Step) -> tf.Tensor:
    return tf.clip_by_value(x * step.get("alpha", HARD_SIGMOID_ALPHA) + step.get("beta", 0.5), 0.0, 1.0)


_CURVES: Final[dict[str, Callable[[tf.Tensor, Step], tf.Tensor]]] = {
    "Abs": lambda x, _: tf.abs(x),
    "Ceil": lambda x, _: tf.math.ceil(x),
    "Celu": lambda x, step: _exponential(x, step.get("alpha", 1.0), width=step.get("alpha", 1.0)),
    "Elu": lambda x, step: _exponential(x, step.get("alpha", 1.0)),
    "Erf": lambda x, _: tf.math.erf(x),
    "Exp": lambda x, _: tf.exp(x),
    "Floor": lambda x, _: tf.floor(x),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, _: x * tf.clip_by_value(x + 3.0, 0.0, 6.0) / 6.0,
    "LeakyRelu": lambda x, step: tf.nn.leaky_relu(x, step.get("alpha", LEAKY_ALPHA)),
    "Log": lambda x, _: tf.math.log(x),
    "Mish": lambda x, _: x * tf.tanh(tf.nn.softplus(x)),
    "Neg": lambda x, _: tf.negative(x),
    "Reciprocal": lambda x, _: 1.0 / x,
    "Round": lambda x, _: tf.round(x),  # to even, as ONNX has it
    "Selu": lambda x, step: _exponential(x, step.get("alpha", SELU_ALPHA), step.get("gamma", SELU_GAMMA)),
    "Sigmoid": lambda x, _: tf.sigmoid(x),
    "Sign": lambda x, _: tf.sign(x),
    "Softplus": lambda x, _: tf.nn.softplus(x),
    "Softsign": lambda x, _: tf.nn.softsign(x),
    "Sqrt": lambda x, _: tf.sqrt(x),
    "Tanh": lambda x, _: tf.tanh(x),
}


def curve(trace: Trace, step: Step) -> Laid:
    """One of `_CURVES`, element by element."""
    x = trace.input(step, 0)
    return x.like(_CURVES[step.op](x.tensor, step))


def power(trace: Trace, step: Step) -> Laid:
    """`x^c`."""
    base, exponent = aligned(trace, step)
    return base.like(tf.pow(base.tensor, tf.cast(exponent.tensor, base.tensor.dtype)))


CURVES: Final = dict.fromkeys(_CURVES, curve)
"""Rows for the table of operators."""
