"""Signal to noise: the numbers are those NumPy gives, streamed or not, and what cannot be compared is named."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import CONTRACT_KEY, QUANTIZERS_KEY, ModelError, Quantizer, QuantizerGraph
from tqt_onnx.verify import Oracle, Session, check_engines
from tqt_onnx.verify.sqnr import NoiseMeter, decibels

W = np.array([[0.3, -1.2, 0.01], [0.7, 0.26, -0.9]], np.float32)
B = np.array([0.11, -0.5, 0.77], np.float32)
WEIGHTS, BIAS = np.rint(W * 64).astype(np.int64), np.rint(B * 1024).astype(np.int64)


def quantized(net, limit=None):
    """`relu(x w + b)` with scales 2^-4 (x), 2^-6 (w), 2^-10 (b), 2^-3 (y), behind it a Softmax."""
    n = net(["n", 2])
    x = n.quantized("x", "x__input", -4, "i8")
    y = n.op("Gemm", [x, n.weight("w", WEIGHTS, -6), n.weight("b", BIAS, -10, "i32")], "sum")
    y = n.quantized(y if limit else n.op("Relu", [y], "y__float"), "y", -3, "u8", upper=None if limit is None else limit * 8)
    model = n.model(n.op("Softmax", [y], "p", axis=1))
    quantizers = (
        Quantizer("x__input", "x__input", 8, True, "input", "x__input", exponent=-4),
        Quantizer("w", "w", 8, True, "weight", "w", exponent=-6),
        Quantizer("b", "b", 32, True, "bias", "b", derived_from=("x__input", "w"), exponent=-10),
        Quantizer("y", "y", 8, False, "activation", "y", limit=limit, exponent=-3),
    )
    model.metadata_props[QUANTIZERS_KEY] = QuantizerGraph("layer32", quantizers).to_json()
    model.metadata_props[CONTRACT_KEY] = "layer32"
    return model


def floating(relu="y = Relu(sum)", w=W, b=B):
    numbers = ", ".join(str(float(value)) for value in w.ravel())
    bias = ", ".join(str(float(value)) for value in b)
    return onnx_ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x) => (float[N,3] p)
        <float[2,3] w = {{{numbers}}}, float[3] b = {{{bias}}}, float lo = {{0.0}}, float hi = {{2.0}}>
        {{ x__input = Identity(x) sum = Gemm(x__input, w, b) {relu} p = Softmax<axis = 1>(y) }}"""
    )


@pytest.fixture(name="x", scope="module")
def inputs():
    return np.random.default_rng(3).normal(size=(150, 2)).astype(np.float32)


def expected(x, limit=np.inf):
    """tensor -> (float numbers, quantized numbers, float numbers on the tensor's own grid), without any code of the project."""

    def grid(numbers, exponent, low, high):
        return np.clip(np.rint(np.asarray(numbers, np.float64) * 2.0**-exponent), low, high) * 2.0**exponent

    y = np.clip((x @ W + B).astype(np.float64), 0, limit)
    x_q, w_q, b_q = grid(x, -4, -128, 127), WEIGHTS / 64, BIAS / 1024
    y_q = grid(np.clip(x_q @ w_q + b_q, 0, limit), -3, 0, 255)
    p, p_q = (np.exp(t) / np.exp(t).sum(axis=1, keepdims=True) for t in (y, y_q))
    return {
        "x__input": (x, x_q, x_q),
        "w": (W, w_q, w_q),
        "b": (B, b_q, b_q),
        "y": (y, y_q, grid(y, -3, 0, 255)),
        "p": (p, p_q, None),
    }


def squares(numbers):
    return float((np.asarray(numbers, np.float64) ** 2).sum())


@pytest.mark.parametrize("sizes", [(150,), (1, 70, 79)])
@pytest.mark.parametrize("limit", [None, 2])
def test_noise_is_that_of_numpy(net, x, sizes, limit):
    cuts = np.cumsum((0, *sizes))
    batches = [{"x": x[a:b]} for a, b in itertools.pairwise(cuts)]
    reference = floating() if limit is None else floating("y = Clip(sum, lo, hi)")
    result = check_engines(quantized(net, limit), batches, float_model=reference)
    assert result.ok
    assert result.unmatched == ()
    found = {noise.tensor: noise for noise in result.sqnr}
    wanted = expected(x, limit or np.inf)
    assert set(found) == set(wanted)
    assert [noise.role for noise in result.sqnr] == ["input", "weight", "bias", "activation", "output"]
    for name, (plain, rounded, own) in wanted.items():
        noise = found[name]
        assert (noise.count, noise.not_finite) == (np.size(plain), 0)
        assert noise.signal == pytest.approx(squares(plain), rel=1e-6)  # float32 sums in onnxruntime
        assert noise.noise == pytest.approx(squares(np.asarray(rounded, np.float64) - plain), rel=1e-5)
        assert noise.sqnr_db == pytest.approx(10 * math.log10(noise.signal / noise.noise), abs=1e-9)
        if own is None:
            assert (noise.own_noise, noise.own_db, noise.bits) == (None, None, None)
        else:
            assert noise.own_noise == pytest.approx(squares(np.asarray(own, np.float64) - plain), rel=1e-5)
    assert found["y"].own_db > found["y"].sqnr_db  # weights and input disturb it too


def test_what_lies_on_the_grid_has_no_noise(net):
    x = (np.arange(-8, 8).reshape(8, 2) / 16).astype(np.float32)
    w, b = np.array([[1, 0, -1], [0, 2, 1]], np.float32), np.array([0.5, 0.25, 1], np.float32)
    n = net(["n", 2])
    n.quantized("x", "x__input", -4, "i8")
    n.op("Gemm", ["x__input", n.weight("w", w * 32, -5), n.weight("b", b * 512, -9, "i32")], "y__float")
    model = n.model(n.quantized("y__float", "y", -4, "i8"))
    quantizers = (
        Quantizer("x__input", "x__input", 8, True, "input", "x__input", exponent=-4),
        Quantizer("w", "w", 8, True, "weight", "w", exponent=-5),
        Quantizer("b", "b", 32, True, "bias", "b", derived_from=("x__input", "w"), exponent=-9),
        Quantizer("y", "y", 8, True, "activation", "y", exponent=-4),
    )
    model.metadata_props[QUANTIZERS_KEY] = QuantizerGraph("layer32", quantizers).to_json()
    model.metadata_props[CONTRACT_KEY] = "layer32"
    result = check_engines(model, [{"x": x}], float_model=floating("y = Identity(sum)", w, b))
    assert [noise.sqnr_db for noise in result.sqnr] == [math.inf] * 4
    decoded = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [(noise["noise"], noise["sqnr_db"], noise["own_db"]) for noise in decoded["sqnr"]] == [(0.0, None, None)] * 4


def test_decibels():
    assert decibels(100.0, 1.0) == 20.0
    assert decibels(1.0, 1.0) == 0.0
    assert (decibels(1.0, 0.0), decibels(0.0, 0.0), decibels(0.0, 1.0)) == (math.inf, math.inf, -math.inf)
    assert decibels(1e300, 1e-300) == pytest.approx(6000.0)  # the ratio does not fit a float


def test_infinities_of_the_float_model_are_counted_apart(net, x):
    huge = W.copy()
    huge[0, 1] = 3e38
    loud = x.copy()
    loud[:, 0] = np.where(np.arange(150) < 30, 4, 0.5)
    result = check_engines(quantized(net), [{"x": loud}], float_model=floating(w=huge))
    y = next(noise for noise in result.sqnr if noise.tensor == "y")
    assert (y.count, y.not_finite) == (450 - 30, 30)
    p = next(noise for noise in result.sqnr if noise.tensor == "p")
    assert p.count + p.not_finite == 450
    assert math.isfinite(y.noise)


def test_what_cannot_be_compared_is_named(net, x):
    model = quantized(net)
    without = onnx_ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x) => (float[N,3] z)
        <float[2,3] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[1] b = {1.0}>
        { x__input = Identity(x) z = Gemm(x__input, w, b) }"""
    )
    result = check_engines(model, [{"x": x}], float_model=without)
    assert [noise.tensor for noise in result.sqnr] == ["x__input", "w"]
    assert {item.tensor: item.reason for item in result.unmatched} == {
        "b": "its shape is [3], in the float model [1]",
        "y": "the float model has no tensor of this name",
    }
    wider = onnx_ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x) => (float[N,4] y)
        <float[2,4] v = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}> { x__input = Identity(x) y = MatMul(x__input, v) }"""
    )
    reasons = {item.tensor: item.reason for item in check_engines(model, [{"x": x[:5]}], float_model=wider).unmatched}
    assert reasons["y"] == "its shape is [5, 3], in the float model [5, 4]"
    assert reasons["w"] == "the float model has no constant of this name"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[N,2] image) => (float[N,2] y) { y = Identity(image) }", r"inputs x are expected\. Received: image"),
        ("(float[N,2] x) => (float[N,2] q) { q = Relu(x) }", "shares no tensor"),
    ],
)
def test_another_network_is_refused(net, text, message):
    other = onnx_ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    with pytest.raises(ModelError, match=message):
        NoiseMeter(quantized(net), other)
    with pytest.raises(ModelError, match="not a quantized model"):
        NoiseMeter(floating(), floating())


def test_every_engine_is_run_once_for_a_slice(net, x, monkeypatch):
    runs: dict[str, int] = {"oracle": 0, "onnxruntime": 0}
    oracle, session = Oracle._run, Session.run

    def counted_oracle(self, *arguments):
        runs["oracle"] += 1
        return oracle(self, *arguments)

    def counted_session(self, feeds):
        runs["onnxruntime"] += 1
        return session(self, feeds)

    monkeypatch.setattr(Oracle, "_run", counted_oracle)
    monkeypatch.setattr(Session, "run", counted_session)
    check_engines(quantized(net), [{"x": x}], float_model=floating())  # 150 images: slices of 64, 64 and 22
    # onnxruntime: tapped, optimized, optimized up to the Softmax, float
    assert runs == {"oracle": 3, "onnxruntime": 3 * 4}
