"""Operators against the ONNX reference, over random shapes; float64 BLAS against int64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tqt_onnx.ir import DataError, ModelError, UnsupportedError
from tqt_onnx.verify import ROUNDINGS, FixedPoint, Oracle, Session
from tqt_onnx.verify.intervals import Intervals
from tqt_onnx.verify.oracle_ops import objection, products
from tqt_onnx.verify.oracle_ops.conv import convolve
from tqt_onnx.verify.oracle_ops.conv_transpose import spread
from tqt_onnx.verify.oracle_ops.dense import product
from tqt_onnx.verify.plan import make_plan


def reference(op, arrays, **attributes):
    names = [f"i{index}" for index in range(len(arrays))]
    return ReferenceEvaluator(helper.make_node(op, names, ["y"], **attributes)).run(None, dict(zip(names, arrays, strict=True)))[0]


AXIS = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2))
GROUPS = st.sampled_from([(1, 1, 1), (1, 3, 2), (2, 1, 1), (3, 1, 2), (2, 2, 3)])


@settings(max_examples=60)
@given(st.integers(1, 2), GROUPS, st.lists(AXIS, min_size=1, max_size=2), st.integers(0, 2**32 - 1))
def test_conv_is_the_reference_conv(images, channels, axes, seed):
    group, depth, multiplier = channels
    rng = np.random.default_rng(seed)
    kernel, strides, dilations = ([axis[k] for axis in axes] for k in range(3))
    pads = [axis[3] for axis in axes] + [axis[4] for axis in axes]
    x = rng.integers(-128, 128, (images, group * depth, *rng.integers(5, 8, len(axes))))
    w = rng.integers(-128, 128, (group * multiplier, depth, *kernel))
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    ours = convolve(x, w, **attributes)
    theirs = reference("Conv", [x.astype(float), w.astype(float)], kernel_shape=kernel, **attributes)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, theirs)


@settings(max_examples=60)
@given(st.integers(0, 2), GROUPS, st.lists(AXIS, min_size=1, max_size=2), st.integers(0, 2**32 - 1))
def test_a_transposed_convolution_is_the_gradient_of_the_convolution(images, channels, axes, seed):
    """`sum y * conv(x) = sum conv_transpose(y) * x` for every x: each element of the result, by x = one at its place."""
    group, depth, multiplier = channels
    rng = np.random.default_rng(seed)
    kernel, strides, dilations = ([axis[k] for axis in axes] for k in range(3))
    pads = [axis[3] for axis in axes] + [axis[4] for axis in axes]
    beyond = [int(rng.integers(0, stride)) for stride in strides]
    y = rng.integers(-128, 128, (images, group * multiplier, *rng.integers(5, 7, len(axes))))
    w = rng.integers(-128, 128, (group * multiplier, depth, *kernel))
    got = spread(y, w, strides=strides, dilations=dilations, pads=pads, beyond=beyond, group=group)
    sizes = got.shape[1:]
    ones = np.eye(int(np.prod(sizes)), dtype=np.int64).reshape(-1, *sizes)
    forward = convolve(ones, w, strides=strides, dilations=dilations, pads=pads, group=group).reshape(len(ones), -1)
    assert np.array_equal(got.reshape(images, len(ones)), y.reshape(images, forward.shape[1]) @ forward.T)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((4, 3), {"strides": [2, 3]}),
        ((1, 1), {"strides": [3, 3], "pads": [1, 0, 0, 1]}),
        ((3, 5), {"strides": [3, 2], "output_padding": [2, 1], "pads": [1, 0, 0, 0]}),
        ((3, 3), {"strides": [2, 1], "dilations": [2, 3]}),
    ],
)
def test_a_transposed_convolution_is_the_reference(net, size, options):  # which knows no groups
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (2, 4, *size)).astype(np.float32)
    w = rng.integers(-128, 128, (4, 3, 3, 2))
    n = net(["n", 4, *size])
    operands = [n.quantized("x", "a", 0, "i8"), n.weight("w", w, -2), n.weight("b", np.arange(3), -2, "i32")]
    n.quantized(n.op("ConvTranspose", operands, "c", **options), "y", 6, "i8")
    model = n.model("y", "c")
    got = Oracle(model).run({"x": x})["c"]
    expected = reference("ConvTranspose", [x.astype(float), np.ldexp(w.astype(float), -2), np.ldexp(np.arange(3.0), -2)], **options)
    assert np.array_equal(got.real(), expected)


@pytest.mark.parametrize("group", [1, 4])
def test_float64_and_int64_convolutions_are_equal(group):
    rng = np.random.default_rng(1)
    x, w = rng.integers(-(2**15), 2**15, (2, 8, 7, 7)), rng.integers(-(2**15), 2**15, (8, 8 // group, 3, 3))
    options = {"strides": [1, 2], "dilations": [1, 1], "pads": [1, 0, 1, 2], "group": group}
    assert np.array_equal(convolve(x, w, **options, dtype=np.float64), convolve(x, w, **options, dtype=np.int64))


def test_beyond_2_53_it_is_int64_and_beyond_2_62_it_is_refused():
    a, b = np.array([[2**30 + 1, 1]]), np.array([[2**30 + 1], [-1]])
    assert product(a, b).tolist() == [[(2**30 + 1) ** 2 - 1]]  # float64 would lose the last bits
    assert products.exact_dtype(2**53 - 1, "") is np.float64
    assert products.exact_dtype(2**53, "") is np.int64
    with pytest.raises(UnsupportedError, match="2\\^62"):
        product(a * 4, b)


def test_max_pool_is_the_reference(net):
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (2, 3, 7, 6)).astype(np.float32)
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    n = net(["n", 3, 7, 6])
    a = n.quantized("x", "a", 0, "i8")
    n.quantized(n.op("MaxPool", [a], "p", **attributes), "y", 0, "i8")
    out = Oracle(n.model("y")).run({"x": x})
    assert np.array_equal(out["y__q"].integers, reference("MaxPool", [x.astype(float)], **attributes))


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Reshape", [np.array([0, -1])], {}),
        ("Flatten", [], {"axis": 2}),
        ("Flatten", [], {"axis": -1}),
        ("Squeeze", [np.array([3])], {}),
        ("Unsqueeze", [np.array([1, -1])], {}),
        ("Pad", [np.array([0, 0, 1, 2, 0, 0, 0, 1])], {}),
        ("Pad", [np.array([1, 2]), np.int8(0).astype(np.float32), np.array([-2])], {}),
        ("Slice", [np.array([1]), np.array([2**63 - 1])], {}),  # of the batch
        ("Slice", [np.array([-1, 9]), np.array([-(2**63), 0]), np.array([1, -2]), np.array([-1, -3])], {}),
        ("Slice", [np.array([-9, 1], np.int32), np.array([2, 9], np.int32), np.array([2, 1], np.int32)], {}),
        ("Slice", [np.array([3]), np.array([1]), np.array([2])], {}),  # nothing is left
        ("Gather", [np.array([2, -1, 2])], {"axis": 2}),
        ("Gather", [np.array(-1)], {}),  # of the batch, which goes
        ("Gather", [np.array([[0, 3], [1, -4]])], {"axis": -2}),
        ("SpaceToDepth", [], {"blocksize": 1}),
        ("Identity", [], {}),
        ("Relu", [], {}),
        ("Clip", [np.float32(-3), np.float32(2.5)], {}),
    ],
)
def test_operators_that_move_or_limit(net, op, constants, attributes):
    x = np.arange(-10, 14, dtype=np.float32).reshape(2, 3, 4, 1)
    n = net(["n", 3, 4, 1])
    a = n.quantized("x", "a", 0, "i8")
    names = [n.constant(f"c{index}", array) for index, array in enumerate(constants)]
    out = Oracle(n.model(n.op(op, [a, *names], "y", **attributes))).run({"x": x})["y"]
    assert isinstance(out, FixedPoint)
    expected = reference(op, [x.astype(float), *(c.astype(float) if c.dtype.kind == "f" else c for c in constants)], **attributes)
    assert np.array_equal(out.real(), expected)


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("SpaceToDepth", (2, 3, 4, 6), {"blocksize": 2}),
        ("DepthToSpace", (2, 12, 3, 2), {"blocksize": 2, "mode": "DCR"}),
        ("DepthToSpace", (1, 18, 2, 1), {"blocksize": 3, "mode": "CRD"}),
        ("DepthToSpace", (0, 4, 2, 1), {"blocksize": 2}),
    ],
)
def test_blocks_of_an_image(net, op, shape, attributes):
    x = np.random.default_rng(2).integers(-128, 128, shape).astype(np.float32)
    n = net(["n", *shape[1:]])
    out = Oracle(n.model(n.op(op, [n.quantized("x", "a", 0, "i8")], "y", **attributes))).run({"x": x})["y"]
    assert np.array_equal(out.real(), reference(op, [x.astype(float)], **attributes))


def test_products_and_extremes(net):
    """Operands of unlike shapes and scales meet exactly: products in the sum of the exponents, extremes on the finer grid."""
    x = np.array([[1.25, -3.0], [-32.0, 31.75]], np.float32)
    n = net(["n", 2])
    a, b, c = n.quantized("x", "a", -2, "i8"), n.weight("b", [[-5], [512]], -3, "i16"), n.weight("c", 7, 0)
    names = [n.op(op, [*inputs], op) for op, inputs in (("Mul", [a, b]), ("Max", [a, c, b]), ("Min", [b, a]))]
    out = Oracle(n.model(*names)).run({"x": x})
    b_real = np.array([[-5], [512]]) / 8
    assert [out[name].exponent for name in names] == [-5, -3, -3]
    assert np.array_equal(out["Mul"].real(), x * b_real)
    assert np.array_equal(out["Max"].real(), np.maximum(np.maximum(x, 7), b_real))
    assert np.array_equal(out["Min"].real(), np.minimum(x, b_real))


def test_a_product_beyond_2_62_is_refused(net):
    n = net(["n", 1])
    a = n.quantized("x", "a", 0, "i16")
    for index in range(4):
        a = n.op("Mul", [a, a if index else n.weight("w", [1 << 14], 0, "i16")], f"m{index}")
    with pytest.raises(UnsupportedError, match="2\\^62"):
        Oracle(n.model(a)).run({"x": np.full((1, 1), 30000, np.float32)})


@given(st.integers(-(2**40), 2**40), st.integers(-3, 44), st.integers(2, 16), st.booleans())
def test_half_up_is_floor_of_x_plus_one_half(value, shift, bits, signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    expected = min(max(math.floor(Fraction(value) / Fraction(2) ** shift + Fraction(1, 2)), low), high)
    assert ROUNDINGS["half_up"](np.array([value]), 0, shift, bits, signed).tolist() == [expected]


def test_negative_pads_crop(net):
    n = net(["n", 4])
    n.op("Pad", [n.quantized("x", "a", 0, "i8"), n.constant("p", np.array([0, -1, 0, 2]))], "y")
    out = Oracle(n.model("y")).run({"x": np.array([[1, 2, 3, 4]], np.float32)})
    assert out["y"].integers.tolist() == [[2, 3, 4, 0, 0]]


def test_concat_meets_on_the_finer_grid(net):
    n = net(["n", 2])
    a, b = n.quantized("x", "a", 0, "i8"), n.quantized("x", "b", -2, "i8")
    out = Oracle(n.model(n.op("Concat", [a, b], "y", axis=1))).run({"x": np.array([[1.25, -3.0]], np.float32)})["y"]
    assert (out.exponent, out.integers.tolist()) == (-2, [[4, -12, 5, -12]])


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [("Slice", [np.array([60]), np.array([70])], {}), ("Slice", [[1], [3], [-2]], {}), ("Gather", [[69, 0, 65]], {"axis": 0})],
)
def test_the_batch_is_sliced_as_a_whole(net, op, constants, attributes):
    """More images than are computed at once."""
    x = np.arange(140, dtype=np.float32).reshape(70, 2) - 64
    n = net(["n", 2])
    names = [n.constant(f"c{index}", np.array(array, np.int64)) for index, array in enumerate(constants)]
    out = Oracle(n.model(n.op(op, [n.quantized("x", "a", 0, "i8"), *names], "y", **attributes))).run({"x": x})["y"]
    arrays = [np.array(array, np.int64) for array in constants]
    assert np.array_equal(out.real(), reference(op, [x.astype(float), *arrays], **attributes))


EDGES = [-(2**63), -7, -6, -5, -4, -1, 0, 1, 4, 5, 6, 2**63 - 1]


@pytest.mark.parametrize("step", [-(2**31), -3, -2, -1, 1, 2, 7])
def test_slices_are_clamped_as_onnxruntime_clamps_them(net, step):
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    ends = EDGES if step > 0 else EDGES[:-1]  # backwards to 2^63 - 1 is nothing by the standard, everything in onnxruntime
    for start in EDGES:
        for end in ends:
            n = net(["n", 5])
            constants = [
                n.constant(name, np.int64([number]))
                for name, number in zip(("start", "end", "axis", "step"), (start, end, 1, step), strict=True)
            ]
            n.op("Slice", [n.quantized("x", "a", 0, "i8"), *constants], "y")
            model = n.model("y")
            assert np.array_equal(Oracle(model).run({"x": x})["y"].real(), Session(model).run({"x": x})["y"]), (start, end)


@pytest.mark.parametrize(("op", "times"), [("Tile", np.int64([1, 1, 2**20, 2**20])), ("Resize", np.float32([1, 1, 2**20, 2**20]))])
def test_what_memory_would_not_hold_is_refused_by_name(net, op, times):
    n = net(["n", 1, "h", "w"])
    given = [n.constant("times", times)]
    options = {} if op == "Tile" else {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    n.op(op, [n.quantized("x", "a", 0, "i8"), *([] if op == "Tile" else [""]), *given], "big", **options)
    with pytest.raises(UnsupportedError, match=f"{op} 'big'.*elements is expected. Received: "):
        Oracle(n.model("big")).run({"x": np.zeros((1, 1, 2, 2), np.float32)})


def test_a_position_beyond_the_end_is_refused(net):
    n = net(["n", 2])
    n.op("Gather", [n.quantized("x", "a", 0, "i8"), n.constant("i", np.array([2]))], "y", axis=1)
    with pytest.raises(ModelError, match="'y': index 2 is out of bounds"):
        Oracle(n.model("y")).run({"x": np.ones((1, 2), np.float32)})


def test_gemm_with_transposes(net):
    n = net(["n", 2])
    a = n.quantized("x", "a", 0, "i8")
    n.op("Gemm", [a, n.weight("w", [[1, 2], [3, 4], [5, 6]], -1), n.weight("b", [1, -1, 100], -1, "i32")], "y", transB=1)
    out = Oracle(n.model("y")).run({"x": np.array([[10.0, -1.0]], np.float32)})["y"]
    assert out.integers.tolist() == [[10 - 2 + 1, 30 - 4 - 1, 50 - 6 + 100]]


def test_a_gemm_may_add_a_row_for_each_image(net):
    n = net([2, 2])
    a = n.quantized("x", "a", 0, "i8")
    n.op("Gemm", [a, n.weight("w", [[1, 2, 3], [4, 5, 6]], 0), n.weight("b", [[1, 2, 3], [40, 50, 60]], 0, "i32")], "y")
    oracle = Oracle(n.model("y"))
    assert oracle.run({"x": np.eye(2, dtype=np.float32)})["y"].integers.tolist() == [[2, 4, 6], [44, 55, 66]]
    for images in (1, 3):
        with pytest.raises(DataError, match=r"'y'.*Received: \(2, 3\)"):
            oracle.run({"x": np.ones((images, 2), np.float32)})


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Pad", [np.array([0, 0, 2, 1, 0, 0, 0, 3])], {"mode": "edge"}),
        ("Pad", [np.array([0, 0, 2, 1, 0, 0, 0, 3])], {"mode": "reflect"}),
        ("Pad", [np.array([0, 0, 1, 1, 0, 0, 0, 2]), np.float32(0.3)], {}),
        ("Pad", [np.array([0, 0, 0, 1, 0, 0, 0, 0]), np.float32(-1e6)], {}),
        ("Tile", [np.array([1, 2, 1, 3])], {}),
    ],
)
def test_what_is_repeated_and_what_surrounds(net, images, op, constants, attributes):
    """A number around the input need not be on its grid; the interval holds it."""
    x = np.arange(images * 24).reshape(images, 2, 3, 4).astype(np.float32)[..., ::-1] - 9
    n = net(["n", 2, 3, 4])
    y = n.op(
        op, [n.quantized("x", "a", 0, "i8"), *(n.constant(f"k{i}", array) for i, array in enumerate(constants))], "y", **attributes
    )
    (got,) = Oracle(n.model(y)).run({"x": x}, keep=["y"]).values()
    assert isinstance(got, FixedPoint)
    if images:
        assert np.array_equal(got.real(), reference(op, [x.astype(np.float32), *constants], **attributes).astype(np.float64))
    bounds = Intervals(n.model(y), make_plan(n.model(y))).by_name["y"]
    assert bounds.exponent == got.exponent or "mode" in attributes or op == "Tile"
    ends = np.ldexp(np.array([bounds.low, bounds.high], np.float64), bounds.exponent)
    assert not got.integers.size or (ends[0] <= got.real().min() and got.real().max() <= ends[1])


def test_a_resize_repeats_every_element(net):
    plain = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    n = net(["n", 1, 1, 2])
    y = n.op("Resize", [n.quantized("x", "a", 0, "i8"), "", n.constant("k", np.array([1, 1, 2, 3], np.float32))], "y", **plain)
    (got,) = Oracle(n.model(y)).run({"x": np.array([[[[3.0, -7.0]]]], np.float32)}, keep=["y"]).values()
    assert got.integers.tolist() == [[[[3, 3, 3, -7, -7, -7]] * 2]]
    assert objection(onnx_node("Resize", **plain | {"mode": "linear"})) is not None


def onnx_node(op, **attributes):
    return onnx_ir.serde.deserialize_node(helper.make_node(op, ["x", "", "k"], ["y"], **attributes))
