"""Thresholds known beforehand: their groups are not measured, everything else is measured on their scales."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.calibrate import calibrate
from tqt_onnx.calibrate.calibration import run
from tqt_onnx.calibrate.engine import Engine
from tqt_onnx.ir import DataError, QuantizerGraph, UsageError

Net = tuple[onnx_ir.Model, QuantizerGraph]
both_modes = pytest.mark.parametrize("parallel", [False, True])


def never() -> Iterator[dict[str, np.ndarray]]:
    raise AssertionError("the data were opened")


def activations(model: onnx_ir.Model, graph: QuantizerGraph) -> set[str]:
    """Groups that are not constants alone."""
    constants = set(model.graph.initializers)
    return {name for name, members in graph.groups().items() if not {member.value for member in members} <= constants}


@both_modes
@pytest.mark.parametrize("method", ["mse", "klj", "percentile"])
def test_giving_what_would_be_decided_changes_nothing(small: Net, images: Any, parallel: bool, method: str) -> None:
    model, graph = small
    decided = calibrate(model, graph, images(), method=method, parallel=parallel)
    for name in decided:
        again = calibrate(model, graph, images(), method=method, parallel=parallel, given={name: decided[name]})
        assert again == decided
        assert list(again) == list(decided)


@both_modes
def test_a_given_threshold_comes_back_whatever_the_data_say(small: Net, images: Any, parallel: bool) -> None:
    model, graph = small
    given = {"x__input": 6.58, "c1_w": -3.0, "add_in": 9.0, "mean_w": 1.25}
    got = calibrate(model, graph, images(), parallel=parallel, given=given)
    assert {name: got[name] for name in given} == given
    assert graph.decide(got).decided


def test_the_rest_is_measured_on_given_scales(small: Net, images: Any) -> None:
    model, graph = small
    plain = calibrate(model, graph, images(), method="max")
    coarse = calibrate(model, graph, images(), method="max", given={"r1": 8.0})  # relu6 in steps of 1
    assert coarse["x__input"] == plain["x__input"]
    assert coarse["logits"] != plain["logits"]
    assert (
        calibrate(model, graph, images(), method="max", parallel=True, given={"r1": 8.0})["logits"]
        == (
            calibrate(model, graph, images(), method="max", parallel=True)["logits"]  # float statistics: nothing is quantized
        )
    )


@both_modes
@pytest.mark.parametrize("weights_too", [False, True])
def test_data_are_not_opened_where_nothing_is_left_to_measure(small: Net, images: Any, parallel: bool, weights_too: bool) -> None:
    model, graph = small
    decided = calibrate(model, graph, images())
    given = decided if weights_too else {name: decided[name] for name in activations(model, graph)}
    assert calibrate(model, graph, never, parallel=parallel, given=given) == decided


def test_only_what_leads_to_a_measured_tensor_is_run(small32: Net, images: Any) -> None:
    model, graph = small32
    decided = calibrate(model, graph, images())
    given = {name: decided[name] for name in activations(model, graph) - {"r1"}}
    for parallel in (False, True):
        engine = Engine(model)
        got, _ = run(model, graph, images(), engine, method="mse", parallel=parallel, given=given, progress=None)
        assert set(engine.runs) == {"x_nchw", "x__input", "c1", "r1"}
        assert parallel or got == decided
    engine = Engine(model)
    got, _ = run(model, graph, images(), engine, method="mse", parallel=False, given={"logits": decided["logits"]}, progress=None)
    assert got == decided
    assert not {"logits", "flat", "y"} & set(engine.runs)


def test_a_cycle_is_no_cycle_where_its_threshold_is_given(cyclic: Net, images: Any) -> None:
    model, graph = cyclic
    calls = 0

    def counted() -> Any:
        nonlocal calls
        calls += 1
        return images(8, 4, shape=(2, 4, 4))()

    decided = calibrate(model, graph, counted)
    assert calls == 2
    assert calibrate(model, graph, counted, given={"dense": decided["dense"]}) == decided
    assert calls == 3


@both_modes
def test_floors_are_stronger_than_what_is_given(small32: Net, images: Any, parallel: bool) -> None:
    model, graph = small32
    got = calibrate(
        model,
        graph,
        images(),
        parallel=parallel,
        given={"c1_w": -3.0, "dw_w": 2.0, "res": 1.5},
        floors={"c1_w": 4.0, "dw_w": 0.5, "b1_w": 5.0},
    )
    assert (got["c1_w"], got["dw_w"], got["b1_w"], got["res"]) == (4.0, 2.0, 5.0, 1.5)


@both_modes
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nobody": 1.0}, "'nobody'; a share group"),
        ({"c1_b": 1.0}, "'c1_b'; a share group"),  # derived: it has no threshold of its own
        ({"r1": math.nan}, "group 'r1'.*Received: nan"),
        ({"r1": math.inf}, "group 'r1'.*Received: inf"),
    ],
)
def test_thresholds_that_are_none_are_refused(small32: Net, parallel: bool, given: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate(*small32, never, parallel=parallel, given=given)


@both_modes
@pytest.mark.parametrize("name", ["c1_w", "c1_b", "mean_w"])
def test_nan_in_a_constant_is_named_even_if_it_is_not_measured(small32: Net, images: Any, parallel: bool, name: str) -> None:
    model, graph = small32
    given = calibrate(model, graph, images())
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array.flat[-1] = np.nan
    value.const_value = onnx_ir.tensor(array, name=name)
    for known in ({}, given):
        with pytest.raises(DataError, match=f"constant '{name}'"):
            calibrate(model, graph, images(), parallel=parallel, given=known)


def test_infinity_in_a_tensor_with_a_given_threshold_is_named(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.node("Exp", ["x__input"], "e"))
    b.quantize(b.node("Relu", ["e"], "r"), signed=False)
    model, graph = b.build({"x": ["N", 1]}, ["r"])
    batch = {"x": np.full((1, 1), 200.0, np.float32)}
    with pytest.raises(DataError, match=r"tensor 'e'.*infinity"):
        calibrate(model, graph, lambda: iter([batch]), given={"e": 0.0})
