"""Folding a batch norm into the layer in front: against the two operators one behind the other, and on extreme numbers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tqt_onnx.kernels.batch_norm import as_affine, fold, scale_bias, scale_weight

LAYERS = {
    "conv": ("Conv", (6, 4, 3, 3), 6, 1, (2, 4, 5, 5)),
    "grouped": ("Conv", (6, 2, 3, 3), 6, 2, (2, 4, 5, 5)),
    "depthwise": ("Conv", (8, 1, 3, 3), 8, 4, (2, 4, 5, 5)),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), 6, 1, (2, 4, 5, 5)),
    "transposed in groups": ("ConvTranspose", (4, 3, 3, 3), 6, 2, (2, 4, 5, 5)),
    "dense": ("Gemm", (4, 6), 6, 1, (2, 4)),
    "matrix": ("MatMul", (4, 6), 6, 1, (2, 4)),
}


def drawn(channels: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    pairs = (rng.normal(size=channels), rng.normal(size=channels), rng.normal(size=channels), rng.uniform(0.1, 9, channels))
    return tuple(array.astype(np.float32) for array in pairs)


def run(op_type: str, x: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """The layer in float64, group by group: onnx's reference stumbles over transposed convolutions in groups."""
    if op_type == "ConvTranspose" and groups > 1:
        parts = zip(np.split(x, groups, 1), np.split(w, groups), strict=True)
        return np.concatenate([run(op_type, part, own, 1) for part, own in parts], 1)
    attributes = {"group": groups} if "Conv" in op_type else {}
    return ReferenceEvaluator(helper.make_node(op_type, ["x", "w"], ["y"], **attributes)).run(None, {"x": x, "w": w})[0]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_folded_layer_is_layer_and_batch_norm(kind, with_bias):
    op_type, shape, channels, groups, data = LAYERS[kind]
    rng = np.random.default_rng(1)
    x, w, b = rng.normal(size=data), rng.normal(size=shape).astype(np.float32), rng.normal(size=channels)

    def layer(weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        y = run(op_type, x, weight.astype(np.float64), groups)
        return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))

    norm = drawn(channels)
    gamma, beta, mean, variance = (array.astype(np.float64).reshape(-1, *(1,) * (len(data) - 2)) for array in norm)
    expected = gamma * (layer(w, b if with_bias else None) - mean) / np.sqrt(variance + 1e-3) + beta
    received = layer(*fold(w, b if with_bias else None, norm, 1e-3, op_type, groups))
    assert np.abs(received - expected).max() < 1e-5 * np.abs(expected).max()


def test_it_is_float64_rounded_once():
    rng = np.random.default_rng(2)
    w, b, norm = rng.normal(size=(64, 3, 3, 3)).astype(np.float32), rng.normal(size=64), drawn(64)
    weight, bias = fold(w, b, norm, 1e-3, "Conv")
    for c, (gamma, beta, mean, variance) in enumerate(zip(*norm, strict=True)):
        scale = np.float64(gamma) / np.sqrt(np.float64(variance) + 1e-3)
        assert (weight[c] == (w[c].astype(np.float64) * scale).astype(np.float32)).all()
        assert bias[c] == np.float32(b[c] * scale + (np.float64(beta) - scale * np.float64(mean)))
    in_float32 = w * (norm[0] / np.sqrt(norm[3] + np.float32(1e-3)))[:, None, None, None]
    assert (in_float32 != weight).any()  # the test can fail


def test_parameters_of_one_in_a_hundred_orders_of_magnitude_stay_finite():
    gamma, variance = np.array([1e-30, 1e30], np.float32), np.array([1e30, 1e-30], np.float32)
    scale, shift = as_affine(gamma, gamma, gamma, variance, 0.0)
    assert np.allclose(scale, [1e-45, 1e45], rtol=1e-6) and np.isfinite(shift).all()
    assert (scale_weight(np.ones((1, 2), np.float32), scale, "Gemm") == np.array([[1e-45, np.inf]], np.float32)).all()


def test_what_is_not_there_costs_nothing():
    two = np.array([2.0])
    assert scale_bias(None, two, None) is None
    assert scale_bias(None, two, two) is two
    assert scale_bias(two, None, None) == 2 and scale_bias(two, two, None) == 4 and scale_bias(two, None, two) == 4


def test_float16_weights_stay_float16():
    weight, bias = fold(np.ones((2, 3), np.float16), None, tuple(a.astype(np.float16) for a in drawn(3)), 1e-3, "Gemm")
    assert weight.dtype == bias.dtype == np.float16
