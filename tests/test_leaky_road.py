"""Leaky relus (L3) the whole road: the formula in rational numbers = oracle = onnxruntime (off, on) = TensorFlow."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import integer_name
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.quantize import Quantization, quantize
from tqt_onnx.verify import Oracle, observed_bounds

CONV = "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1]>"
CONTRACTS = pytest.mark.parametrize("layer", [16, 32])


def model_of(text: str, **arrays: Any) -> onnx_ir.Model:
    tensors = [onnx_ir.tensor(np.asarray(array, np.float32), name=name) for name, array in arrays.items()]
    model = onnx_ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> {text}', initializers=tensors)
    return onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))


def exponents(result: Quantization) -> dict[str, int]:
    return {quantizer.value: quantizer.decided_exponent for quantizer in result.graph.quantizers}


def rounded(number: Fraction, exponent: int, bits: int) -> Fraction:
    """Q1, Q2, Q3: Python rounds a Fraction to the nearest, halves to even."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return min(max(round(number / Fraction(2) ** exponent), low), high) * Fraction(2) ** exponent


@CONTRACTS
@pytest.mark.parametrize("slope", [0.1, 0.25, -0.3, 1.5])
def test_the_formula(layer: Any, slope: float) -> None:
    """`q8( max( q16(x), q16( q16(a) * q16(x) ) ) )`, with x the sum of a layer of the contract."""
    weights, bias = [[0.9, -0.35], [0.45, 1.7]], [0.21, -0.4]
    model = model_of("g (float[n,2] x) => (float[n,2] y) { c = Gemm(x, w, b) y = LeakyRelu(c) }", w=weights, b=bias)
    list(model.graph)[1].attributes["alpha"] = onnx_ir.AttrFloat32("alpha", slope)
    x = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    result = quantize(model, x, bits=BitWidths(layer=layer))
    e = exponents(result)
    assert e["c"] == e["y__scaled"]
    a = rounded(Fraction(float(np.float32(slope))), e["y__alpha"], 16)
    assert abs(a / Fraction(2) ** e["y__alpha"]) <= 512
    expected = []
    for row in x:
        inputs = [rounded(Fraction(float(number)), e["x__input"], 8) for number in row]
        for column in (0, 1):
            products = (
                number * rounded(Fraction(float(np.float32(weights[index][column]))), e["w"], 8)
                for index, number in enumerate(inputs)
            )
            total = sum(products, Fraction(0))
            b = Fraction(float(np.float32(bias[column])))
            if layer == 16:
                total = rounded(total, e["c__acc"], 16) + rounded(b, e["b"], 16)
            else:
                total += rounded(b, e["x__input"] + e["w"], 32)
            wide = rounded(total, e["c"], 16)
            scaled = rounded(a * wide, e["c"], 16)
            y = min(wide, scaled) if slope > 1 else max(wide, scaled)
            if slope < 0:  # nothing negative is left: uint8
                expected.append(min(round(y / Fraction(2) ** e["y"]), 255))
            else:
                expected.append(rounded(y, e["y"], 8) / Fraction(2) ** e["y"])
    received = Oracle(result.model).run({"x": x})[integer_name("y")].integers  # type: ignore[union-attr]
    assert received.reshape(-1).tolist() == expected
    outcome = check(result.model, x, engines=("oracle", "ort", "tf"))
    assert outcome.ok and outcome.differences == () and outcome.not_certified == ()
    assert all(layer.certified for layer in outcome.certificates) and outcome.islands == ()


NETWORKS = {
    "behind layers with and without bias": """{ c = Conv%s(x, w, b) l = LeakyRelu<alpha = 0.1>(c) d = Conv%s(l, v)
                                                y = LeakyRelu<alpha = 0.2>(d) }""",
    "on an input, a pool and a concatenation": """{ l = LeakyRelu<alpha = 0.3>(x) m = MaxPool<kernel_shape = [1, 1]>(l)
                                                    k = LeakyRelu<alpha = 0.01>(m) j = Concat<axis = 2>(k, l)
                                                    a = LeakyRelu(j) c = Conv%s(a, w, b) y = Conv%s(c, v) }""",
    "a residual network": """{ c = Conv%s(x, w, b) l = LeakyRelu<alpha = 0.1>(c) d = Conv%s(l, v) s = Add(d, l)
                               y = LeakyRelu<alpha = 0.1>(s) }""",
    "a relu branch beside a leaky one": """{ c = Conv%s(x, w, b) r = Relu(c) d = Conv%s(x, v) l = LeakyRelu<alpha = 0.1>(d)
                                             j = Concat<axis = 1>(r, l) y = LeakyRelu<alpha = 2.5>(j) }""",
    "a sum that others read too": """{ c = Conv%s(x, w, b) l = LeakyRelu<alpha = 0.1>(c) d = Conv%s(c, v)
                                       y = Concat<axis = 1>(l, d) }""",
    "behind a clipped sum": """{ c = Conv%s(x, w) k = Clip(c, low, high) l = LeakyRelu<alpha = 0.1>(k) y = Conv%s(l, v) }""",
    "as the product and maximum it was": """{ c = Conv%s(x, w, b) s = Mul(a, c) l = Max(s, c) d = Conv%s(l, v)
                                              t = Mul(d, a) y = Max(d, t) }""",
}


@CONTRACTS
@pytest.mark.parametrize("weight", [8, 4])
@pytest.mark.parametrize("body", NETWORKS.values(), ids=NETWORKS)
def test_zero_differing_integers(layer: Any, weight: int, body: str) -> None:
    rng = np.random.default_rng(5)
    arrays = {"w": rng.normal(size=(3, 3, 1, 1)), "v": rng.normal(size=(3, 3, 1, 1)), "b": rng.normal(size=3), "a": 0.1}
    arrays |= {"low": -2.0, "high": 2.0}
    text = f"g (float[n,3,4,5] x) => (float[p,q,r,s] y) {body % (CONV, CONV)}"
    used = {name: array for name, array in arrays.items() if re.search(rf"[(, ]{name}[),]", body) and f" {name} = " not in body}
    x = rng.normal(size=(6, 3, 4, 5)).astype(np.float32)
    result = quantize(model_of(text, **used), x, bits=BitWidths(layer=layer, weight=weight))
    assert result.islands == ()
    assert not any(node.op_type == "LeakyRelu" for node in result.model.graph)
    outcome = check(result.model, x, engines=("oracle", "ort", "tf"))
    assert outcome.ok and outcome.differences == () and outcome.not_certified == ()
    products = [certificate for certificate in outcome.certificates if certificate.op_type == "Mul"]
    assert products and all(certificate.certified and certificate.bound <= 1 << 24 for certificate in products)
    seen = observed_bounds(result.model, {"x": x})
    assert all(seen[certificate.output] <= certificate.bound for certificate in products)
