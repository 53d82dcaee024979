"""Float64 formulas of the functions that become tables: against the standard's own, at the ends, without overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tqt_onnx.kernels.functions import FORMULAS, apply, run

UNARY = sorted(set(FORMULAS) - {"Add", "Clip", "Div", "Gelu", "Max", "Min", "Mul", "Pow", "Sub"})
OPTIONS = {
    "Celu": {"alpha": 0.5}, "Elu": {"alpha": 1.5}, "HardSigmoid": {"alpha": 0.25, "beta": 0.75},
    "LeakyRelu": {"alpha": 0.125}, "Selu": {"alpha": 1.5, "gamma": 1.25},
}  # fmt: skip
POSITIVE = {"Log", "Sqrt", "Reciprocal"}


@pytest.mark.parametrize("op_type", UNARY)
def test_they_are_the_standards(op_type):
    x = np.linspace(0.01, 6, 97) if op_type in POSITIVE else np.linspace(-6, 6, 193)
    for attributes in [{}, *([OPTIONS[op_type]] if op_type in OPTIONS else [])]:
        node = helper.make_node(op_type, ["x"], ["y"], **attributes)
        (expected,) = ReferenceEvaluator(node).run(None, {"x": x})
        assert np.allclose(apply((op_type, attributes, (0,)), [x]), expected, rtol=1e-6, atol=1e-6), attributes


def test_gelu():
    x = np.linspace(-6, 6, 193)
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert np.allclose(apply(("Gelu", {}, (0,)), [x]), expected, rtol=1e-9, atol=1e-14)
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.allclose(apply(("Gelu", {"approximate": "tanh"}, (0,)), [x]), expected, rtol=1e-9, atol=1e-14)


def test_nothing_overflows_on_the_way():
    x = np.array([-np.inf, -1e30, -1000.0, 1000.0, 1e30])
    assert apply(("Sigmoid", {}, (0,)), [x]).tolist() == [0, 0, 0, 1, 1]
    assert apply(("Softplus", {}, (0,)), [x]).tolist() == [0, 0, 0, 1000, 1e30]
    assert apply(("Mish", {}, (0,)), [x[1:]]).tolist() == [0, 0, 1000, 1e30]
    assert apply(("Gelu", {}, (0,)), [x[1:]]).tolist() == [0, 0, 1000, 1e30]
    assert apply(("HardSwish", {}, (0,)), [x[1:]]).tolist() == [0, 0, 1000, 1e30]
    assert apply(("Elu", {}, (0,)), [x]).tolist() == [-1, -1, -1, 1000, 1e30]


def test_nothing_cancels():
    assert apply(("Gelu", {}, (0,)), [np.array([-8.0])])[0] == pytest.approx(-8 * math.erfc(8 / math.sqrt(2)) / 2, rel=1e-12)
    assert apply(("Softplus", {}, (0,)), [np.array([-40.0])])[0] == pytest.approx(math.exp(-40), rel=1e-12)
    assert apply(("Sigmoid", {}, (0,)), [np.array([-700.0])])[0] == pytest.approx(math.exp(-700), rel=1e-12)


def test_steps_read_the_argument_constants_and_each_other():
    x = np.array([[-1.0, 2.0], [0.5, -3.0]])
    steps = [("Max", {}, (0, np.array(0.0), np.array(1.0))), ("Clip", {}, (0, None, np.array(1.0))), ("Sub", {}, (1, 2))]
    assert run(steps, x).tolist() == (np.maximum(x, 1) - np.minimum(x, 1)).tolist()
    assert run([("Log", {}, (0,))], np.empty((0, 3))).shape == (0, 3)
