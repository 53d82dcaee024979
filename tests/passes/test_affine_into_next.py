from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.affine_into_next import AffineIntoNext

RNG = np.random.default_rng(3)
W, V, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 4), (3, 2), (4,)))
GAMMA, BETA, MEAN = (RNG.normal(size=3).astype(np.float32) for _ in range(3))
VAR = RNG.uniform(0.5, 2, 3).astype(np.float32)
NORM = {"gamma": GAMMA, "beta": BETA, "mean": MEAN, "var": VAR}
SCALE = GAMMA / np.sqrt(VAR.astype(np.float64) + 1e-3)
SHIFT = BETA - SCALE * MEAN


def test_batch_norm_into_every_matrix_behind_it(golden):
    golden(
        AffineIntoNext(),
        """g (float[n,3] x) => (float[n,4] y, float[n,2] z)
        { r = Relu(x) s = BatchNormalization<epsilon = 0.001>(r, gamma, beta, mean, var) y = Gemm(s, w, b) z = MatMul(s, v) }""",
        "g (float[n,3] x) => (float[n,4] y, float[n,2] z) { r = Relu(x) y = Gemm(r, w, b) z = Gemm(r, v, v__bias) }",
        {"w": W, "v": V, "b": B, **NORM},
        {
            "w": (SCALE[:, None] * W).astype(np.float32),
            "v": (SCALE[:, None] * V).astype(np.float32),
            "b": (B + SHIFT @ W).astype(np.float32),
            "v__bias": (SHIFT @ V).astype(np.float32),
        },
    )


def test_a_chain_of_small_operators(golden):
    golden(
        AffineIntoNext(),
        """g (float[n,3] x) => (float[n,4] y) <float two = {2.0}>
        { a = Mul(x, two) b = Sub(a, beta) y = MatMul(b, w) }""",
        "g (float[n,3] x) => (float[n,4] y) { y = Gemm(x, w, w__bias) }",
        {"w": W, "beta": BETA},
        {"w": 2 * W, "w__bias": (-BETA.astype(np.float64) @ W).astype(np.float32)},
    )


@pytest.mark.parametrize(
    "text",
    [
        "(float[n,3] x) => (float[n,4] y, float[n,3] s) { s = Mul(x, beta) y = MatMul(s, w) }",  # an output
        "(float[n,3] x) => (float[n,4] y, float[n,3] z) { s = Mul(x, beta) y = MatMul(s, w) z = Relu(s) }",  # another reader
        "(float[n,2,3] x) => (float[n,2,4] y) { s = Mul(x, beta) y = MatMul(s, w) }",  # another rank
        "(float[n,2] x) => (float[n,4] y) { l = Gemm(x, u) s = Mul(l, beta) y = MatMul(s, w) }",  # for the layer in front
        "(float[n,3] x) => (float[n,4] y) { s = Div(beta, x) y = MatMul(s, w) }",  # not affine
    ],
)
def test_left_alone(untouched, text):
    arrays = {"w": W, "beta": BETA, "u": V.T.copy()}
    untouched(
        AffineIntoNext(), "g " + text, {name: array for name, array in arrays.items() if f"{name})" in text or name == "beta"}
    )


def test_batch_norms_are_kept_for_training(untouched):
    untouched(
        AffineIntoNext(batch_norms=False),
        """g (float[n,3] x) => (float[n,4] y)
        { s = BatchNormalization<epsilon = 0.001>(x, gamma, beta, mean, var) y = MatMul(s, w) }""",
        {"w": W, **NORM},
    )
