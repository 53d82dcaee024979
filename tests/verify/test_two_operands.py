"""Operators of two tensors on every pair of integers: oracle = the rule in int64 = onnxruntime, fused or not (L4, L5, L13)."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.kernels.fixed_point import requantize
from tqt_onnx.verify import Oracle, certify, observed_bounds
from tqt_onnx.verify.runtime import Session

RANGE = {"i8": np.arange(-128, 128), "u8": np.arange(256)}
RULES = {"Mul": np.multiply, "Sub": np.subtract, "Add": np.add, "Max": np.maximum, "Min": np.minimum}


def pairs(net, op: str, types: tuple[str, str, str], exponents: tuple[int, int, int]) -> tuple[onnx_ir.Model, dict, dict]:
    """A model of one operator, every pair of integers as its input, and those integers."""
    left, right = np.meshgrid(RANGE[types[0]], RANGE[types[1]], indexing="ij")
    n = net([256, 2, 256])
    n.constant("first", np.int64([0])), n.constant("second", np.int64([1])), n.constant("third", np.int64([2]))
    n.constant("one", np.int64([1]))
    n.op("Slice", ["x", "first", "second", "one"], "l")
    n.op("Slice", ["x", "second", "third", "one"], "r")
    n.op(op, [n.quantized("l", "a", exponents[0], types[0]), n.quantized("r", "b", exponents[1], types[1])], "m")
    model = n.model(n.quantized("m", "y", exponents[2], types[2]))
    x = np.stack([np.ldexp(left.astype(float), exponents[0]), np.ldexp(right.astype(float), exponents[1])], axis=1)
    return model, {"x": x.astype(np.float32)}, {"left": left[:, None], "right": right[:, None]}


@pytest.mark.parametrize(
    ("op", "types", "exponents"),
    [
        ("Mul", ("i8", "i8", "i8"), (-7, -7, -7)),
        ("Mul", ("i8", "i8", "i8"), (-5, -6, -3)),
        ("Mul", ("u8", "u8", "u8"), (-8, -8, -8)),
        ("Mul", ("u8", "u8", "u8"), (-5, -8, -4)),
        ("Mul", ("i8", "u8", "i8"), (-4, -8, -3)),
        ("Mul", ("i8", "i8", "u8"), (0, 0, 6)),
        ("Mul", ("u8", "u8", "u8"), (-40, -60, -92)),
        ("Sub", ("i8", "i8", "i8"), (-5, -5, -4)),
        ("Sub", ("u8", "u8", "i8"), (-5, -5, -3)),
        ("Add", ("u8", "u8", "u8"), (-5, -5, -4)),
        ("Max", ("i8", "i8", "i8"), (-5, -5, -5)),
        ("Min", ("u8", "u8", "u8"), (-5, -5, -5)),
    ],
)
def test_every_pair_of_integers(net, op, types, exponents):
    """Every tie among them; onnxruntime fuses Mul to QLinearMul."""
    model, feeds, integers = pairs(net, op, types, exponents)
    exact = RULES[op](integers["left"].astype(np.int64), integers["right"].astype(np.int64))
    scale = exponents[0] + exponents[1] if op == "Mul" else exponents[0]
    expected = requantize(exact, scale, exponents[2], 8, types[2] == "i8")
    assert np.array_equal(Oracle(model).run(feeds)["y__q"].integers, expected)
    real = np.ldexp(expected.astype(np.float64), exponents[2])
    for optimize in (False, True):
        session = Session(model, optimize=optimize, count_operators=optimize)
        assert np.array_equal(session.run(feeds)["y"], real)
        assert session.operators["QLinearMul"] == (optimize and op == "Mul")


@pytest.mark.parametrize(
    ("op", "types", "bound"),
    [
        ("Mul", ("i8", "i8"), 128 * 128),
        ("Mul", ("u8", "u8"), 255 * 255),
        ("Mul", ("i8", "u8"), 128 * 255),
        ("Sub", ("i8", "i8"), 255),
        ("Sub", ("u8", "u8"), 255),
        ("Sub", ("i8", "u8"), 383),
        ("Add", ("u8", "u8"), 510),
    ],
)
def test_the_certificate_lists_what_adds_and_multiplies(net, op, types, bound):
    model, feeds, _ = pairs(net, op, (*types, "i8"), (-5, -5, -5))
    (certificate,) = certify(model)
    assert (certificate.op_type, certificate.bound, certificate.certified) == (op, bound, True)
    assert observed_bounds(model, feeds)["m"] >= bound


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_what_selects_needs_no_certificate(net, op):
    model, _, _ = pairs(net, op, ("i8", "i8", "i8"), (-5, -5, -5))
    assert certify(model) == []


def test_factors_are_broadcast(net):
    """[N,C,H,W] by [N,C,1,1], as in squeeze and excite."""
    n = net([2, 3, 2, 2])
    a = n.quantized("x", "a", 0, "i8")
    n.constant("axes", np.int64([2, 3]))
    n.op("GlobalMaxPool", ["x"], "pooled")
    n.op("Mul", [a, n.quantized("pooled", "g", 0, "i8")], "m")
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 12
    found = Oracle(n.model(n.quantized("m", "y", 0, "i8"))).run({"x": x})["y__q"].integers
    assert np.array_equal(found, np.clip(x * x.max(axis=(2, 3), keepdims=True), -128, 127))
