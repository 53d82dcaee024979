"""The bounds of float32 evaluations hold, with room, for what onnxruntime and TensorFlow compute."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, load

from tqt_onnx.ir import CURVES as CURVE_OPS
from tqt_onnx.kernels.functions import FORMULAS
from tqt_onnx.verify.float_error import ARITHMETIC, CURVES, LARGEST, SELECTIONS, SMALLEST, STEPS, with_error

POSITIVE = {"Log", "Sqrt", "Reciprocal"}
OPTIONS = {"Celu": [{"alpha": 0.7}], "Elu": [{"alpha": 1.5}, {}], "Gelu": [{}, {"approximate": "tanh"}], "Selu": [{}]}
OPTIONS |= {"HardSigmoid": [{}, {"alpha": 1 / 6, "beta": 0.5}, {"alpha": -0.7, "beta": 3.0}]}
OPTIONS |= {"LeakyRelu": [{}, {"alpha": 0.3}, {"alpha": -1.7}]}


def arguments(positive=False):
    """Every integer of 8 bits on grids from fine to coarse."""
    integers = np.arange(1, 256) if positive else np.arange(-128, 128)
    return np.concatenate([np.ldexp(integers.astype(np.float32), exponent) for exponent in range(-40, 12)]).astype(np.float32)


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
    return np.concatenate([_CURVES[op_type](tf.constant(part), step).numpy() for part in (x, x[:3], x[3:6])])


@pytest.mark.parametrize("op_type", sorted(CURVE_OPS | {"LeakyRelu"}))
@pytest.mark.parametrize("engine", [in_onnxruntime, in_tensorflow])
def test_engines_stay_within_half_the_bound(op_type, engine):
    for attributes in OPTIONS.get(op_type, [{}]):
        stored = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in attributes.items()}
        x = arguments(op_type in POSITIVE)
        again = np.concatenate([x, x[:3], x[3:6]])
        exact, error = with_error([(op_type, stored, (0,))], again.astype(np.float64))
        received = engine(op_type, attributes, x).astype(np.float64)
        known = np.isfinite(error)
        assert known.mean() > 0.85
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
    steps = [("Div", {}, (0, np.array(7.0))), ("Mul", {}, (1, np.array(7.0)))]  # not quite x any more, but for zero
    assert (with_error(steps, x)[0] == x).all()
    at = {"Round": x % 1 == 0.5, "Sign": x == 9.0}.get(op_type, (x % 1 == 0) & (x != 0))
    assert (with_error([*steps, (op_type, {}, (2,))], x)[1] == at).all()


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


def constant(number):
    return np.array(float(np.float32(number)))


HALF, ROOT, SLOPE = constant(0.5), constant(np.sqrt(2)), constant(1.702)
REGIONS = {
    "1 / x": [("Div", {}, (constant(1), 0))],
    "x / sqrt(x + 1)": [("Add", {}, (0, constant(1))), ("Sqrt", {}, (1,)), ("Div", {}, (0, 2))],
    "(1 / (x + 3)) * 5": [("Add", {}, (0, constant(3))), ("Div", {}, (constant(1), 1)), ("Mul", {}, (2, constant(5)))],
    "(x + 2^24) + 0.3": [("Add", {}, (0, constant(2**24))), ("Add", {}, (1, constant(0.3)))],
    "(x - 2^24) + 2^24": [("Sub", {}, (0, constant(2**24))), ("Add", {}, (1, constant(2**24)))],
    "(x * 3) * (1 / 7)": [("Mul", {}, (0, constant(3))), ("Mul", {}, (1, constant(1 / 7)))],
    "gelu": [
        ("Div", {}, (0, ROOT)), ("Erf", {}, (1,)), ("Add", {}, (2, constant(1))), ("Mul", {}, (0, 3)), ("Mul", {}, (4, HALF)),
    ],
    "quick gelu": [("Mul", {}, (0, SLOPE)), ("Sigmoid", {}, (1,)), ("Mul", {}, (0, 2))],
    "swish": [("Sigmoid", {}, (0,)), ("Mul", {}, (0, 1))],
}  # fmt: skip
"""What engines may compute in another way than operator by operator."""

FUSED = {"gelu": "Gelu", "quick gelu": "QuickGelu", "swish": "QuickGelu"}
"""Operators that onnxruntime puts in their place."""


def region_in_onnxruntime(steps, x, tmp_path):
    """With all optimizations, and which operators are left."""
    nodes, constants = [], []
    for index, (op_type, attributes, operands) in enumerate(steps, 1):
        names = []
        for operand in operands:
            if not isinstance(operand, int):
                constants.append(helper.make_tensor(f"c{len(constants)}", TensorProto.FLOAT, [], [float(operand)]))
            names.append(f"v{operand}" if isinstance(operand, int) else constants[-1].name)
        nodes.append(helper.make_node(op_type, names, [f"v{index}"], **attributes))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("v0", f"v{len(steps)}")]
    graph = helper.make_graph(nodes, "region", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in load(options.optimized_model_filepath).graph.node}
    return np.concatenate([session.run(None, {"v0": part})[0] for part in (x, x[:3], x[3:6])]), left


def region_in_tensorflow(steps, x):
    import tensorflow as tf

    functions = {"Div": tf.divide, "Add": tf.add, "Sub": tf.subtract, "Mul": tf.multiply, "Sqrt": tf.sqrt}
    functions |= {"Erf": tf.math.erf, "Sigmoid": tf.sigmoid}

    def run(part):
        values = [tf.constant(part)]
        for op_type, _, operands in steps:
            given = [values[operand] if isinstance(operand, int) else tf.constant(operand, tf.float32) for operand in operands]
            values.append(functions[op_type](*given))
        return values[-1].numpy()

    return np.concatenate([run(part) for part in (x, x[:3], x[3:6])])


@pytest.mark.parametrize("name", REGIONS)
def test_regions_of_several_operators_stay_within_their_bound(name, tmp_path):
    x = arguments(positive=True)
    x = x if name in {"1 / x", "x / sqrt(x + 1)", "(1 / (x + 3)) * 5"} else np.concatenate([x, -x])
    again = np.concatenate([x, x[:3], x[3:6]]).astype(np.float64)
    exact, error = with_error(REGIONS[name], again)
    optimized, left = region_in_onnxruntime(REGIONS[name], x, tmp_path)
    assert name not in FUSED or FUSED[name] in left
    known = np.isfinite(error)
    assert known.mean() > 0.9
    for received in (optimized, region_in_tensorflow(REGIONS[name], x)):
        assert (np.abs(received - exact) <= error)[known].all(), again[known][(np.abs(received - exact) > error)[known]][:3]


def test_a_quotient_by_a_computed_number_is_never_taken_for_exact():
    """Approximate reciprocals miss even powers of two."""
    x = np.ldexp(1.0, np.arange(-8, 8))
    assert (with_error([("Div", {}, (np.array(1.0), 0))], x)[1] > 0).all()
    assert (with_error([("Div", {}, (0, np.array(4.0)))], x)[1] == 0).all()
