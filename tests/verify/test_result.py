"""The JSON of a check: strict, complete, documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tqt_onnx.verify import Difference, FloatComparison, TensorNoise, Unmatched, check_certificates, check_engines
from tqt_onnx.verify.result import SCHEMA

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"
VERDICTS = {"ok", "exact", "certified", "exhausted", "nothing_certified", "without_certificate"}


def network(net, taps=9, island=False):
    """A dense layer of so many taps; 40,000 of them are beyond the certificate."""
    n = net(["n", taps])
    x = n.quantized("x", "a", -4, "i8")
    if island:
        x = n.quantized(n.op("Sin", [x], "s__float"), "s", -8, "u8")
    weights = np.full((taps, 2), 127)
    y = n.op("Gemm", [x, n.weight("w", weights, -6)], "y__float")
    return n.model(n.quantized(y, "y", -2, "i8"))


def keys(value):
    if isinstance(value, dict):
        return set(value) | set().union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def strict(result):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(json.dumps(result.to_dict(), allow_nan=False), parse_constant=refuse)


def test_json_is_the_whole_result(net):
    result = check_engines(network(net, island=True), [{"x": np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)}])
    decoded = strict(result)
    assert decoded["schema"] == SCHEMA == "tqt_onnx.check/2"
    fields = set(type(result).__dataclass_fields__) - {"requantized"}  # a part of each entry of `ties`
    assert set(decoded) == fields | VERDICTS | {"schema"}
    assert decoded["ties"] == [
        {"tensor": name, "ties": result.ties[name], "requantized": count, "share": result.ties[name] / count}
        for name, count in result.requantized.items()
    ]
    assert decoded["certificates"][0]["channel_bounds"] == list(result.certificates[0].channel_bounds)
    assert (decoded["images"], decoded["engines"]) == (7, list(result.engines))
    assert decoded["floats"][0].keys() >= {"promised", "ok", "largest"}


def test_numbers_that_json_has_not(net):
    def wrong(feeds):
        return {"y__q": np.full((len(feeds["x"]), 2), np.nan, np.float32)}

    result = check_engines(network(net), [{"x": np.zeros((2, 9), np.float32)}], ("oracle", "tf"), {"tf": wrong})
    assert np.isnan(result.differences[0].received)
    assert strict(result)["differences"][0]["received"] is None


def test_every_field_is_documented(net):
    """The page names each field that any result can hold."""
    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCUMENT.read_text(encoding="utf-8")))
    result = check_engines(network(net, island=True), [{"x": np.ones((2, 9), np.float32)}])
    known = set(strict(result)) | {
        key for item in ("certificates", "islands", "ties", "floats") for key in keys(strict(result)[item])
    }
    for entry in (Difference, FloatComparison, TensorNoise, Unmatched):
        known |= set(entry.__dataclass_fields__)
    known |= {"sqnr_db", "own_db"}
    assert known - documented == set()


@pytest.mark.parametrize("island", [False, True])
def test_certificates_need_no_data(net, island):
    model = network(net, island=island)
    result = check_certificates(model)
    compared = check_engines(model, [{"x": np.ones((2, 9), np.float32)}])
    assert (result.certificates, result.islands) == (compared.certificates, compared.islands)
    assert (result.certified, result.without_certificate) == (True, {})
    assert (result.ok, result.exact, result.images, result.engines) == (False, False, 0, ())
    strict(result)


def test_layers_without_certificate_are_named_with_the_reason(net):
    result = check_certificates(network(net, 40_000))
    assert list(result.without_certificate) == ["y__float"]
    assert "beyond 2^24" in result.without_certificate["y__float"]
    n = net(["n", 3])
    x = n.op("Sigmoid", ["x"], "s")
    floating = n.op("MatMul", [x, n.constant("w", np.ones((3, 2), np.float32))], "layer")
    result = check_certificates(n.model(n.quantized(floating, "y", -2, "i8")))
    assert (result.certified, list(result.without_certificate)) == (True, ["layer"])
    assert result.without_certificate["layer"].startswith("stays float: ")
