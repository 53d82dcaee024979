from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.datasets import AccuracyCounter, exact_mcnemar, paired_interval, wilson_interval
from tqt_onnx.datasets.intervals import constrained_share
from tqt_onnx.ir import DataError


def test_top1_top5_agreement_and_pairs_over_batches() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 300)
    reference, other = rng.normal(size=(300, 20)), rng.normal(size=(300, 20))
    reference[np.arange(300), labels] += 1.5
    other[np.arange(300), labels] += 1.0
    counter = AccuracyCounter(["float", "int8"])
    for start in range(0, 300, 64):
        part = slice(start, start + 64)
        counter.update({"int8": other[part], "float": reference[part]}, labels[part])
    result = counter.result()
    top = {name: np.argsort(-scores, axis=1) for name, scores in (("float", reference), ("int8", other))}
    right = {name: order[:, 0] == labels for name, order in top.items()}
    assert [m.name for m in result.models] == ["float", "int8"]
    for model in result.models:
        assert model.top1 == right[model.name].sum()
        assert model.top5 == (top[model.name][:, :5] == labels[:, None]).any(axis=1).sum()
    (pair,) = result.differences
    assert pair.agree == (top["float"][:, 0] == top["int8"][:, 0]).sum()
    assert (pair.only_reference, pair.only_name) == (
        (right["float"] & ~right["int8"]).sum(),
        (right["int8"] & ~right["float"]).sum(),
    )
    assert pair.difference == pytest.approx(result.models[1].top1_share - result.models[0].top1_share, abs=1e-12)


def test_ties_rank_by_class_index() -> None:
    counter = AccuracyCounter(["m"])
    counter.update({"m": np.zeros((8, 8), np.int8)}, np.arange(8))  # all equal: class 0 is first, classes 0..4 are top five
    model = counter.result().models[0]
    assert (model.top1, model.top5) == (1, 5)


def test_label_offset_and_trailing_dimensions() -> None:
    scores = np.eye(11)[[1, 4]].reshape(2, 1, 1, 11)
    for offset, right in ((1, 2), (0, 0)):
        counter = AccuracyCounter(["m"], label_offset=offset)
        counter.update({"m": scores}, np.array([0, 3]))
        assert counter.result().models[0].top1 == right
    counter = AccuracyCounter(["m"], label_offset=1)
    with pytest.raises(DataError, match=r"labels 0\.\.9 are expected.*Received: label 10"):
        counter.update({"m": scores}, np.array([0, 10]))


def test_agreement_without_labels() -> None:
    counter = AccuracyCounter(["a", "b"])
    counter.update({"a": np.eye(3), "b": np.eye(3)[[0, 1, 1]]})
    result = counter.result()
    assert result.models == ()
    (pair,) = result.differences
    assert (pair.agreement, pair.difference, pair.interval, pair.p_value) == (2 / 3, None, None, None)


def test_refusals_leave_the_counts_alone() -> None:
    counter = AccuracyCounter(["a", "b"])
    good, labels = np.eye(3), np.arange(3)
    counter.update({"a": good, "b": good}, labels)
    bad = good.copy()
    bad[1, 2] = np.nan
    for outputs, given_labels in [
        ({"a": good}, labels),
        ({"a": good, "b": bad}, labels),
        ({"a": good, "b": good[:2]}, labels),
        ({"a": good, "b": good}, labels[:2]),
        ({"a": good, "b": good}, None),
        ({"a": good, "b": np.ones((3, 2, 3))}, labels),
        ({"a": good, "b": np.ones(3)}, labels),
    ]:
        with pytest.raises(DataError):
            counter.update(outputs, given_labels)
    assert counter.result().count == 3
    assert counter.result().models[1].top1 == 3
    with pytest.raises(DataError, match="no images"):
        AccuracyCounter(["a"]).result()
    with pytest.raises(DataError, match="named once"):
        AccuracyCounter(["a", "a"])


def test_known_intervals() -> None:
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10)[1] == 1.0
    z2 = 1.959963984540054**2
    assert paired_interval(0, 0, 100) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), rel=1e-12)
    assert paired_interval(9, 0, 9)[1] == 1.0
    assert exact_mcnemar(0, 0) == exact_mcnemar(5, 5) == 1.0
    assert exact_mcnemar(0, 5) == pytest.approx(2 / 32, rel=1e-12)
    assert (
        exact_mcnemar(3, 10)
        == exact_mcnemar(10, 3)
        == pytest.approx(2 * sum(math.comb(13, k) for k in range(4)) / 2**13, rel=1e-12)
    )
    assert exact_mcnemar(20_000, 30_000) == 0.0


@pytest.mark.parametrize(("gain", "loss"), [(0.02, 0.02), (0.05, 0.02), (0.1, 0.3), (0.0, 0.02), (0.02, 0.0), (0.01, 0.001)])
def test_coverage_of_the_paired_interval(gain: float, loss: float) -> None:
    """Exact coverage by summing the trinomial: nominal 95%, never below 93%."""
    count, covered = 120, 0.0
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            rest = count - gained - lost
            ways = math.comb(count, gained) * math.comb(count - gained, lost)
            chance = ways * gain**gained * loss**lost * (1 - gain - loss) ** rest
            low, high = paired_interval(gained, lost, count)
            covered += chance * (low <= gain - loss <= high)
    assert covered > 0.93


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_paired_interval_is_antisymmetric_and_holds_the_estimate(gained: int, lost: int, same: int) -> None:
    count = gained + lost + same
    if not count:
        return
    low, high = paired_interval(gained, lost, count)
    assert paired_interval(lost, gained, count) == (-high, -low)
    assert -1 <= low <= (gained - lost) / count <= high <= 1
    assert low < high


def test_constrained_share_is_the_most_likely_one() -> None:
    for gained, lost, count, difference in [(9, 2, 50, 0.3), (0, 1, 44, 0.05), (3, 3, 20, 0.0), (5, 0, 50, 0.02), (1, 8, 10, 0.2)]:
        shares = np.linspace(1e-6, (1 - difference) / 2 - 1e-6, 200_001)
        likelihood = (
            gained * np.log(shares + difference)
            + lost * np.log(shares)
            + (count - gained - lost) * np.log(1 - 2 * shares - difference)
        )
        best = shares[int(np.argmax(likelihood))]
        assert constrained_share(gained, lost, count, difference) == pytest.approx(best, abs=1e-5)


def test_each_model_may_have_its_own_label_offset() -> None:
    scores = np.eye(4)
    background = np.concatenate([np.zeros((4, 1)), scores], axis=1)
    counter = AccuracyCounter(["1000", "1001"], label_offset={"1000": 0, "1001": 1})
    counter.update({"1000": scores, "1001": background}, np.array([0, 1, 2, 0]))
    result = counter.result()
    assert [model.top1 for model in result.models] == [3, 3]
    assert result.differences[0].agree == 4  # the same classes, though not the same outputs
    with pytest.raises(DataError, match=r"offset for each of a, b is expected\. Received: a$"):
        AccuracyCounter(["a", "b"], label_offset={"a": 1})
    counter = AccuracyCounter(["a", "b"], label_offset={"a": 0, "b": 1})
    with pytest.raises(
        DataError,
        match=r"b: labels 0\.\.2 are expected \(4 classes, label offset 1; .* may want --label-offset 0\)\. Received: label 3",
    ):
        counter.update({"a": scores, "b": scores}, np.array([0, 1, 2, 3]))


def test_every_pair_is_compared() -> None:
    counter = AccuracyCounter(["a", "b", "c"])
    answers = {"a": [0, 1, 2, 3, 0, 1], "b": [0, 1, 2, 0, 1, 2], "c": [3, 1, 2, 0, 1, 1]}
    for part in (slice(0, 4), slice(4, 6)):
        counter.update({name: np.eye(4)[classes[part]] for name, classes in answers.items()})
    result = counter.result()
    assert result.names == ("a", "b", "c")
    assert result.agree == ((6, 3, 3), (3, 6, 4), (3, 4, 6))
    assert [pair.agree for pair in result.differences] == [3, 3]


@pytest.mark.parametrize("labelled", [True, False])
def test_json_is_strict_and_documented(labelled: bool) -> None:
    counter = AccuracyCounter(["a", "b"])
    labels = np.array([0, 1, 2, 0]) if labelled else None
    counter.update({"a": np.eye(4), "b": np.eye(4)[[0, 1, 3, 3]]}, labels)
    decoded = json.loads(json.dumps(counter.result().to_dict(), allow_nan=False))
    assert decoded["schema"] == "tqt_onnx.accuracy/1"
    assert (decoded["images"], decoded["labelled"], decoded["names"]) == (4, labelled, ["a", "b"])
    assert decoded["agreement"] == [[1.0, 0.75], [0.75, 1.0]]
    assert [model["top1"] for model in decoded["models"]] == ([3, 2] if labelled else [])
    assert decoded["differences"][0]["difference"] == (-0.25 if labelled else None)
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    fields = {*decoded, *decoded["differences"][0], *(decoded["models"] or [{}])[0]}
    assert fields - set(re.findall(r"`([a-z0-9_]+)`", page)) == set()


@pytest.mark.parametrize(("first", "classes", "offset"), [(0, 10, 0), (0, 11, 1), (1, 11, 0), (1, 10, -1)])
def test_labels_from_0_or_1_with_and_without_background(first: int, classes: int, offset: int) -> None:
    """Class folders and slim's TFRecord files, for networks with and without a first output "background"."""
    counter = AccuracyCounter(["m"], label_offset=offset)
    counter.update({"m": np.eye(classes)[classes - 10 :]}, np.arange(10) + first)
    assert counter.result().models[0].top1 == 10
    with pytest.raises(DataError, match=rf"labels {max(0, -offset)}\.\.{classes - 1 - offset} are expected"):
        counter.update({"m": np.eye(classes)[:1]}, np.array([classes - offset]))
