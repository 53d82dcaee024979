"""The bounds of float32 evaluations hold, with room, for what onnxruntime and TensorFlow compute."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tqt_onnx.ir import CURVES as CURVE_OPS
from tqt_onnx.kernels.functions import FORMULAS
from tqt_onnx.verify.float_error import ARITHMETIC, CURVES, LARGEST, SELECTIONS, SMALLEST, STEPS, with_error

POSITIVE = {"Log", "Sqrt", "Reciprocal"}
OPTIONS = {"Celu": [{"alpha": 0.7}], "Elu": [{"alpha": 1.5}, {}], "Gelu": [{}, {"approximate": "tanh"}], "Selu": [{}]}


def arguments(positive=False):
    """Every integer of 8 bits on grids from fine to coarse."""
    integers = np.arange(1, 256) if positive else np.arange(-128, 128)
    return np.concatenate([np.ldexp(integers.astype(np.float32), exponent) for exponent in range(-16, 2)]).astype(np.float32)


def in_onnxruntime(op_type, attributes, x):
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"], **attributes)],
        "curve",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": part})[0] for part in (x, x[:3], x[3:6])])


def in_tensorflow(op_type, attributes, x):
    import tensorflow as tf

    from tqt_onnx.backend_tf.ops.curves import _CURVES
    from tqt_onnx.backend_tf.program import Step

    step = Step(op_type, op_type, ("x",), ("y",), attributes)
    function = tf.function(lambda tensor: _CURVES[op_type](tensor, step))
    return np.concatenate([function(tf.constant(part)).numpy() for part in (x, x[:3], x[3:6])])


@pytest.mark.parametrize("op_type", sorted(CURVE_OPS))
@pytest.mark.parametrize("engine", [in_onnxruntime, in_tensorflow])
def test_engines_stay_within_half_the_bound(op_type, engine):
    for attributes in OPTIONS.get(op_type, [{}]):
        stored = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in attributes.items()}
        x = arguments(op_type in POSITIVE)
        again = np.concatenate([x, x[:3], x[3:6]])
        exact, error = with_error([(op_type, stored, (0,))], again.astype(np.float64))
        received = engine(op_type, attributes, x).astype(np.float64)
        known = np.isfinite(error)
        assert known.sum() > 0.9 * known.size
        worst = np.abs(received - exact)[known] / np.maximum(error[known], 2 * SMALLEST)
        where = again[known][worst.argmax()]
        assert worst.max() <= 0.5, (attributes, where, worst.max())


def test_every_operator_of_a_table_has_a_bound():
    assert set(FORMULAS) == SELECTIONS | STEPS | ARITHMETIC | set(CURVES)
    assert set(CURVE_OPS) <= set(FORMULAS)


@pytest.mark.parametrize("op_type", sorted(STEPS))
def test_a_step_is_exact_until_an_error_crosses_it(op_type):
    x = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    assert (with_error([(op_type, {}, (0,))], x)[1] == 0).all()
    steps = [("Mul", {}, (0, np.array(1 / 3))), ("Mul", {}, (1, np.array(3.0)))]  # not quite x any more
    exact, error = with_error([*steps, (op_type, {}, (2,))], x)
    at = {"Round": np.abs(x) % 1 == 0.5, "Sign": x == 9.0}.get(op_type, (x % 1 == 0) & (x != 0))
    assert ((error == 1) == at).all() and (error[~at] == 0).all() and np.isfinite(exact).all()


def test_exact_arithmetic_has_no_error():
    """Hard-swish without its sixth, of 8 bits: every number on the way is a float32 number."""
    x = np.ldexp(np.arange(-128.0, 128.0), -4)
    steps = [("Add", {}, (0, np.array(3.0))), ("Clip", {}, (1, np.array(0.0), np.array(6.0))), ("Mul", {}, (0, 2))]
    exact, error = with_error(steps, x)
    assert (exact == x * np.clip(x + 3, 0, 6)).all() and (error == 0).all()
    _, error = with_error([*steps, ("Div", {}, (3, np.array(6.0)))], x)
    assert (error[exact != 0] > 0).all() and (error[exact == 0] == 0).all()
    _, error = with_error([*steps, ("Div", {}, (3, np.array(8.0)))], x)
    assert (error == 0).all()


def test_errors_grow_where_they_cancel():
    """`(x + 2^24) - 2^24` loses the last bit of x."""
    big = np.array(2.0**24)
    x = np.array([0.5, 1.0, 2.0])
    _, error = with_error([("Add", {}, (0, big)), ("Sub", {}, (1, big))], x)
    received = (x.astype(np.float32) + np.float32(big)) - np.float32(big)
    assert (np.abs(received - x) <= error).all() and error[0] >= 0.5


def test_what_overflows_or_has_no_value_has_no_bound():
    x = np.array([-1.0, 0.0, 1.0, 200.0])
    assert np.isinf(with_error([("Exp", {}, (0,))], x)[1]).tolist() == [False, False, False, True]
    assert np.isinf(with_error([("Log", {}, (0,))], x)[1]).tolist() == [True, True, False, False]
    assert np.isinf(with_error([("Reciprocal", {}, (0,))], x)[1]).tolist() == [False, True, False, False]
    assert np.exp(200.0) > LARGEST
