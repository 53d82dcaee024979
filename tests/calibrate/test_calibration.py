"""The entry point: parallel statistics, group rules, degenerate tensors, typed errors."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import onnx_ir
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tqt_onnx.calibrate import METHODS, calibrate
from tqt_onnx.calibrate.forward import integers, reals
from tqt_onnx.ir import DataError, ModelError, Quantizer, QuantizerGraph, UnsupportedError, UsageError
from tqt_onnx.kernels import fixed_point as fp

Net = tuple[onnx_ir.Model, QuantizerGraph]


def identity(net: Any, bits: int = 8, signed: bool = True) -> Net:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), bits=bits, signed=signed, role="input")
    return b.build({"x": ["N", 4]}, ["x__input"])


def feeds(*rows: list[float]) -> Any:
    return lambda: iter([{"x": np.array([row], np.float32)} for row in rows])


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("method", "bits", "log2_t"),
    [("max", 8, 2.0), ("mse", 8, 3.0), ("klj", 8, 2.0), ("percentile", 8, 2.0), ("mse", 16, 2.0), ("klj", 16, 2.0)],
)
def test_both_modes_agree_on_an_input(net: Any, parallel: bool, method: str, bits: int, log2_t: float) -> None:
    model, graph = identity(net, bits)
    # 4 is no integer of an int8 grid that ends at 3.97; 16 bits take max whatever the method
    assert calibrate(model, graph, feeds([4.0, 0.5, 0.0, 1.0], [4.0, 4.0, 4.0, -1.0]), method=method, parallel=parallel) == {
        "x__input": log2_t
    }


def test_parallel_measures_accumulator_and_bias_together(small: Net, images: Any) -> None:
    model, graph = small
    got = calibrate(model, graph, images(), method="max", parallel=True)
    assert list(got) == list(graph.groups())
    assert all(q.derived_from is None for members in graph.groups().values() for q in members)
    assert graph.decide(got).decided


def test_a_large_bias_widens_its_accumulator(net: Any, images: Any) -> None:
    b = net("layer16")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.compute("c", "x__input", b.random(2, 3, 1, 1), [100.0, -1.0], scale_of="x__input"))
    model, graph = b.build({"x": ["N", 3, 2, 2]}, ["c"])
    for parallel in (False, True):
        assert calibrate(model, graph, images(shape=(3, 2, 2)), parallel=parallel)["c_sum"] == fp.log2_threshold(100.0)


def test_a_constant_shares_its_group_with_an_activation(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input", group="sum")
    b.quantize(b.constant("k", [3.0, -20.0, 0.0, 1.0]), group="sum")
    b.quantize(b.node("Add", ["x__input", "k"], "y"))
    model, graph = b.build({"x": ["N", 4]}, ["y"])
    for parallel in (False, True):
        for method in ("max", "klj"):
            got = calibrate(model, graph, feeds([1.0, 2.0, 3.0, 4.0]), method=method, parallel=parallel)
            assert (math.ceil(got["sum"]), math.ceil(got["y"])) == (5, 5)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_zeros_get_a_finite_threshold_and_a_line_that_names_them(
    net: Any, parallel: bool, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, graph = identity(net)
    with caplog.at_level(logging.WARNING):
        assert calibrate(model, graph, feeds([0.0] * 4), method=method, parallel=parallel) == {"x__input": 0.0}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "x__input" in caplog.text


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("number", "ceiling"), [(0.3, -1), (0.5, -1), (0.50001, 0), (3e-9, -28)])
def test_a_constant_tensor_keeps_its_number(
    net: Any, parallel: bool, method: str, signed: bool, number: float, ceiling: int
) -> None:
    model, graph = identity(net, signed=signed)
    got = calibrate(model, graph, feeds([number] * 4), method=method, parallel=parallel)["x__input"]
    # 0.5 is not quite reached on the grid that ends there: `mse` takes the next one (Q7)
    assert math.ceil(got) == ceiling + (method == "mse" and number == 0.5)


@pytest.mark.parametrize("parallel", [False, True])
def test_percentage_is_an_option(net: Any, parallel: bool) -> None:
    model, graph = identity(net)
    rows = feeds(*[[1.0, 2.0, 4.0, -8.0]] * 5)
    got = {
        p: calibrate(model, graph, rows, method="percentile", percentile=p, parallel=parallel)["x__input"]
        for p in (25, 25.1, 75.0, 99.99, 100)
    }
    assert got == {25: 0.0, 25.1: 1.0, 75.0: 2.0, 99.99: 3.0, 100: 3.0}
    for bad in (0, -1.0, 100.5, math.nan):
        with pytest.raises(UsageError, match=r"above 0 and at most 100. Received: "):
            calibrate(model, graph, rows, method="percentile", percentile=bad, parallel=parallel)


def test_zero_weights_are_named(net: Any, images: Any, caplog: pytest.LogCaptureFixture) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.compute("c", "x__input", np.zeros((2, 3, 1, 1)), [1.0, 2.0], scale_of="x__input"))
    model, graph = b.build({"x": ["N", 3, 2, 2]}, ["c"])
    with caplog.at_level(logging.WARNING):
        assert calibrate(model, graph, images(shape=(3, 2, 2)))["c_w"] == 0.0
    assert "c_w" in caplog.text


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda: iter([]), "empty"),
        (lambda: iter([{"y": np.zeros((1, 4), np.float32)}]), r"'x' are expected. Received: 'y'"),
        (lambda: iter([np.zeros((1, 4), np.float32)]), r"'x' are expected. Received: ndarray"),
        (lambda: iter([{"x": [[0.0] * 4]}]), r"array is expected. Received: list"),
        (lambda: iter([{"x": np.zeros((1, 4))}]), r"float32 is expected. Received: float64"),
        (lambda: iter([{"x": np.zeros((1, 5), np.float32)}]), r"\[N,4\] is expected. Received: \[1, 5\]"),
        (lambda: iter([{"x": np.zeros(4, np.float32)}]), r"\[N,4\] is expected. Received: \[4\]"),
        (lambda: iter([{"x": np.zeros((0, 4), np.float32)}]), "at least one"),
        (feeds([0.0] * 4, [0.0, np.nan, 0.0, 0.0]), r"batch 1, input 'x'.*Received: NaN"),
        (feeds([0.0, np.inf, 0.0, 0.0]), r"batch 0, input 'x'.*infinity"),
    ],
)
def test_bad_data_are_typed(net: Any, parallel: bool, batches: Any, message: str) -> None:
    model, graph = identity(net)
    with pytest.raises(DataError, match=message):
        calibrate(model, graph, batches, parallel=parallel)


@pytest.mark.parametrize("parallel", [False, True])
def test_an_overflowing_activation_is_named(net: Any, parallel: bool) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.constant("w", np.full((4, 2), 1e20)), role="weight")
    b.quantize(b.node("Gemm", ["x__input", "w"], "g"))
    model, graph = b.build({"x": ["N", 4]}, ["g"])
    with pytest.raises(DataError, match=r"tensor 'g'.*infinity"):
        calibrate(model, graph, feeds([1e20, 1e20, 1e20, 1e20]), parallel=parallel)


def test_nan_in_a_constant_is_named(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.constant("w", [[np.nan]] * 4), role="weight")
    b.quantize(b.node("Gemm", ["x__input", "w"], "g"))
    model, graph = b.build({"x": ["N", 4]}, ["g"])
    with pytest.raises(DataError, match=r"constant 'w'"):
        calibrate(model, graph, feeds([1.0] * 4))


def test_a_scale_outside_the_exact_range_is_refused(net: Any) -> None:
    model, graph = identity(net)
    with pytest.raises(UnsupportedError, match="Q5"):
        calibrate(model, graph, feeds([1e-40] * 4))


def test_options_and_quantizers_are_checked(net: Any) -> None:
    model, graph = identity(net)
    with pytest.raises(UsageError, match=r"mse, max, klj, percentile. Received: 'entropy'"):
        calibrate(model, graph, feeds([1.0] * 4), method="entropy")
    for value in ("nowhere", "x"):
        stray = QuantizerGraph("layer32", (Quantizer("q", value, 8, True, "input", "q"),))
        with pytest.raises(ModelError, match=value):
            calibrate(model, stray, feeds([1.0] * 4))


def test_a_fixed_batch_dimension_is_respected(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    model, graph = b.build({"x": [2, 4]}, ["x__input"])
    batch = np.array([[1.0] * 4, [5.0] * 4], np.float32)
    assert calibrate(model, graph, lambda: iter([{"x": batch}]), method="max") == {"x__input": fp.log2_threshold(5.0)}
    with pytest.raises(DataError, match=r"\[2,4\] is expected"):
        calibrate(model, graph, lambda: iter([{"x": batch[:1]}]))


def test_several_inputs_need_the_same_number_of_images(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["a"], "a__input"), role="input", group="sum")
    b.quantize(b.node("Identity", ["b"], "b__input"), role="input", group="sum")
    b.quantize(b.node("Add", ["a__input", "b__input"], "y"))
    model, graph = b.build({"a": ["N", 2], "b": ["N", 2]}, ["y"])
    one, two = np.full((1, 2), 3, np.float32), np.full((2, 2), 9, np.float32)
    assert calibrate(model, graph, lambda: iter([{"a": two, "b": two}]), method="max")["sum"] == fp.log2_threshold(9.0)
    with pytest.raises(DataError, match="same number of images"):
        calibrate(model, graph, lambda: iter([{"a": one, "b": two}]))


def test_progress_counts_up_to_the_total(small32: Net, images: Any) -> None:
    seen: list[tuple[int, int, str]] = []
    calibrate(*small32, images(), progress=lambda *call: seen.append(call))
    total = seen[-1][1]
    assert [done for done, _, _ in seen] == list(range(total + 1))


def test_the_model_is_not_changed(small: Net, images: Any) -> None:
    model, graph = small
    before = onnx_ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    for parallel in (False, True):
        calibrate(model, graph, images(), parallel=parallel)
    assert onnx_ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.lists(finite, min_size=1, max_size=8), st.integers(-102, 103), st.integers(2, 16), st.booleans(), st.none() | st.just(6.0)
)
@example([0.5, 1.5, 2.5, -0.5, -128.5, 127.5], 0, 8, True, None)
@example([3.4028235e38, -3.4028235e38, 1e-45], -102, 8, True, None)
@example([6.0, 5.99, 7.0], -5, 8, False, 6.0)
def test_fast_integers_are_those_of_the_specification(
    numbers: list[float], exponent: int, bits: int, signed: bool, limit: float | None
) -> None:
    quantizer = Quantizer("q", "q", bits, signed, "activation", "q", limit, None, exponent)
    x = np.array([numbers], np.float32)
    fast = integers(x, quantizer)
    assert fast.itemsize == (1 if bits <= 8 else 2)
    assert fast.tolist() == fp.quantize(x, exponent, bits, signed, quantizer.upper).tolist()
    assert reals(fast, quantizer).tolist() == fp.dequantize(fast, exponent).tolist()
