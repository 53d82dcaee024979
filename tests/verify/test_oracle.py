"""The oracle against integers computed by hand: plain Python loops, nothing of ours."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.verify import FixedPoint, Oracle


def half_even(value: Fraction, low: int, high: int) -> int:
    return min(max(round(value), low), high)  # Python rounds fractions half to even


def ints(value) -> list:
    assert isinstance(value, FixedPoint)
    return value.integers.tolist()


def quantized_input(x, exponent, low, high):
    return [half_even(Fraction(float(v)) / Fraction(2) ** exponent, low, high) for v in np.asarray(x).ravel()]


def test_conv_relu(net):
    x = np.array([[[[0.5, -0.75, 2.0], [0.25, 0.375, -9.0], [1.0, 0.125, 0.0625]]]], np.float32)
    weights = [[[[3, -2], [127, -128]]], [[[1, 0], [-5, 7]]]]
    bias = [40, -3]
    n = net(["n", 1, 3, 3])
    a = n.quantized("x", "a", -4, "i8")
    y = n.conv([a, n.weight("w", weights, -7), n.weight("b", bias, -11, "i32")], "y__sum", [2, 2])
    out = Oracle(n.model(n.quantized(n.op("Relu", [y], "y__float"), "y", -3, "u8"))).run({"x": x})
    q = quantized_input(x, -4, -128, 127)
    assert ints(out["a__q"]) == [[[q[0:3], q[3:6], q[6:9]]]]
    expected = [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    for o in range(2):
        for i in range(2):
            for j in range(2):
                total = bias[o] + sum(weights[o][0][k][m] * q[3 * (i + k) + j + m] for k in range(2) for m in range(2))
                expected[o][i][j] = half_even(Fraction(max(total, 0), 2**8), 0, 255)  # 2^-11 -> 2^-3
    assert ints(out["y__q"]) == [expected]
    assert any(v for plane in expected for row in plane for v in row)
    assert list(out) == ["a__q", "y__q", "y"]
    assert ints(out["y"]) == [expected]
    assert out["y"].exponent == -3


def test_residual_add_with_ties(net):
    x = np.arange(-8, 8, dtype=np.float32).reshape(1, 16) / 4
    n = net(["n", 16])
    a = n.quantized("x", "a", -2, "i8")
    b = n.quantized(a, "b", -1, "i16")
    out = Oracle(n.model(n.quantized(n.op("Add", [a, b], "s"), "y", 0, "i8"))).run({"x": x})
    q = quantized_input(x, -2, -128, 127)
    r = [half_even(Fraction(v, 2), -32768, 32767) for v in q]
    assert ints(out["b__q"]) == [r]
    assert ints(out["y__q"]) == [[half_even(Fraction(v + 2 * w, 4), -128, 127) for v, w in zip(q, r, strict=True)]]


def test_average_pool_relu6(net):
    x = np.linspace(-1, 9, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    n = net(["n", 1, 4, 4])
    a = n.quantized("x", "a", -4, "u8", upper=96)
    n.quantized(n.conv([a, n.weight("r", np.full((1, 1, 4, 4), 255), -12, "u8")], "p", [4, 4]), "y", -4, "u8")
    out = Oracle(n.model("y")).run({"x": x})
    raw = quantized_input(x, -4, 0, 255)
    clipped = [min(v, 96) for v in raw]
    assert np.ravel(ints(out["a__r"])).tolist() == raw
    assert np.ravel(ints(out["a__q"])).tolist() == clipped
    assert ints(out["y__q"]) == [[[[half_even(Fraction(255 * sum(clipped), 2**12), 0, 255)]]]]


def test_layer16_pair_int4(net):
    """`q8(q16(sum q4(w) q8(x)) + q16(b))`: two roundings, not one (L1)."""
    x = np.array([[1.0, -0.5, 0.25, 7.0]], np.float32)
    weights, bias = [[7, -8], [3, 1], [-1, 5], [0, -7]], [1001, -77]
    n = net(["n", 4])
    a = n.quantized("x", "a", -4, "i8")
    n.quantized(n.op("MatMul", [a, n.weight("w", weights, -3, "i4")], "m"), "acc", -5, "i16")
    n.quantized(n.op("Add", ["acc", n.weight("b", bias, -5, "i16")], "s"), "y", 1, "i8")
    out = Oracle(n.model("y")).run({"x": x})
    q = quantized_input(x, -4, -128, 127)
    acc = [half_even(Fraction(sum(w[o] * v for w, v in zip(weights, q, strict=True)), 4), -32768, 32767) for o in range(2)]
    assert ints(out["acc__q"]) == [acc]
    assert ints(out["y__q"]) == [[half_even(Fraction(acc[o] + bias[o], 64), -128, 127) for o in range(2)]]


@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16"])
def test_ties_and_saturation_of_the_input(net, dtype):
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1e30, -1e30, np.inf, -np.inf, 0.0, 1e-40]], np.float32)
    n = net(["n", 12])
    n.quantized("x", "a", 0, dtype)
    info = np.iinfo({"i": "int", "u": "uint"}[dtype[0]] + dtype[1:])
    low, high = info.min, info.max
    expected = [min(max(v, low), high) for v in (0, 2, 2, 0, -2, -2, 10**30, -(10**30), 10**30, -(10**30), 0, 0)]
    assert ints(Oracle(n.model("a")).run({"x": x})["a__q"]) == [expected]


def test_one_element_and_empty_batch(net):
    n = net(["n", 1])
    n.quantized("x", "a", -3, "i8")
    n.quantized(n.op("MatMul", ["a", n.weight("w", [[-128]], -7)], "m"), "y", -3, "i8")
    oracle = Oracle(n.model("y"))
    assert ints(oracle.run({"x": np.array([[1.0]], np.float32)})["y__q"]) == [[-8]]
    assert oracle.run({"x": np.zeros((0, 1), np.float32)})["y__q"].integers.shape == (0, 1)


def test_slices_equal_the_whole_batch(net, monkeypatch):
    n = net(["n", 3])
    n.quantized("x", "a", -3, "i8")
    n.quantized(n.op("MatMul", ["a", n.weight("w", [[5, 1], [-7, 3], [9, 9]], -4)], "m"), "y", -3, "i8")
    oracle = Oracle(n.model("y"))
    x = np.random.default_rng(0).normal(size=(19, 3)).astype(np.float32) * 4
    whole = oracle.run({"x": x})
    monkeypatch.setattr("tqt_onnx.verify.batches.MOST_IMAGES", 8)
    sliced = oracle.run({"x": x})
    assert sliced.keys() == whole.keys()
    assert all(ints(sliced[name]) == ints(whole[name]) for name in whole)


def test_scales_too_far_apart_are_refused(net):
    n = net(["n", 1])
    a = n.quantized("x", "a", -60, "i16")
    b = n.quantized("x", "b", 0, "i16")
    n.quantized(n.op("Add", [a, b], "s"), "y", 0, "i8")
    with pytest.raises(UnsupportedError, match=r"Add 's'.*2\^0 and 2\^-60 meet.*2\^62"):
        Oracle(n.model("y")).run({"x": np.array([[5.0]], np.float32)})


def test_bad_feeds(net):
    n = net(["n", 1])
    n.quantized("x", "a", 0, "i8")
    oracle = Oracle(n.model("a"))
    with pytest.raises(DataError, match="Received: \\['z'\\]"):
        oracle.run({"z": np.zeros((1, 1), np.float32)})
    with pytest.raises(DataError, match="NaN"):
        oracle.run({"x": np.array([[np.nan]], np.float32)})


@pytest.mark.parametrize("scale", [0.3, 0.75])
def test_scale_that_is_no_power_of_two_is_refused(net, scale):
    n = net(["n", 1])
    n.quantized("x", "a", 0, "i8")
    n.constant("a__s", np.float32(scale))
    with pytest.raises(UnsupportedError, match="power of two"):
        Oracle(n.model("a")).run({"x": np.ones((1, 1), np.float32)})


def test_zero_point_is_refused(net):
    n = net(["n", 1])
    n.quantized("x", "a", 0, "u8")
    n.constant("a__zp", np.uint8(128))
    with pytest.raises(UnsupportedError, match="zero point must be the constant 0"):
        Oracle(n.model("a")).run({"x": np.ones((1, 1), np.float32)})
