"""The product of a leaky relu shares its input's threshold (L3) and is no reason to read the data twice (C4, C6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tqt_onnx.calibrate import calibrate


@pytest.mark.parametrize("operands", [("c", "alpha"), ("alpha", "c")])
@pytest.mark.parametrize(("slope", "exponent"), [(0.1, -12), (3.0, -7), (-1.5, -8)])
def test_a_leaky_relu_is_measured_at_its_input(net: Any, slope: float, exponent: int, operands: tuple[str, str]) -> None:
    weights = np.array([[0.9, -0.6], [0.3, 1.1]], np.float32)
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.constant("w", weights), role="weight")
    b.quantize(b.node("MatMul", ["x__input", "w"], "c"), bits=16)
    b.quantize(b.constant("alpha", np.float32(slope)), bits=10, role="alpha")
    b.quantize(b.node("Mul", list(operands), "scaled"), bits=16, group="c")
    b.quantize(b.node("Min" if slope > 1 else "Max", ["c", "scaled"], "y"))
    model, graph = b.build({"x": ["N", 2]}, ["y"])
    x = np.random.default_rng(1).normal(size=(400, 2)).astype(np.float32)
    read = []

    def batches() -> Iterator[dict[str, np.ndarray]]:
        read.append(1)
        yield {"x": x[:100]}
        yield {"x": x[100:]}

    got = calibrate(model, graph, batches, method="max")
    assert read == [1]
    found = graph.decide(got).by_value()
    assert found["alpha"].exponent == exponent
    quantized = [
        np.clip(np.rint(a / s), -128, 127) * s
        for a, s in ((x, 2.0 ** found["x__input"].exponent), (weights, 2.0 ** found["w"].exponent))
    ]
    a = np.rint(slope * 2.0**-exponent) * 2.0**exponent
    largest = np.abs(quantized[0] @ quantized[1]).max() * max(1.0, abs(a))
    assert got["c"] == pytest.approx(np.log2(largest), abs=1e-6)
    parallel = calibrate(model, graph, batches, method="max", parallel=True)
    assert parallel["c"] == pytest.approx(np.log2(np.abs(x @ weights).max() * max(1.0, abs(slope))), abs=1e-5)


def test_a_given_threshold_needs_no_measuring(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "c"), bits=16)
    b.quantize(b.constant("alpha", np.float32(0.1)), bits=10, role="alpha")
    b.quantize(b.node("Mul", ["c", "alpha"], "scaled"), bits=16, group="c")
    b.quantize(b.node("Max", ["c", "scaled"], "y"))
    model, graph = b.build({"x": ["N", 2]}, ["y"])
    got = calibrate(model, graph, lambda: iter([{"x": np.full((1, 2), 7.0, np.float32)}]), method="max", given={"c": 2.0})
    assert got["c"] == 2.0
    assert got["y"] == pytest.approx(2.0, abs=1e-3)  # what is behind it was measured saturated
