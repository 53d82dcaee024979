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


K = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
D = RNG.normal(size=(6, 1, 2, 2)).astype(np.float32)
PLAIN = "kernel_shape = [2,2], strides = [1,1], dilations = [1,1], pads = [0,0,0,0]"


def test_batch_norm_into_every_convolution_that_does_not_pad(golden):
    """Depthwise with two outputs per channel as well: each group has its own inputs."""
    golden(
        AffineIntoNext(),
        f"""g (float[n,3,5,5] x) => (float[n,4,4,4] y, float[n,6,4,4] z)
        {{ r = Relu(x) s = BatchNormalization<epsilon = 0.001>(r, gamma, beta, mean, var) y = Conv<{PLAIN}>(s, w, b)
           z = Conv<{PLAIN}, group = 3>(s, d) }}""",
        f"""g (float[n,3,5,5] x) => (float[n,4,4,4] y, float[n,6,4,4] z)
        {{ r = Relu(x) y = Conv<{PLAIN}>(r, w, b) z = Conv<{PLAIN}, group = 3>(r, d, d__bias) }}""",
        {"w": K, "d": D, "b": B, **NORM},
        {
            "w": (SCALE[None, :, None, None] * K).astype(np.float32),
            "b": (B + (SHIFT[None, :, None, None] * K).sum((1, 2, 3))).astype(np.float32),
            "d": (np.repeat(SCALE, 2)[:, None, None, None] * D).astype(np.float32),
            "d__bias": (np.repeat(SHIFT, 2) * D.astype(np.float64).sum((1, 2, 3))).astype(np.float32),
        },
    )


def test_a_factor_passes_zero_padding(golden):
    golden(
        AffineIntoNext(),
        """g (float[n,3,5,5] x) => (float[n,4,5,5] y) <float[3,1,1] f = {2.0,0.5,-1.0}>
        { s = Mul(x, f) y = Conv<pads = [1,0,0,1]>(s, w) }""",
        "g (float[n,3,5,5] x) => (float[n,4,5,5] y) { y = Conv<pads = [1,0,0,1]>(x, w) }",
        {"w": K},
        {"w": (np.float64([2, 0.5, -1])[None, :, None, None] * K).astype(np.float32)},
    )


@pytest.mark.parametrize(
    "text",
    [
        "=> (float[n,4,5,5] y) { s = BatchNormalization(x, gamma, beta, mean, var) y = Conv<pads = [1,0,0,1]>(s, w) }",
        '=> (float[n,4,5,5] y) { s = BatchNormalization(x, gamma, beta, mean, var) y = Conv<auto_pad = "SAME_UPPER">(s, w) }',
        "=> (float[n,4,5,5] y) { a = Add(x, t) s = Mul(a, f) y = Conv<pads = [1,0,0,1]>(s, w) }",  # one layer takes both
        "=> (float[n,4,5,5] y, float[n,4,4,4] z) { s = Add(x, t) y = Conv<pads = [1,0,0,1]>(s, w) z = Conv(s, w) }",
        "=> (float[n,4,4,4] y, float[n,3,5,5] z) { s = Mul(x, f) y = Conv(s, w) z = Relu(s) }",
        "=> (float[n,4,4,4] y) { l = Conv(x, u) s = Mul(l, f) y = Conv(s, w) }",  # for the layer in front
    ],
)
def test_left_alone_in_front_of_convolutions(untouched, text):
    arrays = {
        "f": BETA.reshape(3, 1, 1), "t": MEAN.reshape(3, 1, 1), "u": RNG.normal(size=(3, 3, 1, 1)).astype(np.float32), "w": K
    }  # fmt: skip
    used = {name: array for name, array in arrays.items() if f" {name})" in text}
    untouched(AffineIntoNext(), "g (float[n,3,5,5] x) " + text, used | (NORM if "Batch" in text else {}))
