"""The numbers of a training, the freezing rule, learning rates and losses, without a training."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.backend_tf.training import Row, Schedule, make_strategy
from tqt_onnx.backend_tf.training.freezing import debiased, settled, to_freeze, turns
from tqt_onnx.backend_tf.training.losses import Head, Seen, check_labels, make_loss
from tqt_onnx.backend_tf.training.optimizers import Rate
from tqt_onnx.ir import DataError, UsageError

SCORES = (Head("y", "z", "z", 3),)


def test_intervals_are_the_papers_and_stretch_with_the_batch():
    assert (Schedule().weight_interval, Schedule().threshold_interval) == (3000, 1000)
    small = Schedule(batch=8)
    assert (small.weight_interval, small.threshold_interval) == (9000, 3000)
    assert Schedule(batch=100_000).threshold_interval == 1
    assert Schedule(batch=8, threshold_lr_every=7).threshold_interval == 7  # a given number is taken as it is


def test_steps_are_exact_and_epochs_are_rounded():
    assert Schedule(steps=17).total(1000) == 17
    assert Schedule(epochs=0.1).total(30) == 3
    assert Schedule(epochs=0.001).total(30) == 1


def test_validations_and_statistics_of_short_and_long_runs():
    assert [Schedule().validation_interval(total) for total in (1, 40, 4000, 100_000)] == [1, 10, 1000, 1000]
    assert Schedule(epochs=5).statistics_steps(100) == 100
    assert Schedule(steps=60).statistics_steps(100) == 30  # half of a run that is shorter than two epochs


def test_a_long_run_freezes_at_the_papers_steps():
    assert Schedule().freeze_plan(266_000, 60) == (1000, 50)
    assert [turns(step, 1000, 50) for step in (999, 1000, 1049, 1050, 1100)] == [0, 1, 1, 2, 3]


@given(st.integers(1, 5000), st.integers(1, 300), st.sampled_from([1, 24, 100]))
def test_in_a_short_run_every_threshold_has_its_turn_within_the_share(steps, thresholds, batch):
    schedule = Schedule(batch=batch)
    plan = schedule.freeze_plan(steps, thresholds)
    assert turns(steps, *plan) >= thresholds
    assert plan[0] / plan[1] == pytest.approx(round(1000 * 24 / batch) / 50)  # scaled by one factor
    assert plan[0] + plan[1] * thresholds <= 0.75 * steps * (1 + 1e-12)


def test_given_freezing_steps_are_not_scaled():
    assert Schedule(freeze_from=10, freeze_every=5).freeze_plan(50, 100) == (10, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("epochs", 0),
        ("epochs", math.nan),
        ("steps", 0),
        ("weight_lr", -1e-6),
        ("threshold_lr", math.inf),
        ("ema", 1.0),
        ("beta_1", -0.1),
        ("freeze_share", 0),
        ("quant_delay", -1),
        ("regularization", -1),
        ("weight_optimizer", "sgd"),
        ("weight_schedule", "linear"),
        ("steps", 2.5),
        ("batch", 8.0),
        ("quant_delay", True),
        ("freeze_every", "5"),
        ("weight_lr", "fast"),
    ],
)
def test_numbers_outside_their_range_are_one_line(field, value):
    with pytest.raises(UsageError, match=rf"{field} must be .*Received: ") as caught:
        Schedule(**{field: value})
    assert "\n" not in str(caught.value)


def test_a_delay_must_leave_steps():
    with pytest.raises(UsageError, match=r"quant_delay"):
        Schedule(steps=10, quant_delay=10)


def test_the_settled_one_with_the_smallest_gradient_freezes():
    log2_t = np.array([0.5, 1.5, 2.5, 2.0], np.float32)
    average = np.array([0.4, 2.5, 2.1, 2.0])  # the second has been above 2 most of the time
    assert settled(log2_t, average).tolist() == [True, False, True, True]
    gradient, free = np.array([-3.0, 0.1, 2.0, -1.0]), np.zeros(4, bool)
    assert to_freeze(gradient, log2_t, average, free) == (3,)
    assert to_freeze(gradient, log2_t, average, np.array([0, 0, 0, 1], bool), most=2) == (2, 0)
    assert to_freeze(gradient, log2_t, average, ~free) == ()
    assert to_freeze(np.array([1.0, 0, 1, -1]), log2_t, average, free, most=9) == (0, 2, 3)  # ties in order


def test_a_power_of_two_counts_to_the_interval_below_and_nan_settles_nothing():
    assert settled(np.float32([1.0]), np.array([1.0 + 1e-9])).tolist() == [False]
    assert to_freeze(np.zeros(1), np.float32([math.nan]), np.array([1.0]), np.zeros(1, bool)) == ()
    assert to_freeze(np.array([math.nan, 5.0]), np.float32([1, 1]), np.ones(2), np.zeros(2, bool)) == (1,)


@given(st.floats(-8, 8), st.integers(1, 50))
def test_the_debiased_average_of_a_constant_is_the_constant(value, steps):
    average = 0.0
    for _ in range(steps):
        average = 0.9999 * average + (1 - 0.9999) * value
    assert debiased(np.array([average]), 0.9999, steps)[0] == pytest.approx(value, rel=1e-9)


def test_learning_rates():
    stairs = Rate(1e-2, 0.5, 10)
    assert [float(stairs(step)) for step in (0, 9, 10, 25)] == pytest.approx([1e-2, 1e-2, 5e-3, 2.5e-3])
    cosine = Rate(1.0, 0.5, 10, cosine_steps=8)
    assert [float(cosine(step)) for step in (0, 4, 8, 9)] == pytest.approx([1, 0.5, 0, 0], abs=1e-7)
    warm = Rate(1.0, 0.5, 100, warmup_steps=4)
    assert [float(warm(step)) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1]


def logits(rows: int = 4) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_summed_over_the_rows(smoothing):
    z, labels = logits(), np.array([0, 2, 1, 2])
    loss = make_loss("labels", SCORES, label_smoothing=smoothing)
    targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    found = loss.of(Seen({"z": tf.constant(z.reshape(4, 3, 1, 1))}, tf.constant(labels), None))
    assert float(found) == pytest.approx(-(targets * np.log(softmax(z))).sum(), rel=1e-6)
    assert loss.needs_labels


def test_distillation_is_the_divergence_at_the_temperature():
    z, f = logits(), logits(4) + 1
    f[0] = z[0]
    seen = Seen({"z": tf.constant(z)}, None, {"z": tf.constant(f)})
    p, q = softmax(f / 3), softmax(z / 3)
    found = make_loss("distill", SCORES, temperature=3.0).of(seen)
    assert float(found) == pytest.approx(9 * (p * np.log(p / q)).sum(), rel=1e-4, abs=1e-6)
    same = Seen({"z": tf.constant(f)}, None, {"z": tf.constant(f)})
    assert float(make_loss("distill", SCORES).of(same)) == 0.0


def test_an_output_that_is_no_scores_is_distilled_by_relative_error():
    heads = (*SCORES, Head("map", "map", "map", None))
    f = np.random.default_rng(0).normal(size=(4, 2, 5)).astype(np.float32)
    own = {"z": tf.constant(logits()), "map": tf.constant(f * np.float32(1.5))}
    taught = {"z": tf.constant(logits()), "map": tf.constant(f)}
    loss = make_loss("distill", heads)
    assert float(loss.of(Seen(own, None, taught))) == pytest.approx(4 * 0.25, rel=1e-5)
    zero = {"z": taught["z"], "map": tf.zeros([4, 2, 5])}
    assert float(loss.of(Seen(zero, None, zero))) == 0.0


def test_an_output_without_a_softmax_is_class_scores_where_it_is_the_only_one():
    boxes, other = Head("boxes", "boxes", "boxes", 4), Head("map", "map", "map", None)
    f = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    own, taught = {"boxes": tf.constant(2 * f), "z": tf.constant(logits())}, {"boxes": tf.constant(f), "z": tf.constant(logits())}
    beside = make_loss("distill", (*SCORES, boxes))
    assert float(beside.of(Seen(own, None, taught))) == pytest.approx(4, rel=1e-5)  # relative error of the boxes
    assert beside.scored == SCORES[0]
    assert make_loss("labels", (*SCORES, boxes)).scored == SCORES[0]
    p, q = softmax(f), softmax(2 * f)
    alone = make_loss("distill", (boxes,))
    assert float(alone.of(Seen(own, None, taught))) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-4)
    assert (alone.scored, make_loss("distill", (boxes, other)).scored) == (boxes, None)
    assert make_loss("labels", (boxes, other)).scored == boxes  # the labels say so


def test_losses_of_ones_own_sum_over_rows_whatever_they_return():
    y, x = tf.constant(logits()), tf.constant(logits() * 2)
    seen = Seen({"y": x, "z": x}, y, None)
    expected = 4 * float(tf.reduce_mean(tf.square(x - y)))
    for function in (keras.losses.MeanSquaredError(), keras.losses.mean_squared_error, lambda a, b: tf.reduce_mean((a - b) ** 2)):
        assert float(make_loss(function, SCORES).of(seen)) == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_is_not_one_number_for_each_row_is_refused():
    seen = Seen({"y": tf.zeros([4, 3]), "z": tf.zeros([4, 3])}, tf.zeros([4], tf.int64), None)
    with pytest.raises(UsageError, match=r"for each of the 4 rows .* Received: shape \[3\]"):
        make_loss(lambda labels, outputs: tf.reduce_sum(outputs, 0), SCORES).of(seen)


@pytest.mark.parametrize("heads", [(), (Head("map", "map", "map", None),), (*SCORES, Head("b", "c", "c", 7))])
def test_labels_need_one_output_with_scores(heads):
    with pytest.raises(UsageError, match=r"exactly one output .*distil.*Received: "):
        make_loss("labels", heads)


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"temperature": 0.0}, {"temperature": math.nan}, {"label_smoothing": 1.0}])
def test_losses_that_are_none(options):
    with pytest.raises(UsageError, match=r"Received: "):
        make_loss(**{"loss": "distill", "heads": SCORES, **options})


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(DataError, match=rf"data: labels 0\.\.2 are expected \(3 classes\)\. Received: label {label}$"):
        check_labels(np.array([0, label, 2]), 3, "data")
    check_labels(np.array([], np.int64), 3, "data")
    check_labels(np.array([0, 2]), 3, "data")


def test_better_is_more_accurate_then_smaller_loss_and_ties_keep_the_earlier():
    def row(accuracy, loss):
        return Row(0, loss, accuracy, None, None, 0, 0, 0)

    assert row(0.5, 9).better_than(None)
    assert row(0.6, 9).better_than(row(0.5, 1))
    assert row(0.5, 1).better_than(row(0.5, 2))
    assert not row(0.5, 2).better_than(row(0.5, 2))
    assert row(None, 1).better_than(row(None, 2))


CONFIGS = [
    None,
    "{",
    "[]",
    '{"cluster": {"worker": ["a:1"]}}',
    json.dumps({"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}),
    json.dumps({"cluster": {"worker": ["host"]}, "task": {"type": "worker", "index": 0}}),
    json.dumps({"cluster": {"worker": ["host:70000"]}, "task": {"type": "worker", "index": 0}}),
    json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
    json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}),
    json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "ps", "index": 0}}),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_cluster_that_is_none_is_one_line(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match=r"strategy multi-worker: TF_CONFIG .*Received: ") as caught:
        make_strategy("multi-worker")
    assert "\n" not in str(caught.value)


def test_multi_worker_must_come_first(monkeypatch):
    tf.constant(1.0)
    cluster = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UsageError, match=r"before TensorFlow runs anything"):
        make_strategy("multi-worker")


@pytest.mark.parametrize("devices", [None, ["GPU:7", "GPU:8"], ["CPU:0"], ["CPU:0", "CPU:0"], []])
def test_mirrored_devices_that_are_not_there(devices):
    if len(tf.config.list_logical_devices()) > 1:
        pytest.skip("this machine has several devices")
    with pytest.raises(UsageError, match=r"two or more different devices out of CPU:0 .*Received: "):
        make_strategy("mirrored", devices)


def test_hosts_that_are_not_known(monkeypatch):
    cluster = {"cluster": {"worker": ["127.0.0.1:1", "no-such-host.invalid:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UsageError, match=r"hosts that are known here. Received: no-such-host.invalid:2 "):
        make_strategy("multi-worker")


def test_strategies_by_name():
    assert make_strategy("none").num_replicas_in_sync == 1
    for arguments in (("mirror",), ("none", ["CPU:0"])):
        with pytest.raises(UsageError, match=r"Received: "):
            make_strategy(*arguments)
