from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.hoist_affines import HoistAffines

RNG = np.random.default_rng(5)
W = RNG.normal(size=(3, 2, 1, 3)).astype(np.float32)
M = RNG.normal(size=(4, 3)).astype(np.float32)
B = np.float32([1, -2, 3])
NORM = {name: RNG.uniform(0.5, 2, 3).astype(np.float32) for name in ("gamma", "beta", "mean", "var")}
TWO = {"two": np.int64([2])}


def test_a_bias_behind_squeeze(golden):
    golden(
        HoistAffines(),
        """g (float[n,2,1,7] x) => (float[n,3,5] y) <float[3,1] b = {1.0,-2.0,3.0}>
        { c = Conv(x, w) s = Squeeze(c, two) y = Add(b, s) }""",
        """g (float[n,2,1,7] x) => (float[n,3,5] y) <float[3,1,1] b = {1.0,-2.0,3.0}>
        { c = Conv(x, w) s = Add(b, c) y = Squeeze(s, two) }""",
        {"w": W, **TWO},
        {"w": W, **TWO},
    )


def test_several_of_both(golden):
    """Through a change of layout, a factor, a scalar, a batch norm whose channels are in axis 1 again above."""
    norm = "BatchNormalization<epsilon = 0.001>"
    golden(
        HoistAffines(),
        f"""g (float[n,2,1,7] x) => (float[n,3,5] y) <float[3] f = {{1.0,-2.0,3.0}}, float[1,1] half = {{0.5}}>
        {{ c = Conv(x, w) s = Squeeze(c, two) t = Transpose<perm = [0,2,1]>(s) m = Mul(t, f) a = Add(m, half)
           u = Transpose<perm = [0,2,1]>(a) y = {norm}(u, gamma, beta, mean, var) }}""",
        f"""g (float[n,2,1,7] x) => (float[n,3,5] y) <float[3,1,1] f = {{1.0,-2.0,3.0}}, float[1,1] half = {{0.5}}>
        {{ c = Conv(x, w) t = Mul(c, f) m = Add(t, half) u = {norm}(m, gamma, beta, mean, var) s = Squeeze(u, two)
           a = Transpose<perm = [0,2,1]>(s) y = Transpose<perm = [0,2,1]>(a) }}""",
        {"w": W, **TWO, **NORM},
        {"w": W, **TWO, **NORM},
    )


def test_a_matrix_over_a_sequence(rewritten):
    model = rewritten(
        [HoistAffines()],
        "g (float[n,5,4] x) => (float[n,5,3] y) { f = Reshape(x, rows) m = MatMul(f, w) r = Reshape(m, back) y = Add(r, b) }",
        {"w": M, "b": B, "rows": np.int64([-1, 4]), "back": np.int64([-1, 5, 3])},
    )
    assert [node.op_type for node in model.graph] == ["Reshape", "MatMul", "Add", "Reshape"]


@pytest.mark.parametrize(
    "text",
    [
        "(float[n,2,1,7] x) => (float[n,3,5] y, float[n,3,5] s) { c = Conv(x, w) s = Squeeze(c, two) y = Add(s, b) }",  # an output
        "(float[n,2,1,7] x) => (float[n,3,5] y, float[n,3,5] z) { c = Conv(x, w) s = Squeeze(c, two) y = Add(s, b) z = Relu(s) }",
        "(float[n,2,1,7] x) => (float[n,3,5] y, float[n,3,1,5] c) { c = Conv(x, w) s = Squeeze(c, two) y = Add(s, b) }",
        "(float[n,3,1,5] x) => (float[n,3,5] y) { s = Squeeze(x, two) y = Add(s, b) }",  # no layer
        "(float[n,3,1,5] x) => (float[n,3,5] y) { r = Relu(x) s = Squeeze(r, two) y = Add(s, b) }",
        "(float[n,2,1,7] x) => (float[n,15] y) { c = Conv(x, w) s = Flatten(c) y = Add(s, v) }",  # one number per column
        "(float[n,2,1,7] x) => (float[n,3,5] y) { c = Conv(x, w) s = Squeeze(c, two) y = Add(s, p) }",  # along two axes
    ],
)
def test_left_alone(untouched, text):
    arrays = {
        "w": W, "b": B.reshape(3, 1), "v": RNG.normal(size=15).astype(np.float32), "p": RNG.normal(size=(3, 5)).astype(np.float32)
    }  # fmt: skip
    used = {name: array for name, array in arrays.items() if f" {name})" in text}
    untouched(HoistAffines(), "g " + text, used | (TWO if "two" in text else {}))


def test_a_batch_norm_whose_channels_are_elsewhere_above_stays(untouched):
    norm = {name: RNG.uniform(0.5, 2, 5).astype(np.float32) for name in ("gamma", "beta", "mean", "var")}
    untouched(
        HoistAffines(),
        """g (float[n,2,1,7] x) => (float[n,5,3] y) { c = Conv(x, w) s = Squeeze(c, two) t = Transpose<perm = [0,2,1]>(s)
           y = BatchNormalization(t, gamma, beta, mean, var) }""",
        {"w": W, **TWO, **norm},
    )
