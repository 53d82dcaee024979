"""The quantizer graph: schema, agreement within share groups, and what a file may not smuggle in."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.ir import ModelError, Quantizer, QuantizerGraph, UnsupportedError
from tqt_onnx.ir.quantizers import integer_bounds
from tqt_onnx.kernels import fixed_point


def graph(*quantizers: Quantizer) -> QuantizerGraph:
    return QuantizerGraph("layer32", quantizers)


X = Quantizer("x", "x", 8, True, "input", "x")
W = Quantizer("w", "w", 4, True, "weight", "w")
B = Quantizer("b", "b", 32, True, "bias", "b", derived_from=("x", "w"))
R = Quantizer("r", "r", 8, False, "activation", "r", limit=6.0)


def test_exponents_follow_the_thresholds() -> None:
    decided = graph(X, W, B, R).decide({"x": 0.0, "w": 1.2, "r": 2.5})
    exponents = {quantizer.id: quantizer.exponent for quantizer in decided.quantizers}
    assert exponents == {"x": -7, "w": 2 - 3, "b": -8, "r": 3 - 8}
    assert decided.decided and not graph(X).decided


@pytest.mark.parametrize(("exponent", "upper"), [(-5, 192), (-6, 255), (0, 6), (1, 3), (2, 2), (3, 1), (4, 0), (-4, 96)])
def test_relu6_bound_is_six_rounded_onto_the_grid(exponent: int, upper: int) -> None:
    quantizer = Quantizer("r", "r", 8, False, "activation", "r", limit=6.0, exponent=exponent)
    assert quantizer.upper == upper
    assert fixed_point.quantize(np.float64(6.0), exponent, 8, False).item() == upper


@given(st.integers(2, 16), st.booleans())
def test_bounds_are_those_of_the_arithmetic_spec(bits: int, signed: bool) -> None:
    assert integer_bounds(bits, signed) == fixed_point.bounds(bits, signed)


def test_json_round_trip() -> None:
    decided = graph(X, W, B, R).decide({"x": 0.0, "w": 1.2, "r": 2.5})
    assert QuantizerGraph.from_json(decided.to_json()) == decided
    assert set(json.loads(decided.to_json())["quantizers"][0]) == {
        "id", "value", "bits", "signed", "role", "group", "limit", "derived_from", "exponent",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"contract":"layer16"}',
        '{"contract":"layer16","quantizers":[{}]}',
        '{"contract":"nonsense","quantizers":[]}',
        '{"contract":"layer16","quantizers":7}',
        "[" * 100_000,
    ],
)
def test_what_is_not_the_schema_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        QuantizerGraph.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bits", True), ("bits", 8.0), ("bits", 99), ("signed", 1), ("role", "other"), ("limit", "6"), ("limit", -1.0),
        ("limit", math.nan), ("derived_from", ["x"]), ("derived_from", ["x", 3]), ("exponent", "0"), ("exponent", 0.5),
        ("id", None),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(field: str, value: object) -> None:
    data = json.loads(graph(X).to_json())
    data["quantizers"][0][field] = value
    with pytest.raises(ModelError):
        QuantizerGraph.from_json(json.dumps(data))


def test_a_group_must_agree() -> None:
    with pytest.raises(ModelError, match="agree in bits"):
        graph(X, Quantizer("y", "y", 8, False, "activation", "x"))


def test_one_value_one_quantizer() -> None:
    with pytest.raises(ModelError, match="two quantizers have the value"):
        graph(X, Quantizer("x2", "x", 8, True, "input", "x"))


def test_derived_from_nobody() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        graph(X, B)


def test_derived_scales_are_sums_of_decided_ones() -> None:
    decided = graph(X, W, B).decide({"x": 0.0, "w": 1.0}).quantizers
    with pytest.raises(ModelError, match="add up"):
        graph(*decided[:2], replace(decided[2], exponent=0))
    with pytest.raises(ModelError, match="is derived"):
        graph(X, W, B, replace(B, id="c", value="c", derived_from=("x", "b")))
    with pytest.raises(ModelError, match="is derived"):
        graph(X, replace(B, derived_from=("b", "b")))


@pytest.mark.parametrize("field", ["id", "value", "group"])
def test_names_are_needed(field: str) -> None:
    with pytest.raises(ModelError, match="needs an id"):
        replace(X, **{field: ""})


@pytest.mark.parametrize("number", ["9" * 5000, "1" + "0" * 400])
def test_numbers_of_any_length(number: str) -> None:
    text = graph(R).to_json()
    for field in ('"limit":6.0', '"bits":8', '"exponent":null'):
        with pytest.raises((ModelError, UnsupportedError)):
            QuantizerGraph.from_json(text.replace(field, f"{field.split(':')[0]}:{number}"))


def test_missing_and_infinite_thresholds() -> None:
    with pytest.raises(ModelError, match="finite"):
        graph(X).decide({})
    with pytest.raises(ModelError, match="finite"):
        graph(X).decide({"x": math.inf})


def test_scales_outside_the_exact_range_are_refused() -> None:
    assert graph(X).decide({"x": -95.0}).quantizers[0].exponent == -102
    with pytest.raises(UnsupportedError, match="Q5"):
        graph(X).decide({"x": -96.0})
    with pytest.raises(UnsupportedError, match="Q5"):
        graph(X, W, B).decide({"x": -60.0, "w": -60.0})
