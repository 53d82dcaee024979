"""Bounds and fillings so small or large that no int64 holds them beside the tensor: what is rounded behind is still exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verify import Oracle, Session

NUMBERS = np.arange(-20, 21).astype(np.float32) / 8
"""On the grid 2^-3, ties of 2^-2 among them."""


def rounded(number, exponent):
    return round(Fraction(number) / Fraction(2) ** exponent)  # Python rounds halves to even


def chain(build, shape, op, constants, exponents=(-2, 0)):
    """x on 2^-3 -> Clip or Pad -> two roundings."""
    model = build(["N", *shape])
    x = model.quantized("x", "a", -3, "i8")
    model.op(op, [x, *(model.constant(name, array) for name, array in constants.items())], "m")
    for exponent in exponents:
        model.quantized("m", f"y{exponent}", exponent, "i8")
    return model.model(*(f"y{exponent}" for exponent in exponents))


@pytest.mark.parametrize(
    "low", [1e-12, -1e-12, 1e-38, 1e-45, 0.125, np.nextafter(np.float32(0.125), np.float32(1)), 1e-30 - 2.0**-100, -1e-38, -1e30]
)
def test_a_lower_bound_is_exact_behind_every_rounding(net, low):
    low = np.float32(low)
    model = chain(net, [41], "Clip", {"low": low})
    found = Oracle(model).run({"x": NUMBERS[None]})
    engine = Session(model, ["y-2__q", "y0__q"]).run({"x": NUMBERS[None]})
    for exponent in (-2, 0):
        expected = [rounded(max(float(number), float(low)), exponent) for number in NUMBERS]
        assert found[f"y{exponent}__q"].integers[0].tolist() == expected
        assert engine[f"y{exponent}__q"][0].tolist() == expected


def test_huge_bounds_saturate(net):
    found = Oracle(chain(net, [41], "Clip", {"low": np.float32(1e30)})).run({"x": NUMBERS[None]})
    assert set(found["y-2__q"].integers.ravel()) == {127}


def test_a_filling_is_rounded_like_the_rest(net):
    filled = {"pads": np.array([0, 1, 0, 1]), "fill": np.float32(-1e-12)}
    found = Oracle(chain(net, [41], "Pad", filled)).run({"x": NUMBERS[None]})
    expected = [0, *(rounded(float(number), -2) for number in NUMBERS), 0]
    assert found["y-2__q"].integers[0].tolist() == expected


def test_what_is_added_up_is_not_rounded_yet_and_refused(net):
    model = net(["N", 41])
    x = model.quantized("x", "a", -3, "i8")
    model.op("Clip", [x, model.constant("low", np.float32(1e-38))], "m")
    model.quantized(model.op("Add", ["m", x], "s"), "y", -2, "i8")
    with pytest.raises(UnsupportedError, match="62"):
        Oracle(model.model("y")).run({"x": NUMBERS[None]})
