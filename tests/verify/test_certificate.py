"""The certificate: bounds by hand, and what float32 really does beyond them (X1, X2)."""

from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.verify import Oracle, certify, check_engines, observed_bounds, run_optimized, run_tapped

LIMIT = 1 << 24


def dense(net, x_type, weights, bias=None, upper=None, w_type="i8", e_y=0, y_type="i8"):
    n = net(["n", len(weights)])
    inputs = [n.quantized("x", "a", 0, x_type, upper), n.weight("w", weights, 0, w_type)]
    if bias is not None:
        inputs.append(n.weight("b", bias, 0, "i32"))
    n.quantized(n.op("Gemm" if bias is not None else "MatMul", inputs, "m"), "y", e_y, y_type)
    return n.model("y")


@pytest.mark.parametrize(
    ("x_type", "upper", "bias", "expected"),
    [
        ("u8", None, None, (255 * 7, 255 * 128)),
        ("u8", 96, None, (96 * 7, 96 * 128)),
        ("u8", None, [-100, 5], (100 + 255 * 7, 5 + 255 * 128)),
        ("i8", None, None, (128 * 7 + 127 * 5, 128 * 128 + 3 * 127)),
        ("i16", None, None, (32768 * 7 + 32767 * 5, 32768 * 128 + 3 * 32767)),
    ],
)
def test_bounds_by_hand(net, x_type, upper, bias, expected):
    (certificate,) = certify(dense(net, x_type, [[4, -128], [-5, 3], [3, 0]], bias, upper))
    assert certificate.channel_bounds == expected
    assert certificate.bound == max(expected)
    assert certificate.accumulator_bits == max(expected).bit_length() + 1
    assert certificate.certified
    assert (certificate.node, certificate.output, certificate.op_type) == ("m", "m", "MatMul" if bias is None else "Gemm")


@pytest.mark.parametrize("bias", [[[1, 2], [3, 4]], [[1], [2]], [[1], [2], [3]]])
def test_a_bias_that_is_not_one_number_per_channel_is_not_certified(net, bias):
    """One row per image: ONNX allows it; as many images as channels must not make it look like a bias."""
    n = net([len(bias), 3])
    inputs = [n.quantized("x", "a", 0, "i8"), n.weight("w", [[4, -128], [-5, 3], [3, 0]], 0), n.weight("b", bias, 0, "i32")]
    n.quantized(n.op("Gemm", inputs, "m"), "y", 4, "i8")
    model = n.model("y")
    (certificate,) = certify(model)
    assert (certificate.certified, certificate.bound, certificate.channel_bounds) == (False, None, ())
    assert "its bias is not one number per output channel" in certificate.reason
    result = check_engines(model, [{"x": np.arange(3.0 * len(bias), dtype=np.float32).reshape(-1, 3)}])
    assert result.differences == result.not_certified == ()


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "expected"),
    [
        ([1, 2, 4], 2, 1, 5),  # even taps meet, odd ones meet: 1 + 4 or 2
        ([1, 2, 4], 3, 1, 4),  # none meet
        ([1, 2, 4], 1, 1, 7),
        ([1, 2, 4], 2, 2, 7),  # dilated, all are even
        ([1, 2, 4], 3, 2, 4),
        ([1, -2, 4, -8, 16], 2, 1, 21),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_taps_of_a_transposed_convolution_meet_by_phase(net, kernel, strides, dilations, expected, axis):
    """Bounds by hand, and an input that reaches them: no tighter bound holds."""
    n = net(["n", 2, 5, 5])
    weights = np.zeros((2, 1, len(kernel), 1), np.int64)
    weights[:, 0, :, 0] = [kernel, np.abs(kernel)]
    attributes = {"strides": [strides, 1], "dilations": [dilations, 1]}
    if axis:
        weights = np.ascontiguousarray(np.swapaxes(weights, 2, 3))
        attributes = {name: pair[::-1] for name, pair in attributes.items()}
    inputs = [n.quantized("x", "a", 0, "u8"), n.weight("w", weights, 0), n.weight("b", [-3], 0, "i32")]
    n.quantized(n.op("ConvTranspose", inputs, "c", **attributes), "y", 4, "i8")
    model = n.model("y")
    positive = np.maximum(np.array([kernel, np.abs(kernel)]), 0).sum(axis=0)
    largest = max(positive[np.arange(len(kernel)) * dilations % strides == phase].sum() for phase in range(strides))
    assert largest >= expected
    (certificate,) = certify(model)
    assert certificate.channel_bounds == (3 + 255 * largest,)
    assert certificate.certified
    assert observed_bounds(model, {"x": np.full((1, 2, 5, 5), 255, np.float32)})["c"] >= 3 + 255 * expected


def test_groups_of_a_transposed_convolution_are_bounded_apart(net):
    n = net(["n", 4, 2, 2])
    weights = np.array([[1, -2], [3, 4], [5, 6], [7, -8]]).reshape(4, 2, 1, 1)
    n.quantized(n.op("ConvTranspose", [n.quantized("x", "a", 0, "u8"), n.weight("w", weights, 0)], "c", group=2), "y", 4, "i8")
    (certificate,) = certify(n.model("y"))
    assert certificate.channel_bounds == (255 * 4, 255 * 4, 255 * 12, 255 * 8)


@pytest.mark.parametrize("bias", [5, [5], [[5]], [5, 5], [[5, 5]]])
def test_every_shape_of_a_bias_per_channel_is_certified(net, bias):
    (certificate,) = certify(dense(net, "u8", [[4, -128], [-5, 3], [3, 0]], bias))
    assert certificate.channel_bounds == (5 + 255 * 7, 5 + 255 * 128)


def test_bounds_of_a_conv_an_add_and_what_follows_relu(net):
    n = net(["n", 2, 3, 3])
    a = n.quantized("x", "a", -4, "i8")
    weights = np.array([[[[1, -2]], [[3, 4]]], [[[0, 0]], [[0, -9]]]])
    y = n.conv([a, n.weight("w", weights, -7), n.weight("b", [7, -7], -11, "i32")], "c", [1, 2])
    y = n.quantized(n.op("Relu", [y], "r"), "y", -5, "i8")
    z = n.quantized("x", "z", -6, "i8")
    n.op("Add", [y, z], "s")
    conv, add = certify(n.model("s"))
    assert conv.channel_bounds == (7 + 128 * 8 + 127 * 2, 7 + 128 * 9)  # all of one sign at -128
    highest = round((7 + 127 * 8 + 128 * 2) / 64)  # of y, which is never negative
    assert add.bound == 2 * highest + 127


@pytest.mark.parametrize("x_type", ["i8", "u8"])
def test_the_bound_is_reached_and_never_passed(net, x_type):
    rng = np.random.default_rng(7)
    weights = rng.integers(-128, 128, (30, 5))
    model = dense(net, x_type, weights)
    low, high = (-128, 127) if x_type == "i8" else (0, 255)
    (certificate,) = certify(model)
    extremes = [np.where(weights > 0, *ends) for ends in ((high, low), (low, high))]  # per channel: x that drives it up, or down
    sums = [Oracle(model).run({"x": x.T.astype(np.float32)}, keep=["m"])["m"].integers.diagonal() for x in extremes]
    assert certificate.channel_bounds == tuple(np.abs(sums).max(axis=0).tolist())
    x = rng.integers(low, high + 1, (200, 30)).astype(np.float32)
    assert np.abs(np.cumsum(x[:, :, None] * weights, axis=1)).max() <= certificate.bound


def test_observed_bound_is_the_layer_on_absolute_values(net):
    model = dense(net, "i8", [[4, -128], [-5, 3], [3, 0]], [-10, 20])
    x = np.array([[1, -2, 3], [0, 1, 0]], np.float32)
    assert observed_bounds(model, {"x": x}) == {"m": 20 + 128 + 6}


def test_one_step_beyond_is_not_certified(net):
    exactly = [[LIMIT // 4096 // 2]] * 2
    certificates = [certify(dense(net, "u16", exactly, [b], upper=4096, w_type="i16"))[0] for b in (0, 1, -1)]
    assert [c.bound for c in certificates] == [LIMIT, LIMIT + 1, LIMIT + 1]
    assert [c.certified for c in certificates] == [True, False, False]
    assert "channel 0 can reach 16777217, beyond 2^24" in certificates[1].reason


def test_scale_outside_float32_is_not_certified(net):
    n = net(["n", 1])
    n.op("MatMul", [n.quantized("x", "a", -60, "i8"), n.weight("w", [[1]], -60)], "m")
    (certificate,) = certify(n.model("m"))
    assert not certificate.certified
    assert "2^-120" in certificate.reason


def test_sum_33161217_shift_18(net):
    """Integer kernels turn their sum into float32 before they scale it: exact 127, float32 126 (X1)."""
    total, taps = 33161217, 1024
    weights = np.full((taps, 1), 127)
    x = np.full((1, taps), 255, np.float32)
    bias = total - 127 * 255 * taps
    model = dense(net, "u8", weights, [bias], e_y=18)
    out = Oracle(model).run({"x": x})
    assert out["y__q"].integers.tolist() == [[127]]
    assert np.rint(np.float32(total) / np.float32(2**18)) == 126
    (certificate,) = certify(model)
    assert not certificate.certified
    assert certificate.bound == abs(bias) + 127 * 255 * taps
    assert run_tapped(model, {"x": x}, ["y__q"])["y__q"].tolist() == [[126]]
    assert (run_optimized(model, {"x": x})["y"] / 2**18).tolist() == [[126.0]]
    result = check_engines(model, [{"x": x}])
    assert result.differences == ()
    assert result.nothing_certified
    assert not (result.ok or result.exact or result.certified)
    assert {(d.engine, d.tensor, d.expected, d.received) for d in result.not_certified} == {
        ("ort", "y__q", 127, 126),  # y itself is y__q of the engine, dequantized: exact
        ("ort-optimized", "y", 127, 126),
    }


@pytest.mark.parametrize(
    ("x_type", "bias", "wraps"), [("u8", None, True), ("u8", [1], True), ("i16", [1], True), ("i16", None, False)]
)
def test_what_does_not_fit_int32_is_said_where_integer_kernels_exist(net, x_type, bias, wraps):
    taps = {"u8": (1 << 31) // (255 * 127) + 1, "i16": (1 << 31) // (32768 * 127) + 1}[x_type]
    (beyond,) = certify(dense(net, x_type, np.full((taps, 1), 127), bias))
    assert beyond.bound >= 1 << 31
    assert not beyond.certified
    assert ("do not fit int32" in beyond.reason) is wraps
    (within,) = certify(dense(net, x_type, np.full((taps - 2, 1), 127), bias))
    assert LIMIT < within.bound < 1 << 31
    assert "int32" not in within.reason


def test_a_softmax_behind_an_uncertified_layer_is_promised_where_integers_are_given(net):
    taps = 4096
    rng = np.random.default_rng(0)
    n = net(["n", taps])
    weights = rng.integers(-(2**15), 2**15, (taps, 8))
    n.quantized(n.op("MatMul", [n.quantized("x", "a", 0, "i16"), n.weight("w", weights, 0, "i16")], "m"), "y", 12, "i16")
    logits = n.op("DequantizeLinear", ["y__q", *n.grid("logits", -12, "i16")], "logits")
    x = rng.integers(-300, 300, (64, taps)).astype(np.float32)
    result = check_engines(n.model(n.op("Softmax", [logits], "p")), [{"x": x}])
    assert {(f.engine, f.tensor, f.promised, f.ok) for f in result.floats} == {
        ("ort", "p", True, True),
        ("ort-optimized", "p", False, False),
    }
    assert result.nothing_certified
    assert not result.ok


def leaky(net, alpha, e_alpha):
    """`max(x, q16(a x))` of every 16-bit x."""
    n = net(["n", 1])
    x = n.quantized("x", "c", 0, "i16")
    scaled = n.quantized(n.op("Mul", [x, n.weight("alpha", alpha, e_alpha, "i16")], "scaled__float"), "scaled", 0, "i16")
    return n.model(n.quantized(n.op("Max", [x, scaled], "y__float"), "y", 0, "i16"))


EVERY_X = np.arange(-(1 << 15), 1 << 15, dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize(
    ("alpha", "e_alpha", "bound"), [(410, -12, 410 << 15), (511, -10, 511 << 15), (-512, -9, 1 << 24), (341, -10, 341 << 15)]
)
def test_ten_bits_of_slope_are_exact_for_every_x(net, alpha, e_alpha, bound):
    """L3: `|a_q| <= 2^9`."""
    model = leaky(net, alpha, e_alpha)
    (certificate,) = certify(model)
    assert (certificate.op_type, certificate.bound, certificate.certified) == ("Mul", bound, True)
    result = check_engines(model, [{"x": EVERY_X}])
    assert result.ok and result.differences == () and result.not_certified == ()
    exact = EVERY_X.astype(np.int64) * alpha
    scaled = np.clip(np.rint(np.ldexp(exact.astype(np.float64), e_alpha)), -(1 << 15), (1 << 15) - 1)
    assert np.array_equal(Oracle(model).run({"x": EVERY_X})["y__q"].integers, np.maximum(EVERY_X, scaled))


@pytest.mark.parametrize("alpha", [26214, 19661])  # 0.2 and 0.3 with 16 bits
def test_sixteen_bits_of_slope_are_not(net, alpha):
    model = leaky(net, alpha, -17 if alpha == 26214 else -16)
    (certificate,) = certify(model)
    assert not certificate.certified
    assert f"products can reach {alpha << 15}" in certificate.reason
    result = check_engines(model, [{"x": EVERY_X}])
    assert result.differences == ()
    (wrong,) = (difference for difference in result.not_certified if difference.tensor == "scaled__q")
    assert wrong.engine == "ort" and 0 < wrong.count < 100  # float32 rounds the product, then the requantization once more


def test_a_scale_of_products_outside_float32_is_not_certified(net):
    n = net(["n", 1])
    n.op("Mul", [n.quantized("x", "a", -60, "i8"), n.weight("w", [1], -60)], "m")
    (certificate,) = certify(n.model("m"))
    assert not certificate.certified and "products have the scale 2^-120" in certificate.reason


def test_adversarial_int16_layer_is_named(net):
    taps = 4096
    rng = np.random.default_rng(0)
    weights = rng.integers(-(2**15), 2**15, (taps, 8))
    n = net(["n", taps])
    a = n.quantized("x", "a", 0, "i16")
    y = n.quantized(n.op("MatMul", [a, n.weight("w", weights, 0, "i16")], "wide"), "y", 9, "i16")
    z = n.quantized(n.op("MatMul", [y, n.weight("v", np.ones((8, 1), int), 0)], "narrow"), "z", 3, "i16")
    model = n.model(z)
    x = rng.integers(-300, 300, (16, taps)).astype(np.float32)
    wide, narrow = certify(model)
    assert not wide.certified
    assert narrow.certified
    result = check_engines(model, [{"x": x}])
    assert result.differences == ()
    assert {(d.engine, d.tensor) for d in result.not_certified} <= {("ort", "y__q"), ("ort-optimized", "z")}
    assert any(d.tensor == "y__q" and d.count > 1 for d in result.not_certified)
    assert result.ok  # z: certified itself, compared on the y__q of each engine
    assert result.layers_not_compared == ()
    exact = (x.astype(np.int64) @ weights) / 2**9
    assert np.array_equal(Oracle(model).run({"x": x})["y__q"].integers, np.clip(np.rint(exact), -(2**15), 2**15 - 1))


@pytest.mark.parametrize(
    ("op", "a", "b", "y"), [("Add", 60, 60, -80), ("Add", -80, -80, 60), ("Mul", 50, 50, -28), ("Mul", -50, -50, 30)]
)
def test_a_ratio_of_scales_outside_float32_is_not_certified(net, op, a, b, y):
    """onnxruntime's integer kernels multiply by the ratio: infinite or zero, it gives other integers."""
    n = net(["n", 64])
    x, other = n.quantized("x", "a", a, "i8"), n.weight("b", np.arange(-32, 32), b)
    n.quantized(n.op("Relu", [n.op(op, [x, other], "s")], "r"), "y", y, "i8")
    (certificate,) = certify(n.model("y"))
    assert not certificate.certified and "requantized by 2^" in certificate.reason


def test_a_ratio_at_the_end_of_the_range_is_certified_and_exact(net):
    rng = np.random.default_rng(0)
    for y in (-43, 100):
        n = net(["n", 64])
        x, other = n.quantized("x", "a", 60, "i8"), n.weight("b", rng.integers(-128, 128, 64), 60)
        n.quantized(n.op("Add", [x, other], "s"), "y", y, "i8")
        model = n.model("y")
        assert certify(model)[0].certified
        assert check_engines(model, [{"x": np.ldexp(rng.integers(-128, 128, (4, 64)).astype(np.float32), 60)}]).ok


@pytest.mark.parametrize(("op", "low"), [("Mul", 3), ("Mul", 0), ("Add", 3)])
def test_chains_that_double_their_digits_end_unbounded(net, op, low):
    """Squares of squares, and their scales (a chain of zeros and ones has but those), are not followed without end."""
    n = net(["n", 4])
    value = n.quantized("x", "a", -4, "u8", upper=None if low else 1)
    for index in range(5000):
        value = n.op(op, [value, value], f"m{index}")
    certificates = certify(n.model(value))
    assert len(certificates) == 5000 and not certificates[-1].certified
    assert max(len(certificate.reason) for certificate in certificates) < 500
    assert "not bounded" in certificates[-1].reason
