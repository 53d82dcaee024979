"""Where a function of one number begins and ends (L12)."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import CURVES, ROLE_KEY, function_regions
from tqt_onnx.kernels.functions import run

CONSTANTS = {
    "three": 3.0,
    "zero": 0.0,
    "six": 6.0,
    "sixth": np.float32(1 / 6),
    "half": 0.5,
    "two": 2.0,
    "row": [[1.0, 2.0]],
    "cube": 3,
}


def _array(value):
    array = np.asarray(value)
    return array if array.dtype.kind == "i" else array.astype(np.float32)


def regions(body, outputs="float[n,2] y"):
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[n,2] x, float[n,2] z) => ({outputs}) {{ {body} }}'
    used = {name: value for name, value in CONSTANTS.items() if re.search(rf"[(, ]{name}[),]", body)}
    tensors = [onnx_ir.tensor(_array(value), name=name) for name, value in used.items()]
    model = onnx_ir.from_onnx_text(text, initializers=tensors)
    model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        value.shape = value.shape or onnx_ir.Shape(["n", 2])
    return model, function_regions(model.graph)


def found(body, **options):
    _, parts = regions(body, **options)
    return [(part.source.name, "".join(op[:2] for op in part.operators), part.exit.name) for part in parts]


HARD_SWISH = "a = Add(x, three) c = Clip(a, zero, six) s = Mul(c, sixth) y = Mul(x, s)"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Sigmoid(x)", [("x", "Si", "y")]),
        (HARD_SWISH, [("x", "AdClMuMu", "y")]),
        ("a = Mul(two, x) s = Sigmoid(a) y = Mul(s, x)", [("x", "MuSiMu", "y")]),
        ("s = Sigmoid(x) t = Mul(s, two) y = Add(t, three)", [("x", "SiMuAd", "y")]),
        ("s = Sigmoid(x) m = Mul(x, s) y = Relu(m)", [("x", "SiMuRe", "y")]),
        ("r = Relu(x) a = Add(r, half) y = Sqrt(a)", [("r", "AdSq", "y")]),  # the rectifier is the sum's
        ("r = Relu(x) s = Sigmoid(r) y = Mul(r, s)", [("r", "SiMu", "y")]),
        ("r = Relu(x) s = Sigmoid(r) y = Mul(x, s)", [("x", "ReSiMu", "y")]),  # x is read past it
        ("y = Mul(x, x)", [("x", "Mu", "y")]),
        ("y = Div(three, x)", [("x", "Di", "y")]),
        ("y = Pow(x, three)", [("x", "Po", "y")]),
        ("y = Pow(x, cube)", [("x", "Po", "y")]),  # an integer
        ("t = Tanh(x) l = LeakyRelu(t) y = Identity(l)", [("x", "TaLe", "l")]),
    ],
)
def test_one_function(body, expected):
    assert found(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul(x, two)", "a = Add(x, three) y = Mul(a, half)", "y = Div(x, six)", "y = Add(x, x)",  # linear
        "a = Add(x, three) c = Clip(a, zero, six) y = Mul(c, sixth)", "l = LeakyRelu(x) y = Max(l, zero)",  # and rectified
        "y = Mul(x, z)", "y = Pow(three, x)", "y = Pow(x, z)", "y = Softmax(x)", "y = Mul(row, row)",
    ],
)  # fmt: skip
def test_no_function(body):
    assert found(body) == []


def test_constants_that_differ_along_an_axis_end_it():
    assert found("s = Sigmoid(x) m = Mul(s, row) y = Tanh(m)") == [("x", "Si", "s"), ("m", "Ta", "y")]


def test_operands_of_two_tensors_end_it():
    assert found("s = Sigmoid(z) y = Mul(x, s)") == [("z", "Si", "s")]


def test_what_others_read_too_is_an_end():
    """The sigmoid leaves: the product then has two operands of its own."""
    both = "float[n,2] y, float[n,2] s"
    assert found("s = Sigmoid(x) y = Mul(x, s)", outputs=both) == [("x", "Si", "s")]
    assert found("s = Sigmoid(x) t = Tanh(x) y = Mul(s, t)", outputs=both) == [("x", "Si", "s"), ("x", "Ta", "t")]
    assert found("s = Sigmoid(x) t = Tanh(s) y = Mul(s, t)", outputs=both) == [("x", "Si", "s"), ("s", "TaMu", "y")]


def test_what_two_functions_share_is_an_end():
    body = "a = Add(x, three) s = Sigmoid(a) t = Tanh(a) c = Concat<axis = 1>(s, t) y = Identity(c)"
    assert found(body) == [("a", "Si", "s"), ("a", "Ta", "t")]


def test_arithmetic_of_shapes_is_in_none():
    model, parts = regions("s = Shape(x) m = Mul(s, s) f = Cast<to = 1>(m) y = Abs(f)")
    for node in model.graph:
        node.outputs[0].dtype = onnx_ir.DataType.INT64 if node.op_type in ("Shape", "Mul") else onnx_ir.DataType.FLOAT
    assert [region.operators for region in function_regions(model.graph)] == [("Abs",)] and len(parts) == 2


def test_what_lowering_wrote_is_in_none():
    model, _ = regions("m = Mul(x, half) y = Sigmoid(m)")
    model.graph[0].metadata_props[ROLE_KEY] = "slope"
    assert [region.source.name for region in function_regions(model.graph)] == ["m"]


def test_the_steps_compute_it():
    (region,) = regions(HARD_SWISH)[1]
    x = np.linspace(-5, 5, 41)
    assert (run(region.steps(), x) == x * (np.clip(x + 3, 0, 6) / 6)).all()  # a rounded sixth means a sixth


def test_factors_are_taken_at_their_word_unless_they_are_a_rounded_reciprocal():
    for factor, expected in (
        (np.float32(1.702), ("Mul", np.float32(1.702))),
        (0.5, ("Mul", 0.5)),
        (np.float32(-1 / 7), ("Div", -7)),
    ):
        model, (region,) = regions("m = Mul(x, two) y = Sigmoid(m)")
        model.graph.initializers["two"].const_value = onnx_ir.tensor(np.float32(factor), name="two")
        (op_type, _, (_, number)), _ = region.steps()
        assert (op_type, float(number)) == expected


def test_a_long_chain_is_one_walk():
    body = "v0 = Tanh(x) " + " ".join(f"v{i + 1} = Tanh(v{i})" for i in range(3000)) + " y = Tanh(v3000)"
    (region,) = regions(body)[1]
    assert len(region.nodes) == 3002


def test_every_curve_stands_for_itself():
    for op_type in CURVES:
        assert found(f"y = {op_type}(x)") == [("x", op_type[:2], "y")]
