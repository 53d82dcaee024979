"""Small TensorFlow 1 graphs for tests: layers with random constants, and batch norm in every spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]


class Weights:
    """Random constants, the same ones for every network."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, *shape: int) -> Array:
        return self.rng.normal(size=shape).astype(np.float32)

    def positive(self, *shape: int) -> Array:
        return self.rng.uniform(0.5, 2.0, shape).astype(np.float32)


class Network:
    """What a test puts together: every method adds operators and returns the tensor."""

    def __init__(self) -> None:
        self.weights = Weights()

    def conv(self, x: Any, channels: int = 4, kernel: int = 3, strides: int = 1, padding: str = "SAME", **options: Any) -> Any:
        return tf.nn.conv2d(x, self.weights(kernel, kernel, x.shape[-1], channels), strides, padding, **options)

    def depthwise(self, x: Any, multiplier: int = 1, **options: Any) -> Any:
        return tf.nn.depthwise_conv2d(x, self.weights(3, 3, x.shape[-1], multiplier), (1, 1, 1, 1), "SAME", **options)

    def transposed(self, x: Any, channels: int = 4, **options: Any) -> Any:
        shape = tf.stack([tf.shape(x)[0], 2 * x.shape[1], 2 * x.shape[2], channels])
        kernel = self.weights(2, 2, channels, x.shape[-1])
        return v1.nn.conv2d_transpose(x, kernel, shape, (1, 2, 2, 1), "SAME", **options)

    def dense(self, x: Any, channels: int = 4, **options: Any) -> Any:
        return tf.matmul(x, self.weights(x.shape[-1], channels), **options)

    def bias(self, x: Any, **options: Any) -> Any:
        return tf.nn.bias_add(x, self.weights(x.shape[-1]), **options)

    def norm(self, x: Any, form: str = "V3", parameters: dict[str, Array] | None = None, **options: Any) -> Any:
        """Batch norm written as `form` of FORMS; `name` names its last operator where the form can be named."""
        channels = x.shape[1] if form == "V3 NCHW" else x.shape[-1]
        found = parameters or self.parameters(channels)
        return FORMS[form](x, *(found[kind] for kind in ("mean", "variance", "gamma", "beta")), **options)

    def parameters(self, channels: int) -> dict[str, Array]:
        return {
            "mean": self.weights(channels),
            "variance": self.weights.positive(channels),
            "gamma": self.weights(channels),
            "beta": self.weights(channels),
        }


EPSILON = 1e-3


def _fused(operator: str, data_format: str = "NHWC") -> Callable[..., Any]:
    def norm(
        x: Any, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float = EPSILON, name: str | None = None
    ) -> Any:
        return getattr(tf.raw_ops, operator)(
            x=x,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
            data_format=data_format,
            name=name,
        )[0]

    return norm


def _small(scale: bool = True, center: bool = True) -> Callable[..., Any]:
    """What `tf.nn.batch_normalization`, slim and Keras write: x * S + (beta - mean * S)."""

    def norm(x: Any, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float = EPSILON) -> Any:
        parts = (tf.constant(mean), tf.constant(variance), tf.constant(beta), tf.constant(gamma))
        return tf.nn.batch_normalization(
            x, parts[0], parts[1], parts[2] if center else None, parts[3] if scale else None, tf.constant(epsilon)
        )

    return norm


def _centred(
    deviation: str, scale: bool = True, center: bool = True, gamma_first: bool = False, bias_add: bool = False
) -> Callable[..., Any]:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, in the spelling asked for."""

    def norm(x: Any, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float = EPSILON) -> Any:
        shifted = tf.constant(variance) + tf.constant(epsilon)
        y = x - tf.constant(mean)
        if scale and gamma_first:
            y = tf.constant(gamma) * y
        if deviation == "sqrt":
            y = y / tf.sqrt(shifted)
        elif deviation == "rsqrt":
            y = y * tf.math.rsqrt(shifted)
        elif deviation == "reciprocal":
            y = y * tf.math.reciprocal(tf.sqrt(shifted))
        else:
            y = y * tf.pow(shifted, tf.constant(-0.5))
        if scale and not gamma_first:
            y = y * tf.constant(gamma)
        if center:
            y = tf.nn.bias_add(y, tf.constant(beta)) if bias_add else y + tf.constant(beta)
        return y

    return norm


def _divided(x: Any, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float = EPSILON) -> Any:
    """S = gamma / sqrt(variance + epsilon); x * S - (mean * S - beta)."""
    factor = tf.constant(gamma) / tf.sqrt(tf.constant(variance) + tf.constant(epsilon))
    return x * factor - (tf.constant(mean) * factor - tf.constant(beta))


def _added_last(x: Any, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float = EPSILON) -> Any:
    """(x * S - mean * S) + beta."""
    factor = tf.math.rsqrt(tf.constant(variance) + tf.constant(epsilon)) * tf.constant(gamma)
    return (x * factor - tf.constant(mean) * factor) + tf.constant(beta)


FORMS: dict[str, Callable[..., Any]] = {
    "V1": _fused("FusedBatchNorm"),
    "V2": _fused("FusedBatchNormV2"),
    "V3": _fused("FusedBatchNormV3"),
    "V3 NCHW": _fused("FusedBatchNormV3", "NCHW"),
    "small": _small(),
    "small, no gamma": _small(scale=False),
    "small, no beta": _small(center=False),
    "small, neither": _small(scale=False, center=False),
    "sqrt": _centred("sqrt"),
    "sqrt, gamma first": _centred("sqrt", gamma_first=True),
    "sqrt, no gamma": _centred("sqrt", scale=False),
    "sqrt, no beta": _centred("sqrt", center=False),
    "sqrt, neither": _centred("sqrt", scale=False, center=False),
    "rsqrt, BiasAdd": _centred("rsqrt", bias_add=True),
    "reciprocal": _centred("reciprocal"),
    "pow": _centred("pow"),
    "divided": _divided,
    "added last": _added_last,
}
"""Every spelling of batch norm there is a network for. Without `scale` gamma is 1, without `center` beta is 0."""

WITHOUT_SCALE = frozenset({"small, no gamma", "small, neither", "sqrt, no gamma", "sqrt, neither"})
WITHOUT_CENTER = frozenset({"small, no beta", "small, neither", "sqrt, no beta", "sqrt, neither"})


def graph_def(build: Callable[[Network, Any], Any], shape: tuple[int, ...] = (8, 8, 3), end: str | None = "y") -> Any:
    """The GraphDef of `build(network, x)` on a placeholder `x` of that shape; its result is called `end` by an Identity.

    With `end` None the names are those that `build` gave.
    """
    with tf.Graph().as_default() as graph:
        result = build(Network(), v1.placeholder(tf.float32, (None, *shape), name="x"))
        if end is not None:
            tf.identity(result, name=end)
    return graph.as_graph_def()
