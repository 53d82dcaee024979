"""Parts of networks that several operators make up: batch norms of every version, attention (a Softmax in the middle, L8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from whole_road import NETWORK, record, take

IMAGE = (6, 5, 4)


def numbers(seed: int, *shape: int, around: float = 0.0) -> tf.Tensor:
    spread = 0.2 if around else 1 / np.sqrt(np.prod(shape[:-1]) or 1)
    return tf.constant((around + np.random.default_rng(seed).normal(size=shape) * spread).astype(np.float32))


def statistics(channels: int) -> list[tf.Tensor]:
    """Scale, offset, mean, variance."""
    scale, variance = (numbers(seed, channels, around=1.0) for seed in (1, 2))
    return [scale, numbers(3, channels), numbers(4, channels), variance]


def images(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)


def small_operators(x: tf.Tensor) -> tf.Tensor:
    scale, offset, mean, variance = statistics(x.shape[-1])
    inverse = tf.math.rsqrt(variance + 1e-3) * scale
    return x * inverse + (offset - mean * inverse)


NORMS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "FusedBatchNorm": lambda x: (
        tf.raw_ops.FusedBatchNorm(
            x=x, **dict(zip(("scale", "offset", "mean", "variance"), statistics(6), strict=True)), is_training=False
        ).y
    ),
    "FusedBatchNormV2": lambda x: (
        tf.raw_ops.FusedBatchNormV2(
            x=x, **dict(zip(("scale", "offset", "mean", "variance"), statistics(6), strict=True)), is_training=False
        ).y
    ),
    "FusedBatchNormV3": lambda x: (
        tf.raw_ops.FusedBatchNormV3(
            x=x, **dict(zip(("scale", "offset", "mean", "variance"), statistics(6), strict=True)), is_training=False
        ).y
    ),
    "Batch norm in small operators": small_operators,
}


@pytest.mark.parametrize("behind", ["Conv2D", "Relu"])
@pytest.mark.parametrize("name", NORMS)
def test_batch_norms(name: str, behind: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE])])
    def network(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.conv2d(x, numbers(5, 3, 3, 4, 6), 1, "SAME")
        x = tf.nn.relu(NORMS[name](x if behind == "Conv2D" else tf.nn.relu(x)))
        return tf.nn.conv2d(x, numbers(6, 1, 1, 6, 3), 1, "SAME")

    journey = take(network, images(*IMAGE), settings=NETWORK)
    journey.assert_exact()
    assert set(journey.operators) & {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"} <= {name}
    record("operators", f"{name} behind {behind}", journey)


def test_attention() -> None:
    """The layers behind the Softmax are quantized; the products of two computed matrices are not."""

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE])])
    def network(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.relu(tf.nn.conv2d(x, numbers(5, 3, 3, 4, 8), 1, "SAME"))
        tokens = tf.reshape(x, (-1, 30, 8))
        query, key, value = (tf.tensordot(tokens, numbers(seed, 8, 8), 1) for seed in (1, 2, 3))
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) * 8**-0.5)
        mixed = tf.reshape(tf.matmul(weights, value), (-1, 6, 5, 8))
        x = tf.nn.relu(x + tf.nn.conv2d(mixed, numbers(4, 1, 1, 8, 8), 1, "SAME"))
        logits = tf.tensordot(tf.reduce_mean(x, (1, 2)), numbers(9, 8, 5), 1)
        return tf.nn.softmax(logits)

    journey = take(network, images(*IMAGE), settings=NETWORK)
    journey.assert_exact(["MatMul", "MatMul", "Softmax"], without_certificate=1)  # the first of the two reads integers
    result = next(iter(journey.quantizations.values()))
    assert sum(quantizer.role == "weight" for quantizer in result.graph.quantizers) == 7  # the seventh scales the logits
    assert [island.op_type for island in result.islands if island.expected] == ["Softmax"]
    record("operators", "Softmax that layers follow (attention)", journey)


@pytest.mark.parametrize("reduce", [tf.reduce_mean, tf.reduce_max])
def test_pooled_behind_squeeze_and_excite(reduce: Callable[..., tf.Tensor]) -> None:
    """The factors come as [n, 1, 1, c]: the reduction behind the product is one over height and width all the same."""

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE])])
    def network(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.relu(tf.nn.conv2d(x, numbers(5, 3, 3, 4, 8), 1, "SAME"))
        factors = tf.sigmoid(tf.tensordot(tf.reduce_mean(x, (1, 2)), numbers(1, 8, 8), 1))
        return tf.tensordot(reduce(x * factors[:, None, None, :], (1, 2)), numbers(9, 8, 5), 1)

    journey = take(network, images(*IMAGE), settings=NETWORK)
    journey.assert_exact()
    record("operators", f"{reduce.__name__} behind squeeze-and-excite", journey)
