"""Tables: what the oracle looks up, what is certified, and every entry in every engine (L12)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tqt_onnx.ir import CURVES
from tqt_onnx.verify import Oracle, Session, certify, check_engines
from tqt_onnx.verify.certificate import TABLE
from tqt_onnx.verify.intervals import Intervals
from tqt_onnx.verify.plan import make_plan

POSITIVE = {"Log", "Sqrt", "Reciprocal"}


def table_net(net, build, exponent=-4, output=(-6, "i8"), source="i8"):
    """`x -> q -> f -> q`."""
    n = net(["n", "m"])
    y = build(n, n.quantized("x", "a", exponent, source))
    n.quantized(y, "y", *output)
    return n.model("y")


def hard_swish(n, x, sixth=None):
    three, zero, six = (n.constant(name, np.float32(value)) for name, value in (("three", 3), ("zero", 0), ("six", 6)))
    y = n.op("Mul", [x, n.op("Clip", [n.op("Add", [x, three], "shifted"), zero, six], "gate")], "product")
    return y if sixth is None else n.op("Mul", [y, n.constant("sixth", np.float32(sixth))], "scaled")


def entries(exponent, source="i8"):
    integers = np.arange(-128, 128) if source == "i8" else np.arange(256)
    return {"x": np.ldexp(integers.astype(np.float32), exponent).reshape(1, -1)}


def claim(certificates):
    """Says of every undecided table that it was run entry by entry."""
    return {certificate.output: ("ort",) for certificate in certificates}


@pytest.mark.parametrize("op_type", sorted(CURVES))
@pytest.mark.parametrize("exponent", [-6, -3, 0])
def test_all_entries_agree_in_onnxruntime_with_and_without_optimizations(net, op_type, exponent):
    """QLinearSigmoid and its like included: certified entries are the same integers, whatever runs them."""
    source = "u8" if op_type in POSITIVE else "i8"
    model = table_net(net, lambda n, x: n.op(op_type, [x], "f"), exponent, source=source)
    (certificate,) = certify(model)
    oracle = Oracle(model)
    assert (certificate.op_type, certificate.output, oracle.islands) == (TABLE, "f", ())
    feeds = entries(exponent, source)
    if op_type in POSITIVE - {"Sqrt"}:
        feeds = {"x": feeds["x"][:, 1:]}
    expected = oracle.run(feeds)["y__q"].integers
    keep = ~np.isin(np.round(np.ldexp(feeds["x"], -exponent)), certificate.undecided)
    assert (Session(model, ["y__q"]).integers(feeds)["y__q"] == expected)[keep].all()
    optimized = np.ldexp(Session(model, optimize=True).run(feeds)["y"], 6)
    assert (optimized == expected)[keep].all() and keep.mean() > 0.8


def test_the_table_is_the_function_in_float64_rounded_once(net):
    model = table_net(net, lambda n, x: n.op("Mul", [x, n.op("Sigmoid", [x], "s")], "f"), -4, (-4, "i8"))
    found = Oracle(model).run(entries(-4))["y__q"].integers[0].tolist()
    exact = [math.ldexp(k, -4) / (1 + math.exp(-math.ldexp(k, -4))) for k in range(-128, 128)]
    assert found == [max(-128, min(127, round(math.ldexp(value, 4)))) for value in exact]
    (certificate,) = certify(model)
    distances = [abs(math.ldexp(value, 4) - math.floor(math.ldexp(value, 4)) - 0.5) for value in exact]
    assert certificate.certified and certificate.margin == pytest.approx(min(distances), rel=1e-9)
    assert 0 < certificate.float_error < certificate.margin


def test_exact_ties_are_certified_where_float32_is_exact(net):
    """x * relu6(x + 3) of 8 bits: products of small integers, rounded to even by every engine."""
    model = table_net(net, hard_swish, -4, (-2, "i8"))
    (certificate,) = certify(model)
    assert certificate.certified and (certificate.margin, certificate.float_error) == (0.0, 0.0)
    assert check_engines(model, [entries(-4)]).exact


@pytest.mark.parametrize("sixth", [None, 1 / 6])
def test_ties_of_hard_swish_are_exact_where_a_sixth_is_meant(net, sixth):
    """The float32 number next to 1/6 is a bit larger: taken at its word it would round no tie to even."""
    model = table_net(net, lambda n, x: hard_swish(n, x, sixth), -4, (-4, "i8"))
    (certificate,) = certify(model)
    assert certificate.certified is (sixth is None)
    result = check_engines(model, [entries(-4)], exhaust=claim)
    assert result.exact
    if sixth is not None:
        assert "-36, -12, 12, 36" in certificate.reason and certificate.margin == 0.0
        assert Oracle(model).run(entries(-4))["y__q"].integers[0, [92, 116, 140, 164]].tolist() == [-4, -4, 8, 32]


def test_entries_that_float32_rounds_otherwise_are_named_and_not_promised(net):
    """Far to the right x * sigmoid(x) is x less a little: half-integers are ties in float32, and none in float64."""
    model = table_net(net, lambda n, x: n.op("Mul", [x, n.op("Sigmoid", [x], "s")], "f"), -1, (0, "i8"))
    (certificate,) = certify(model)
    assert not certificate.certified and set(certificate.undecided) >= {43, 47}  # 21.5 and 23.5
    result = check_engines(model, [entries(-1)])
    assert result.differences == () and result.not_certified[0].tensor == "y__q"
    claimed = check_engines(model, [entries(-1)], exhaust=claim)
    assert claimed.differences[0].tensor == "y__q" and not claimed.ok


def test_a_table_all_of_whose_entries_were_run_is_promised_and_not_certified(net):
    model = table_net(net, lambda n, x: n.op("Pow", [x, n.constant("three", np.float32(3))], "f"), -4, (-2, "i8"))
    (certificate,) = certify(model)
    assert not certificate.certified and 8 in certificate.undecided  # 1/8, half a step
    result = check_engines(model, [entries(-4)], exhaust=claim)
    (certificate,) = result.certificates
    assert (certificate.certified, certificate.exhausted, certificate.promised) == (False, ("ort",), True)
    assert result.exact and not result.certified and result.exhausted == ("f",) and not result.nothing_certified
    assert "f" in result.without_certificate and certificate.entries == (-128, 127)
    assert not check_engines(model, [entries(-4)]).exact  # nothing else is there to be promised


def test_a_wrong_entry_is_found(net):
    model = table_net(net, lambda n, x: n.op("Tanh", [x], "f"))
    wrong = Oracle(model).run(entries(-4))["y__q"].integers.copy()
    wrong[0, 140] += 1
    result = check_engines(model, [entries(-4)], ("oracle", "mine"), {"mine": lambda _: {"y__q": wrong}})
    ((tensor, count, index),) = [(d.tensor, d.count, d.first_index) for d in result.differences]
    assert (tensor, count, index) == ("y__q", 1, (0, 140)) and not result.ok


def test_entries_without_a_value_are_not_certified(net):
    (certificate,) = certify(table_net(net, lambda n, x: n.op("Sqrt", [x], "f")))
    assert not certificate.certified and certificate.undecided == tuple(range(-128, 0))


def test_only_integers_that_occur_are_entries(net):
    """Behind a relu6 the rest of the table is nobody's business; what is behind the table has its bounds."""
    n = net(["n", "m"])
    low, high = n.constant("low", np.float32(0)), n.constant("high", np.float32(1))
    a = n.quantized(n.op("Clip", [n.quantized("x", "a", -4, "i8"), low, high], "k"), "b", -4, "u8")
    n.quantized(n.op("Sqrt", [a], "f"), "y", -6, "u8")
    model = n.model("y")
    intervals = Intervals(model, make_plan(model))
    assert intervals.tables["f"].inputs.tolist() == list(range(17))
    assert (intervals.by_name["y"].low, intervals.by_name["y"].high) == (0, 64)


def test_an_empty_batch(net):
    model = table_net(net, lambda n, x: n.op("Tanh", [x], "f"))
    assert Oracle(model).run({"x": np.empty((0, 4), np.float32)})["y__q"].integers.shape == (0, 4)


def test_what_leaves_unrounded_is_an_island(net):
    n = net(["n", 2])
    n.op("Sigmoid", [n.quantized("x", "a", -4, "i8")], "y")
    oracle = Oracle(n.model("y"))
    assert [island.op_type for island in oracle.islands] == ["Sigmoid"] and certify(n.model("y")) == []
