from __future__ import annotations

import time

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
        { c = Conv(x, w) y__hoisted = Add(b, c) y = Squeeze(y__hoisted, two) }""",
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
        {{ c = Conv(x, w) m__hoisted = Mul(c, f) a__hoisted = Add(m__hoisted, half)
           y__hoisted = {norm}(a__hoisted, gamma, beta, mean, var) s__hoisted = Squeeze(y__hoisted, two)
           t__hoisted = Transpose<perm = [0,2,1]>(s__hoisted) y = Transpose<perm = [0,2,1]>(t__hoisted) }}""",
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


def test_what_an_axis_becomes_is_followed_through_many_moves(golden):
    """[n,3,1,5] -> [n,3,5] -> [n,5,3] -> [n,1,5,3]: the last axis is the channels; a term along it ends up as [3,1,1]."""
    golden(
        HoistAffines(),
        """g (float[n,2,1,7] x) => (float[n,1,5,3] y) <float[3] b = {1.0,-2.0,3.0}>
        { c = Conv(x, w) s = Squeeze(c, two) t = Transpose<perm = [0,2,1]>(s) u = Unsqueeze(t, one) y = Add(u, b) }""",
        """g (float[n,2,1,7] x) => (float[n,1,5,3] y) <float[3,1,1] b = {1.0,-2.0,3.0}>
        { c = Conv(x, w) y__hoisted = Add(c, b) s__hoisted = Squeeze(y__hoisted, two)
          t__hoisted = Transpose<perm = [0,2,1]>(s__hoisted) y = Unsqueeze(t__hoisted, one) }""",
        {"w": W, "one": np.int64([1]), **TWO},
        {"w": W, "one": np.int64([1]), **TWO},
    )


def test_what_cannot_move_holds_back_what_follows(golden):
    """One number per column of a flattened image; the factor in front of it moves, the one behind it stays."""
    columns = {"v": RNG.normal(size=15).astype(np.float32)}
    golden(
        HoistAffines(),
        """g (float[n,2,1,7] x) => (float[n,15] y) <float h = {0.5}>
        { c = Conv(x, w) f = Flatten(c) m = Mul(f, h) a = Add(m, v) y = Mul(a, h) }""",
        """g (float[n,2,1,7] x) => (float[n,15] y) <float h = {0.5}>
        { c = Conv(x, w) m__hoisted = Mul(c, h) m = Flatten(m__hoisted) a = Add(m, v) y = Mul(a, h) }""",
        {"w": W, **columns},
        {"w": W, **columns},
    )


def test_a_long_chain_takes_linear_time(onnx_text):
    """4 times the pairs of Reshape and Mul cost far less than 16 times the time (quadratic)."""
    shapes = {"s0": np.int64([-1, 3, 5]), "s1": np.int64([-1, 3, 1, 5])}
    times = []
    for pairs in (200, 800):
        body = " ".join(f"r{i} = Reshape(m{i}, s{i % 2}) m{i + 1} = Mul(r{i}, h)" for i in range(pairs))
        text = f"g (float[n,2,1,7] x) => (float[n,3,1,5] m{pairs}) <float h = {{1.001}}> {{ m0 = Conv(x, w) {body} }}"
        model = onnx_text(text, {"w": W, **shapes})
        start = time.perf_counter()
        assert HoistAffines().apply(model)
        times.append(time.perf_counter() - start)
        assert [node.op_type for node in model.graph] == ["Conv", *["Mul"] * pairs, *["Reshape"] * pairs]
    assert times[1] < 9 * times[0] + 0.2
