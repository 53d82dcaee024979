"""Goldens compare numbers too, so random dropouts, whose numbers differ by design, are compared by their nodes alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tqt_onnx.passes.base import check_well_formed, run_passes
from tqt_onnx.passes.remove_training_nodes import RemoveTrainingNodes, kept_shares

HEAD = "g (float[n,8] x) => (float[n,8] y)"
F = np.float32


def ops(model):
    return [node.op_type for node in model.graph]


def test_dropout_goes_in_either_mode(golden, onnx_text):
    golden(
        RemoveTrainingNodes(),
        f"{HEAD} {{ a = Relu(x) b = Dropout(a) y = Neg(b) }}",
        f"{HEAD} {{ a = Relu(x) y = Neg(a) }}",
    )
    model = onnx_text(f"{HEAD} {{ a = Relu(x) y = Dropout(a, half, on) }}", {"half": F(0.5), "on": np.bool_(True)})
    assert run_passes(model, [RemoveTrainingNodes()]) is True
    assert (ops(model), model.graph.outputs[0].name) == (["Relu"], "y")
    assert not model.graph.initializers


RANDOM = {
    "TensorFlow 1": "r = RandomUniformLike(x) s = Add(keep, r) m = Floor(s) d = Div(a, keep) b = Mul(d, m)",
    "TensorFlow 1, range written out": """r = RandomUniformLike(x) u = Mul(r, one) v = Add(u, zero) s = Add(v, keep) m = Floor(s)
        d = Div(a, keep) b = Mul(m, d)""",
    "TensorFlow 1.15": "r = RandomUniformLike(x) g1 = GreaterOrEqual(r, rate) m = Cast<to = 1>(g1) d = Mul(a, up) b = Mul(d, m)",
    "TensorFlow 2": "r = RandomUniformLike(x) m = GreaterOrEqual(r, rate) d = Mul(up, a) b = Where(m, d, zero)",
    "drop where less": "r = RandomUniformLike(x) l = Less(r, rate) m = Not(l) d = Mul(up, a) b = Where(m, d, zero)",
    "constant on the left": "r = RandomUniformLike(x) m = Greater(keep, r) d = Mul(up, a) b = Where(m, d, zero)",
}
ALL = {"keep": F(0.75), "rate": F(0.25), "up": F(1 / 0.75), "zero": F(0), "one": F(1)}


def constants_in(text):
    return {name: array for name, array in ALL.items() if re.search(rf"\b{name}\b", text)}


@pytest.mark.parametrize("form", RANDOM)
def test_random_dropout_goes(onnx_text, form):
    model = onnx_text(f"{HEAD} {{ a = Relu(x) {RANDOM[form]} y = Neg(b) }}", constants_in(RANDOM[form]))
    shares = kept_shares(model.graph)
    assert {round(share, 6) for share in shares.values()} <= {0.75, 0.25}
    assert run_passes(model, [RemoveTrainingNodes()]) is True
    assert ops(model) == ["Relu", "Neg"]
    check_well_formed(model)
    assert RemoveTrainingNodes().apply(model) is False


@pytest.mark.parametrize(
    "text",
    [
        "r = RandomUniformLike(x) s = Add(keep, r) m = Floor(s) d = Mul(a, keep) y = Mul(d, m)",  # a factor of another meaning
        "r = RandomUniformLike(x) s = Add(keep, r) m = Floor(s) y = Mul(a, m)",  # no factor: half of the mean is missing
        "r = RandomUniformLike(x) y = Mul(a, r)",  # noise
        "r = RandomUniformLike(x) m = GreaterOrEqual(r, rate) d = Mul(up, a) y = Where(m, d, one)",
        "m = GreaterOrEqual(a, rate) d = Mul(up, a) y = Where(m, d, zero)",  # not random at all
    ],
)
def test_what_only_looks_like_dropout_stays(onnx_text, text):
    model = onnx_text(f"{HEAD} {{ a = Relu(x) {text} }}", constants_in(text))
    assert RemoveTrainingNodes().apply(model) is False


def test_a_mask_that_is_read_stays(onnx_text):
    model = onnx_text(
        "g (float[n,8] x) => (float[n,8] y, bool[n,8] mask) { y, mask = Dropout(x, half, on) }",
        {"half": F(0.5), "on": np.bool_(True)},
    )
    assert RemoveTrainingNodes().apply(model) is False


def test_batch_norm_leaves_training_mode(onnx_text):
    arrays = {name: np.ones(2, F) for name in "gbmv"}
    text = "g (float[n,2,3,3] x) => (float[n,2,3,3] y) {{ y, m1, v1 = BatchNormalization<training_mode = 1>(x, g, b, m, v) {} }}"
    model = onnx_text(text.format(""), arrays)
    assert run_passes(model, [RemoveTrainingNodes()]) is True
    (node,) = model.graph
    assert "training_mode" not in node.attributes and [value.name for value in node.outputs] == ["y"]
    assert RemoveTrainingNodes().apply(model) is False


def test_batch_statistics_that_are_read_stay(onnx_text):
    model = onnx_text(
        """g (float[n,2,3,3] x) => (float[n,2,3,3] y, float[2] m1)
        { y, m1, v1 = BatchNormalization<training_mode = 1>(x, g, b, m, v) }""",
        {name: np.ones(2, F) for name in "gbmv"},
    )
    assert RemoveTrainingNodes().apply(model) is False
