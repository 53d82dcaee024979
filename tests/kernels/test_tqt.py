"""The TQT operator: forward equal to the specification bit for bit in every engine, gradients as T1 to T5."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rounding_masks import MASKS

from tqt_onnx.kernels import fixed_point, tqt

FORMATS = st.tuples(st.integers(2, 16), st.booleans())
EXPONENTS = st.one_of(st.integers(-12, 6), st.sampled_from([tqt.MIN_EXPONENT, -80, 60, tqt.MAX_EXPONENT]))
LENGTH = 192


def quantized(x, log2_t, bits, signed, limit=None):
    """`x` on the grid of a threshold."""
    return tqt.quantize_at(x, tqt.scale_exponent(log2_t, bits, signed), bits, signed, limit)


GRAPH = tf.function(quantized, autograph=False)


def bits_of(array: object) -> np.ndarray:
    return np.asarray(array, np.float32).view(np.int32)


def points(exponent: int, bits: int, signed: bool, seed: int) -> np.ndarray:
    """Ties, both ends and half a step around them, float neighbours of all, powers of two, denormals, huge and random numbers."""
    lowest, highest = fixed_point.bounds(bits, signed)
    random = np.random.default_rng(seed)
    steps = np.array([0.0, 0.5, 1.5, 2.5, 3.5, lowest - 0.5, lowest + 0.5, lowest, highest - 0.5, highest, highest + 0.5])
    grid = np.ldexp(np.concatenate([steps, -steps]), exponent).astype(np.float32)
    around = [np.nextafter(grid, np.float32(end)) for end in (np.inf, -np.inf)]
    powers = np.ldexp(np.float32(1), exponent + np.arange(-2, bits + 2))
    special = [
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        -1e-40,
        1e-40,
        2.0**-126,
        -(2.0**-126),
        2.0**-127,
        3.4e38,
        -3.4e38,
        np.inf,
        -np.inf,
        1.0,
        -1.0,
    ]
    values = np.concatenate([grid, *around, powers, -powers, np.float32(special)])
    rest = random.integers(2 * lowest - 4, 2 * highest + 4, LENGTH - len(values)) / 2
    return np.concatenate([values, np.ldexp(rest, exponent).astype(np.float32)])


def threshold(exponent: int, bits: int, signed: bool, below: float = 0.0) -> tf.Tensor:
    return tf.constant(exponent + bits - int(signed) - below, tf.float32)


def onnx_quantize(x: np.ndarray, exponent: int, bits: int, signed: bool) -> np.ndarray:
    kind = {
        (4, True): TensorProto.INT4,
        (4, False): TensorProto.UINT4,
        (8, True): TensorProto.INT8,
        (8, False): TensorProto.UINT8,
        (16, True): TensorProto.INT16,
        (16, False): TensorProto.UINT16,
    }
    element = kind[bits, signed]
    constants = [
        numpy_helper.from_array(np.ldexp(np.float32(1), exponent), "s"),
        helper.make_tensor("z", element, [], [0]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "qdq", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@given(FORMATS, EXPONENTS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.25, 0.999]))
def test_forward_equals_the_specification_eagerly_and_in_a_graph(kind, exponent, seed, below):
    x = points(exponent, *kind, seed)
    expected = bits_of(fixed_point.fake_quantize(x, exponent, *kind))
    log2_t = threshold(exponent, *kind, below if abs(exponent) < 20 else 0.0)
    assert (bits_of(quantized(x, log2_t, *kind)) == expected).all()
    assert (bits_of(GRAPH(tf.constant(x), log2_t, *kind)) == expected).all()


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("exponent", [-80, -20, -7, 0, 5, 60])
def test_forward_equals_onnxruntime(bits, signed, exponent):
    x = points(exponent, bits, signed, 2)
    actual = quantized(x, threshold(exponent, bits, signed), bits, signed)
    assert (bits_of(actual) == bits_of(onnx_quantize(x, exponent, bits, signed))).all()
    assert onnx_quantize(x[:0], exponent, bits, signed).shape == (0,)


@given(st.integers(2, 16), st.integers(-12, 6), st.sampled_from([6.0, 1.0, 0.1, 20.0]), st.integers(0, 99))
def test_limit_is_an_integer_bound(bits, exponent, limit, seed):
    x = np.concatenate([points(exponent, bits, False, seed), np.float32([limit, limit * 0.999, limit * 1.001])])
    upper = int(np.rint(math.ldexp(limit, -exponent)))
    expected = fixed_point.fake_quantize(x, exponent, bits, False, upper)
    assert (bits_of(quantized(x, threshold(exponent, bits, False), bits, False, limit)) == bits_of(expected)).all()
    assert (bits_of(fixed_point.fake_quantize(np.clip(x, 0, limit), exponent, bits, False)) == bits_of(expected)).all()  # L2


@pytest.mark.parametrize(
    "threshold_bits", [np.float32(2.0), np.nextafter(np.float32(2), np.float32(3)), np.nextafter(np.float32(2), np.float32(1))]
)
def test_ceiling_is_exact_beside_an_integer(threshold_bits):
    exponent = float(tqt.scale_exponent(tf.constant(threshold_bits), 8, True))
    assert exponent == math.ceil(float(threshold_bits)) - 7


def test_what_is_not_a_number_stays_visible():
    def number(x: float, log2_t: float) -> float:
        return float(quantized(tf.constant([x]), tf.constant(log2_t), 8, True)[0])

    assert math.isnan(number(np.nan, 0.0))
    assert math.isnan(number(1.0, np.nan))
    assert math.isnan(number(1.0, tqt.MAX_EXPONENT + 8.0))
    assert math.isnan(number(1.0, tqt.MIN_EXPONENT + 6.0))
    assert number(np.inf, 0.0) == 127 / 128


@pytest.mark.parametrize("shape", [(0,), (), (1, 1), (2, 0, 3)])
def test_shapes_are_kept(shape):
    assert quantized(tf.ones(shape), tf.constant(0.0), 8, True).shape == shape
    inside = tf.function(lambda x: quantized(x, tf.constant(0.0), 8, True)).get_concrete_function(tf.TensorSpec([None, 3]))
    assert inside.structured_outputs.shape.as_list() == [None, 3]


def test_of_nothing_there_is_nothing():
    slope, total = gradients(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0, 8, True)
    assert quantized(tf.zeros([0, 3]), tf.constant(0.0), 8, True).shape == slope.shape == (0, 3)
    assert float(total) == 0.0


def test_every_kind_is_traced_once_and_nothing_warns_of_it(caplog):
    """TensorFlow keeps count of traces by Python code, which all kinds have in common."""
    kinds = [(bits, signed) for bits in (2, 5, 9, 11, 13) for signed in (True, False)]
    with caplog.at_level(logging.WARNING, "tensorflow"):
        for bits, signed in kinds:
            for shape in ((2,), (3, 4), (1, 2, 3)):
                quantized(tf.ones(shape), tf.constant(0.0), bits, signed)
                quantized(tf.ones(shape, tf.float64), tf.constant(0.0), bits, signed)
    assert caplog.text == ""


def test_a_bias_has_32_bits_and_the_sum_of_two_exponents():
    bias = tf.constant([0.3, -1e9, 1e9, 2.0**-15], tf.float64)
    exponents = tqt.scale_exponent(tf.constant(0.0), 8, True), tqt.scale_exponent(tf.constant(1.0), 8, False)
    rounded = tqt.quantize_at(bias, exponents[0] + exponents[1], 32, True)
    expected = fixed_point.quantize(bias.numpy(), -14, 32, True)
    assert tqt.integers_of(rounded, exponents[0] + exponents[1]).numpy().tolist() == expected.tolist()
    assert (rounded.numpy() == np.ldexp(expected.astype(np.float64), -14)).all()


def reference_gradients(x, weights, exponent, bits, signed, limit=None):
    """T2 and T3 in float64, element by element."""
    lowest, highest = fixed_point.bounds(bits, signed)
    scale = 2.0**exponent
    steps = None if limit is None else limit / scale
    bound = highest if steps is None else min(highest, round(steps))
    slopes, total = [], 0.0
    for value, weight in zip(x.astype(np.float64), weights.astype(np.float64), strict=True):
        rounded = np.rint(value / scale)
        if rounded < lowest:
            slope, step = 0.0, float(lowest)
        elif rounded > bound:
            slope, step = 0.0, float(highest) if bound == highest else bound - steps
        else:
            slope, step = 1.0, rounded - value / scale
        slopes.append(slope * weight)
        total += weight * scale * math.log(2) * step
    return np.array(slopes), total


def gradients(x, weights, log2_t, bits, signed, limit=None):
    x, variable = tf.constant(x), tf.Variable(log2_t, dtype=tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(quantized(x, variable, bits, signed, limit) * weights)
    return tape.gradient(loss, [x, variable])


@given(FORMATS, st.integers(-10, 4), st.sampled_from([None, 6.0, 0.3]), st.integers(0, 2**32 - 1))
def test_gradients_equal_a_float64_reference(kind, exponent, limit, seed):
    x = points(exponent, *kind, seed)
    x = x[np.abs(x) < 1e30]
    weights = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32)
    slope, total = gradients(x, weights, threshold(exponent, *kind), *kind, limit)
    expected_slope, expected_total = reference_gradients(x, weights, exponent, *kind, limit)
    assert (slope.numpy() == expected_slope).all()  # T2: a mask, exactly
    magnitude = 2.0 ** (exponent + kind[0]) * np.abs(weights).sum()
    assert abs(float(total) - expected_total) <= 1e-6 * magnitude  # T3: float32 rounding of a sum of under 100 terms


@pytest.mark.parametrize(("bits", "signed", "limit", "steps", "expected"), MASKS)
def test_the_mask_is_on_the_rounded_value_inclusive(bits, signed, limit, steps, expected):
    x = np.ldexp(np.float64(steps), -5).astype(np.float32)
    slope, _ = gradients(x, np.ones_like(x), threshold(-5, bits, signed), bits, signed, limit)
    assert slope.numpy().tolist() == expected


@given(FORMATS, st.integers(-10, 4), st.floats(-1.5, 1.5), st.sampled_from([None, 6.0, 0.7]))
def test_gradients_are_the_slopes_of_the_relaxed_quantizer(kind, log2_t, share, limit):
    """Finite differences of T1's relaxation: the scale is a smooth function of log2_t, the rounding error is held constant."""
    bits, signed = kind
    lowest, highest = fixed_point.bounds(bits, signed)
    scale = 2.0 ** (log2_t - bits + signed)
    x = float(np.float32(share * 2.0**log2_t))
    value = x if limit is None else min(x, limit)
    rounded = np.rint(value / scale)
    kinks = np.array([lowest, highest])  # the difference by log2_t reaches 2^-12 of the value to either side
    assume((abs(rounded - kinks) > 2.0**-12 * abs(rounded)).all() and np.rint(x / scale) != (limit and np.rint(limit / scale)))

    def relaxed(log2_t: float, x: float) -> float:
        scale_there = 2.0 ** (log2_t - bits + signed)
        value_there = x if limit is None else min(x, limit)
        return scale_there * min(max(value_there / scale_there + rounded - value / scale, lowest), highest)

    step = 2.0**-12
    slopes = [
        (relaxed(log2_t, x + step * scale) - relaxed(log2_t, x - step * scale)) / (2 * step * scale),
        (relaxed(log2_t + step, x) - relaxed(log2_t - step, x)) / (2 * step),
    ]
    for actual, slope in zip(gradients(np.float32([x]), np.float32([1]), log2_t, bits, signed, limit), slopes, strict=True):
        assert np.asarray(actual).item() == pytest.approx(slope, rel=1e-4, abs=1e-3 * scale)


def test_a_limit_on_the_grid_has_no_threshold_gradient_above_it():
    slope, total = gradients(np.float32([6.02, 7.0, 100.0]), np.ones(3, np.float32), 3.0, 8, False, 6.0)
    assert float(total) == 0.0
    assert slope.numpy().tolist() == [0.0, 0.0, 0.0]


def test_shared_thresholds_accumulate_and_frozen_ones_have_no_gradient():
    variable = tf.Variable(0.0)
    frozen = tf.Variable(0.0, trainable=False)
    x = tf.constant([0.3, 5.0])
    with tf.GradientTape(persistent=True) as tape:
        one = tf.reduce_sum(quantized(x, variable, 8, True))
        two = one + tf.reduce_sum(quantized(x, variable, 8, True))
        none = tf.reduce_sum(quantized(x, frozen, 8, True))
        stopped = tf.reduce_sum(quantized(x, tf.stop_gradient(variable), 8, True))
    assert float(tape.gradient(two, variable)) == 2 * float(tape.gradient(one, variable))  # T5
    assert float(tape.gradient(one, variable)) != 0
    assert tape.gradient(none, frozen) is None  # T4
    assert tape.gradient(stopped, variable) is None


def test_32_bits_are_refused_in_float32():
    with pytest.raises(ValueError, match="float64"):
        tqt.quantize_at(tf.ones(3), tf.constant(-14.0), 32, True)


def test_what_is_far_outside_has_finite_gradients():
    slope, total = gradients(np.float32([np.inf, -np.inf, 3e38, -3e38]), np.ones(4, np.float32), -80.0, 8, True)
    assert slope.numpy().tolist() == [0.0] * 4
    assert float(total) == pytest.approx(2 * (127 - 128) * 2.0**-87 * math.log(2))  # T3: n and p


def test_a_derived_scale_hands_its_gradient_to_both_thresholds():
    ours, weights = tf.Variable(0.0), tf.Variable(0.0)
    with tf.GradientTape() as tape:
        exponents = tqt.scale_exponent(ours, 8, True), tqt.scale_exponent(weights, 8, True)
        loss = tf.reduce_sum(tqt.quantize_at(tf.constant([1.3 * 2**-14], tf.float64), exponents[0] + exponents[1], 32, True))
    first, second = tape.gradient(loss, [ours, weights])
    assert float(first) == float(second) == pytest.approx(-0.3 * 2**-14 * math.log(2), rel=1e-5)
