"""Tuning as a verb: what is shipped is never worse than the static result, and says what was done. Agreement of two models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.calibrate import calibrate
from tqt_onnx.ir import UsageError
from tqt_onnx.passes import BitWidths, annotate, insert_qdq, lower, optimize
from tqt_onnx.verbs.agreement import agreement
from tqt_onnx.verbs.quantize import quantize
from tqt_onnx.verbs.tune import _kept_back, tune, with_constants


def network(*, softmax: bool, batch: Any = "N") -> onnx_ir.Model:
    rng = np.random.default_rng(8)
    constants = {
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "b1": np.full(8, 0.5),
        "w2": rng.normal(0, 1, (8, 1, 3, 3)) * np.array([1, 1, 1, 1, 2, 2, 2, 300]).reshape(8, 1, 1, 1),
        "b2": rng.normal(0, 1, 8),
        "w3": rng.normal(0, 1, (8, 6)),
        "b3": rng.normal(0, 1, 6),
    }
    constants["w1"][7] *= 1e-4  # hardly varies: its giant weights make a constant that the bias takes away
    constants["b2"][7] = 1 - 0.5 * constants["w2"][7].sum()
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2", "b2"], ["c"], group=8),
        helper.make_node("Relu", ["c"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["z" if softmax else "y"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 7, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    lowered = onnx_ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model))
    optimize(lowered)
    lower(lowered, "layer16")
    return lowered


def batches(images: int, size: int = 8, seed: int = 1) -> Any:
    data = np.random.default_rng(seed).normal(0, 1, (images, 3, 7, 7)).astype(np.float32)

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, images, size):
            yield {"x": data[start : start + size]}

    return feeds


@pytest.mark.parametrize("softmax", [True, False])
def test_a_collapsed_network_is_repaired(softmax: bool) -> None:
    model = network(softmax=softmax)
    graph = annotate(model, BitWidths())
    static = calibrate(model, graph, batches(40))
    seen: list[tuple[int, int, str]] = []
    tuned = tune(model, graph, batches(40), static, progress=lambda done, total, what: seen.append((done, total, what)))
    unseen = batches(100, seed=2)
    before = agreement(model, insert_qdq(model, graph.decide(static)), unseen(), limit=None)
    after = agreement(model, insert_qdq(tuned.model, graph.decide(tuned.log2_thresholds)), unseen(), limit=None)
    assert after.better_than(before)
    assert after.sqnr > before.sqnr + 6
    assert tuned.report.kept == "tuned"
    assert tuned.report.before.images == 8  # every fifth was kept back
    assert tuned.report.in_time
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1]
    assert json.loads(json.dumps(tuned.report.to_dict()))["layers"][0]["layer"] == "w1"


def test_the_static_model_is_kept_where_tuning_is_further_from_float(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(softmax=True)
    graph = annotate(model, BitWidths())
    static = calibrate(model, graph, batches(20))
    monkeypatch.setattr("tqt_onnx.verbs.agreement.Agreement.better_than", lambda *_: False)
    tuned = tune(model, graph, batches(20), static)
    assert tuned.report.kept == "static"
    assert tuned.log2_thresholds == static
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    assert all((tuned.model.graph.initializers[name].const_value.numpy() == array).all() for name, array in arrays.items())


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch(batch: int) -> None:
    model = network(softmax=False, batch=batch)
    graph = annotate(model, BitWidths())
    feeds = batches(12, batch)
    tuned = tune(model, graph, feeds, calibrate(model, graph, feeds))
    assert tuned.report.after.sqnr > tuned.report.before.sqnr


@pytest.mark.parametrize(("images", "size", "batch"), [(9, 4, "N"), (12, 5, "N"), (1200, 32, "N"), (1200, 1, 1), (48, 4, 4)])
def test_what_judges_was_kept_back_and_is_spread_over_the_set(images: int, size: int, batch: Any) -> None:
    data = np.zeros((images, 3, 7, 7), np.float32)
    data[:, 0, 0, 0] = np.arange(images)

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        return ({"x": data[start : start + size]} for start in range(0, images, size))

    held = _kept_back(network(softmax=False, batch=batch), feeds, images)
    found = [int(feed["x"][0, 0, 0, 0]) for feed in held]
    expected = {9: list(range(9)), 12: [4, 9], 48: [4 * i for i in (0, 1, 2, 3, 4, 6, 7, 8, 9, 11)]}
    assert {len(feed["x"]) for feed in held} == {4 if batch == 4 else 1}
    if images == 1200:
        assert len(set(found)) == 100
        assert (found[0], found[-1]) == (4, 1199)
        assert all(index % 5 == 4 for index in found)
        assert np.diff(found).max() <= 15
    else:
        assert found == expected[images]


def test_a_used_up_budget_still_gives_a_result_and_none_is_refused() -> None:
    model = network(softmax=True)
    graph = annotate(model, BitWidths())
    static = calibrate(model, graph, batches(20))
    tuned = tune(model, graph, batches(20), static, minutes=1e-9)
    assert not tuned.report.in_time
    assert tuned.report.after.better_than(tuned.report.before)
    with pytest.raises(UsageError, match="Received: 0"):
        tune(model, graph, batches(20), static, minutes=0)


def test_agreement_with_itself_is_perfect_and_reads_no_more_than_needed() -> None:
    model = network(softmax=True)
    same = agreement(model, model, batches(30)(), limit=16)
    assert (same.images, same.top1, same.divergence, same.sqnr) == (16, 1.0, 0.0, float("inf"))
    assert not same.poor
    assert same.to_dict()["sqnr"] is None


def test_agreement_of_a_network_that_answers_something_else_is_poor() -> None:
    model = network(softmax=True)
    other = with_constants(model, {"w3": -model.graph.initializers["w3"].const_value.numpy()})
    found = agreement(model, other, batches(30)())
    assert found.poor
    assert found.divergence is not None and found.divergence > 0.1


def test_tuning_and_one_parallel_pass_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="`tune` without `parallel` is expected"):
        quantize("never-read.onnx", np.zeros((1, 1), np.float32), tune=True, parallel=True)
