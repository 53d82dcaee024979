"""What a value is of another one: by rule, and by the numbers that onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import pytest

from tqt_onnx.ir import ROLE_KEY
from tqt_onnx.passes.two_slopes import slopes_of, sources

IO = "g (float[n,2] x) => (float[n,2] y)"
ARRAYS = {
    "half": np.float32(0.5),
    "minus": np.float32(-3),
    "zero": np.float32(0),
    "one": np.float32(1),
    "each": np.array([0.25, -2], np.float32),
}
FORMS = {
    "y = Relu(x)": (1, 0, True),
    "y = Abs(x)": (1, -1, True),
    "y = Neg(x)": (-1, -1, False),
    "y = LeakyRelu<alpha = 0.25>(x)": (1, 0.25, True),
    "y = PRelu(x, each)": (1, [0.25, -2], True),
    "y = Clip(x, zero)": (1, 0, True),
    "y = Clip(x, , zero)": (0, 1, True),
    "y = Max(x, zero)": (1, 0, True),
    "y = Min(zero, x)": (0, 1, True),
    "a = Mul(x, half) y = Max(x, a)": (1, 0.5, True),
    "a = Mul(each, x) y = Min(x, a)": ([0.25, -2], 1, True),
    "a = Abs(x) y = Sub(x, a)": (0, 2, True),
    "r = Relu(x) a = Abs(x) s = Sub(x, a) m = Mul(s, half) y = Add(r, m)": (1, 1, True),
    "a = Div(x, minus) y = Relu(a)": (0, -1 / 3, True),
    "n = Neg(x) y = LeakyRelu<alpha = 0.5>(n)": (-0.5, -1, True),
    "n = Neg(x) y = PRelu(n, each)": ([-0.25, 2], -1, True),
    "a = Mul(x, minus) y = Add(a, x)": (-2, -2, False),
}


def used(body: str) -> dict[str, np.ndarray]:
    return {
        name: array for name, array in ARRAYS.items() if any(name == word.strip("(),") for word in body.replace("(", " ").split())
    }


@pytest.mark.parametrize("body", FORMS)
def test_the_two_slopes(onnx_text, body):
    """Zero, both signs, and of every channel."""
    model = onnx_text(f"{IO} {{ {body} }}", used(body))
    source, value = model.graph.inputs[0], model.graph.outputs[0]
    assert sources(value)[0] is value and source in sources(value)
    slopes = slopes_of(value, source)
    positive, negative, selects = FORMS[body]
    np.testing.assert_allclose(slopes.positive, positive, rtol=1e-7)
    np.testing.assert_allclose(slopes.negative, negative, rtol=1e-7)
    assert slopes.selects is selects
    x = np.array([[-2, -0.5], [0, 0], [3, 7]], np.float32)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.where(x > 0, slopes.positive * x, slopes.negative * x)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "y = Exp(x)",
        "y = Add(x, one)",  # a constant term is no slope
        "y = Max(x, one)",
        "y = Clip(x, zero, one)",
        "y = Div(half, x)",
        "y = Div(x, zero)",
        "y = Mul(x, x)",
    ],
)
def test_what_has_no_two_slopes_is_a_source_itself(onnx_text, body):
    (value,) = onnx_text(f"{IO} {{ {body} }}", used(body)).graph.outputs
    assert sources(value) == [value]


def test_a_sum_of_two_sources_is_made_of_neither(onnx_text):
    (value,) = onnx_text("g (float[n,2] x, float[n,2] z) => (float[n,2] y) { r = Relu(x) y = Add(r, z) }").graph.outputs
    assert sources(value) == [value]


def test_the_nearest_source_comes_first(onnx_text):
    model = onnx_text(f"{IO} {{ n = Neg(x) r = Relu(n) y = Sub(r, n) }}")
    names = [value.name for value in sources(model.graph.outputs[0])]
    assert names[0] == "y" and names.index("n") < names.index("x") and "r" not in names


def test_the_walk_ends_after_six_operators_and_at_lowered_nodes(onnx_text):
    model = onnx_text(f"{IO} {{ a = Neg(x) b = Neg(a) c = Neg(b) d = Neg(c) e = Neg(d) f = Neg(e) y = Neg(f) }}")
    assert [value.name for value in sources(model.graph.outputs[0])] == ["y", "f", "e", "d", "c", "b", "a"]
    list(model.graph)[3].metadata_props[ROLE_KEY] = "slope"
    assert [value.name for value in sources(model.graph.outputs[0])] == ["y", "f", "e", "d"]
