"""`check` compares numbers of the nodes; what the metadata record must be the same, with data and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir
import pytest

import tqt_onnx
from tqt_onnx.ir import QUANTIZERS_KEY, ModelError

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


@pytest.fixture(name="model")
def quantized() -> onnx_ir.Model:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,2] y)
      <float[3,4] w = {1.0, -0.5, 0.25, 0.1, 0.3, 0.7, -0.9, 0.2, 0.6, -0.4, 0.8, 0.5},
       float[4,2] v = {1.0, 0.5, -0.25, 0.75, 0.3, -0.6, 0.2, 0.9}>
      { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"""
    return tqt_onnx.quantize(onnx_ir.from_onnx_text(text), X).model


def one_bit_less(entries: list[dict[str, Any]]) -> None:
    next(entry for entry in entries if entry["value"] == "r")["bits"] = 7


def fewer_bits_of_a_weight(entries: list[dict[str, Any]]) -> None:
    next(entry for entry in entries if entry["value"] == "w")["bits"] = 5


def another_sign(entries: list[dict[str, Any]]) -> None:
    next(entry for entry in entries if entry["value"] == "r")["signed"] = True


def another_scale(entries: list[dict[str, Any]]) -> None:
    next(entry for entry in entries if entry["value"] == "w")["exponent"] += 1


def one_too_many(entries: list[dict[str, Any]]) -> None:
    entries.append({**entries[-1], "id": "h2", "value": "h2", "group": "h2"})


def one_weight_too_few(entries: list[dict[str, Any]]) -> None:
    entries.remove(next(entry for entry in entries if entry["value"] == "v"))


@pytest.mark.parametrize(
    "change", [one_bit_less, fewer_bits_of_a_weight, another_sign, another_scale, one_too_many, one_weight_too_few]
)
@pytest.mark.parametrize("data", [None, X])
def test_recorded_quantizers_that_are_not_those_of_the_nodes(
    model: onnx_ir.Model, change: Callable[[list[dict[str, Any]]], None], data: Any
) -> None:
    recorded = json.loads(model.metadata_props[QUANTIZERS_KEY])
    change(recorded["quantizers"])
    model.metadata_props[QUANTIZERS_KEY] = json.dumps(recorded)
    with pytest.raises(ModelError):
        tqt_onnx.check(model, data)


def test_the_recorded_quantizers_of_a_fresh_model_are_those_of_its_nodes(model: onnx_ir.Model) -> None:
    assert tqt_onnx.check(model, X).ok
