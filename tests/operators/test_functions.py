"""Functions of one number, from TensorFlow's operators to the integers of three engines: tables of 256 entries (L12)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from whole_road import ALL, NETWORK, record, take

from tqt_onnx.passes import functions

RNG = np.random.default_rng(7)
IMAGES = RNG.normal(size=(4, 6, 6, 3)).astype(np.float32)
FIRST = (RNG.normal(size=(3, 3, 3, 4)) * 0.4).astype(np.float32)
BIAS = (RNG.normal(size=4) * 0.3).astype(np.float32)
SECOND = (RNG.normal(size=(3, 3, 4, 5)) * 0.3).astype(np.float32)

activations = keras.activations

FUNCTIONS = {
    "Sigmoid": tf.sigmoid,
    "Tanh": tf.tanh,
    "Elu": tf.nn.elu,
    "Selu": tf.nn.selu,
    "Softplus": tf.nn.softplus,
    "Softsign": tf.nn.softsign,
    "Erf": tf.math.erf,
    "Abs": tf.abs,
    "Neg": tf.negative,
    "Square": tf.square,
    "Floor": lambda x: tf.floor(2.0 * x),
    "Ceil": lambda x: tf.math.ceil(2.0 * x),
    "Round": lambda x: tf.round(2.0 * x),
    "Sign": tf.sign,
    "Pow": lambda x: tf.pow(x, 3.0),
    "Exp": lambda x: tf.exp(tf.minimum(x, 3.0)),
    "Log": lambda x: tf.math.log(tf.nn.relu(x) + 0.1),
    "Sqrt": lambda x: tf.sqrt(tf.nn.relu(x)),
    "Rsqrt": lambda x: tf.math.rsqrt(tf.nn.relu(x) + 0.1),
    "Reciprocal": lambda x: tf.math.reciprocal(tf.nn.relu(x) + 0.5),
    "swish (tf.nn)": tf.nn.swish,
    "swish, then relu": lambda x: tf.nn.relu(activations.silu(x)),
    "x * sigmoid(1.702 x)": lambda x: x * tf.sigmoid(1.702 * x),
    "hard swish, times 1/6": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "hard swish, over 6": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "gelu with tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "softplus, stable": lambda x: tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),
    "keras hard_silu": activations.hard_silu,
    "keras mish": activations.mish,
    "keras log_sigmoid": activations.log_sigmoid,
    "keras tanh_shrink": activations.tanh_shrink,
    "keras squareplus": activations.squareplus,
}

UNSIGNED = {"Sigmoid", "Softplus", "Abs", "Square", "Exp", "Sqrt", "Rsqrt", "Reciprocal", "softplus, stable", "keras squareplus"}
UNSIGNED |= {"swish, then relu"}

EVERYWHERE = {"Sigmoid", "swish (tf.nn)", "keras hard_silu"}
"""At all widths; the others at each width and in each contract once."""


def network(function: Any) -> Any:
    """Two convolutions and the function between them."""

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3], tf.float32, name="x")])
    def call(x: Any) -> Any:
        y = tf.nn.bias_add(tf.nn.conv2d(x, FIRST, 1, "SAME"), BIAS)
        return tf.nn.conv2d(function(y), SECOND, 1, "SAME")

    return call


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_engine_gives_the_integers_of_the_table(name: str) -> None:
    journey = take(network(FUNCTIONS[name]), IMAGES, settings=ALL if name in EVERYWHERE else NETWORK)
    journey.assert_exact()
    (table,) = functions(journey.conversion.model)
    assert table.signed is (name not in UNSIGNED)
    for outcome in journey.checks.values():
        assert [layer.op_type for layer in outcome.certificates].count("Table") == 1
        assert outcome.islands == ()
    record("operators", name, journey)


def test_a_rectifier_and_what_is_linear_is_no_table() -> None:
    """Keras' hard sigmoid goes into the layers on both sides; relu6 is its rectifier."""
    journey = take(network(activations.hard_sigmoid), IMAGES)
    journey.assert_exact()
    assert functions(journey.conversion.model) == []
    record("operators", "keras hard_sigmoid", journey)


def test_values_inside_that_others_read_are_tables_of_their_own() -> None:
    """A gate that is used twice: the sigmoid is one table, the other reads what it gives."""

    def gates(x: Any) -> Any:
        gate = tf.sigmoid(x)
        return tf.concat([tf.tanh(gate), gate], axis=3)[..., :4]

    journey = take(network(gates), IMAGES, settings=[(8, 16)])
    journey.assert_exact()
    assert [table.operators for table in functions(journey.conversion.model)] == [("Sigmoid",), ("Tanh",)]


def test_a_model_that_ends_in_a_sigmoid() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3], tf.float32, name="x")])
    def call(x: Any) -> Any:
        return tf.sigmoid(tf.nn.conv2d(x, FIRST, 1, "SAME"))

    journey = take(call, IMAGES, settings=[(8, 16), (4, 32)])
    journey.assert_exact()
