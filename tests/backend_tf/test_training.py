"""The training loop on one device: what moves, what stays, what is kept, and that a stopped training goes on as if it had not."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import CLASSES, Batches, network, weights_digest

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.training import DivergedError, Row, Schedule, train
from tqt_onnx.backend_tf.training.state import TrainingState
from tqt_onnx.backend_tf.training.steps import Steps
from tqt_onnx.ir import DataError, UsageError

FAST = Schedule(batch=8, steps=24, weight_lr=1e-3)


def model() -> RegeneratedModel:
    return regenerate(*network())


def selection(seed: int = 7, rows: int = 2, **options):
    batches = Batches(seed=seed, **options)
    return lambda: [batches.batch(step) for step in range(rows)]


@dataclass
class Recorder:
    """A listener that keeps what it is told, and presses Ctrl-C after a step."""

    stop_at: int | None = None
    steps: list[int] = field(default_factory=list)
    scalars: dict[int, dict[str, float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    frozen: list[tuple[int, str, float]] = field(default_factory=list)

    def on_step(self, step, total, scalars):
        self.steps.append(step)
        if scalars is not None:
            self.scalars[step] = dict(scalars)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_validation(self, row):
        self.rows.append(row)

    def on_freeze(self, step, group, log2_t):
        self.frozen.append((step, group, log2_t))


@pytest.mark.parametrize(
    ("mode", "loss", "weights_move", "thresholds_move"),
    [
        ("float", "labels", True, False),
        ("weights", "labels", True, False),
        ("thresholds", "distill", False, True),
        ("both", "distill", True, True),
    ],
)
def test_a_mode_moves_what_it_names_and_nothing_else(mode, loss, weights_move, thresholds_move):
    net = model()
    before, thresholds = net.arrays(), net.threshold_vector()
    data = Batches(labelled=loss == "labels")
    result = train(net, data, schedule=replace(FAST, steps=5, freezing=False), mode=mode, loss=loss)
    assert {name for name, array in net.arrays().items() if (array != before[name]).any()} == (
        set(before) if weights_move else set()
    )
    assert (net.threshold_vector() != thresholds).any() == thresholds_move
    assert (result.steps, result.total, result.kept, result.epochs) == (5, 5, 5, 0.5)
    assert result.selected_by == "nothing: the last step"
    assert [row.final for row in result.thresholds] == net.threshold_vector().tolist()
    json.dumps(result.to_dict())


def test_one_step_is_the_gradient_of_the_mean_loss():
    net, data = model(), Batches()
    feeds, labels = data.batch(0)
    with tf.GradientTape() as tape:
        logits = net.forward({"x": tf.constant(feeds["x"])}, also=["logits"])["logits"]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    variables = [variable.value for variable in net.trainable_weights_only]
    gradients = tape.gradient(loss, variables)
    expected = [variable.numpy() - 0.5 * gradient.numpy() for variable, gradient in zip(variables, gradients, strict=True)]
    recorder = Recorder()
    train(net, data, schedule=Schedule(batch=8, steps=1, weight_lr=0.5, weight_optimizer="sgd-momentum"), listener=recorder)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-7)
    assert recorder.scalars[1]["train/loss"] == pytest.approx(float(loss), rel=1e-6)
    right = (logits.numpy().argmax(axis=1) == labels).mean()
    assert recorder.scalars[1]["train/accuracy"] == right


def test_regularization_pulls_weights_only():
    found = []
    for regularization in (0.0, 0.25):
        net = model()
        before = net.arrays()
        schedule = Schedule(batch=8, steps=1, weight_lr=0.5, weight_optimizer="sgd-momentum", regularization=regularization)
        train(net, Batches(), schedule=schedule)
        found.append((net.arrays(), net.threshold_vector()))
    (plain, thresholds), (pulled, same) = found
    assert (thresholds == same).all()
    for name, array in plain.items():
        pull = 0.5 * 0.25 * before[name] if name.endswith("/w") else 0
        np.testing.assert_allclose(pulled[name], array - pull, rtol=1e-5, atol=1e-7)


def test_a_frozen_threshold_keeps_its_bits_whatever_its_momentum():  # T4
    state = TrainingState(model(), FAST, 24, tf.distribute.get_strategy())
    move = tf.function(state.move_thresholds, autograph=False)
    groups = len(state.model.groups)
    for _ in range(20):
        move(tf.ones([groups]))
    held = state.thresholds()
    state.frozen.assign(tf.one_hot(2, groups) > 0)
    for _ in range(100):
        move(tf.ones([groups]))
    moved = state.thresholds()
    assert moved[2].tobytes() == held[2].tobytes()
    assert (np.delete(moved, 2) != np.delete(held, 2)).all()
    momentum = next(variable for variable in state.threshold_optimizer.variables if "momentum" in variable.path)
    assert momentum.value.numpy()[2] > 0.5  # it would have moved


def test_a_turn_to_freeze_looks_at_the_gradients_since_the_one_before(monkeypatch):
    """The first one too, at as many steps."""
    turns, freeze = [], TrainingState.freeze

    def noted(state, most):
        turns.append((state.facts.step, state.facts.step - state.facts.turn_from))
        return freeze(state, most)

    monkeypatch.setattr(TrainingState, "freeze", noted)
    train(model(), Batches(), schedule=replace(FAST, freeze_from=12, freeze_every=3))
    assert turns == [(12, 3), (15, 3), (18, 3), (21, 3), (24, 3)]


def test_layers_in_float64_are_found_anew_at_every_validation(monkeypatch, tmp_path):  # X2
    """As what is trained moves; also by a training that was interrupted."""

    def wide(net):
        return frozenset({"dense__acc"} if net.threshold_vector()[0] != model().threshold_vector()[0] else ())

    monkeypatch.setattr(RegeneratedModel, "wide_layers", wide)
    seen, run = [], Steps.run

    def noted(steps, phase, rows, stop=False):
        seen.append(steps._state.facts.wide)
        return run(steps, phase, rows, stop)

    monkeypatch.setattr(Steps, "run", noted)
    schedule = replace(FAST, steps=8, validate_every=3, freezing=False)
    train(model(), Batches(), schedule=schedule)
    assert seen == [[]] * 3 + [["dense__acc"]] * 5
    seen.clear()
    for stop in (2, None):
        train(model(), Batches(), schedule=schedule, folder=tmp_path, listener=Recorder(stop))
    assert seen == [[]] * 3 + [["dense__acc"]] * 5


@pytest.mark.parametrize("deterministic", [True, False])
def test_operators_are_deterministic_for_the_time_of_a_training_unless_one_opts_out(deterministic):
    from tensorflow.python.framework import config

    seen = []

    class Listener(Recorder):
        def on_step(self, step, total, scalars):
            seen.append(config.is_op_determinism_enabled())
            super().on_step(step, total, scalars)

    assert not config.is_op_determinism_enabled()
    train(model(), Batches(), schedule=replace(FAST, steps=1), seed=3, deterministic=deterministic, listener=Listener())
    assert seen and set(seen) == {deterministic}
    assert not config.is_op_determinism_enabled()


def test_every_threshold_freezes_in_a_short_run_and_then_stays():
    recorder = Recorder()
    net = model()
    result = train(net, Batches(), schedule=replace(FAST, steps=60), listener=recorder)
    assert sorted(group for _, group, _ in recorder.frozen) == sorted(net.groups)
    assert max(step for step, _, _ in recorder.frozen) <= 46  # three quarters, and a turn
    assert {row.group: (row.final, row.frozen_at) for row in result.thresholds} == {
        group: (log2_t, step) for step, group, log2_t in recorder.frozen
    }
    assert recorder.steps == list(range(1, 61))
    assert set(recorder.scalars) == set(range(10, 61, 10))


def test_thresholds_alone_end_when_all_are_frozen():
    result = train(model(), Batches(), schedule=replace(FAST, steps=60), mode="thresholds", select=selection())
    assert result.steps < result.total
    assert all(row.frozen_at is not None for row in result.thresholds)
    assert result.history[-1].step == result.steps


def test_two_trainings_give_the_same_bits():
    def once() -> str:
        net = model()
        train(net, Batches(), schedule=FAST, select=selection(), keep="last", loss="distill")
        return weights_digest(net)

    assert once() == once()


@pytest.mark.parametrize(("keep", "stops"), [("best", (10,)), ("last", (5, 17))])  # at the delay, and around it, while freezing
def test_a_training_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, stops, keep):
    schedule = replace(FAST, quant_delay=10, validate_every=4)
    options = {"schedule": schedule, "select": selection(), "keep": keep}

    def calibrate(found):
        weight = found.graph.initializers["dense/w"].const_value.numpy()
        return dict(zip(model().groups, model().threshold_vector() + float(weight[0, 0]) % 0.25, strict=True))

    whole = model()
    expected = train(whole, Batches(), calibrate=calibrate, **options)
    for stop in stops:
        part = train(model(), Batches(), calibrate=calibrate, folder=tmp_path, listener=Recorder(stop), **options)
        assert part.interrupted
        assert part.steps == stop
    net = model()
    result = train(net, Batches(), calibrate=calibrate, folder=tmp_path, **options)
    assert weights_digest(net) == weights_digest(whole)
    assert result.history == expected.history
    assert result.thresholds == expected.thresholds
    assert (result.resumed_from, result.interrupted, result.kept) == (stops[-1], False, expected.kept)
    again = model()
    assert train(again, Batches(), calibrate=calibrate, folder=tmp_path, **options).resumed_from == 24  # nothing left to do
    assert weights_digest(again) == weights_digest(whole)


def test_thresholds_are_calibrated_when_the_delay_is_over():
    calls = []

    def calibrate(found):
        calls.append(found.graph.initializers["conv/w"].const_value.numpy())
        return dict.fromkeys(model().groups, 1.0 + 1e-9)  # float32 would round it to the exponent below

    net, recorder = model(), Recorder()
    start = net.arrays()["conv/w"]
    schedule = replace(FAST, quant_delay=4, freezing=False, threshold_lr=1e-12)
    result = train(net, Batches(), schedule=schedule, calibrate=calibrate, select=selection(), listener=recorder)
    assert len(calls) == 1
    assert (calls[0] != start).any()  # of the float weights by then
    assert {np.ceil(row.initial) for row in result.thresholds} == {2}
    assert [row.step for row in recorder.rows] == [0, 4, 6, 12, 18, 24]
    assert result.kept >= 4  # the float network is no candidate


def test_the_best_state_is_kept_and_the_selection_data_says_which():
    net = model()
    result = train(net, Batches(), schedule=replace(FAST, weight_lr=10.0, steps=16), select=selection(), select_name="val.npz")
    best = max(result.history, key=lambda row: (row.accuracy, -row.loss))
    assert result.kept == best.step
    assert result.kept != 16
    assert result.selected_by == "accuracy on val.npz"
    right = [net(feeds["x"]).numpy().argmax(axis=1) == labels for feeds, labels in selection()()]
    assert np.mean(right) == best.accuracy


def test_without_labels_the_loss_selects_and_agreement_is_told():
    options = {"loss": "distill", "select": selection(labelled=False)}
    result = train(model(), Batches(labelled=False), schedule=replace(FAST, steps=4), **options)
    assert result.selected_by == "loss on the selection data"
    assert all(row.accuracy is None and 0 <= row.agreement <= 1 for row in result.history)


def test_a_loss_of_ones_own_sees_labels_and_outputs():
    def loss(labels, outputs):
        return tf.reduce_sum(tf.square(outputs - tf.one_hot(labels, CLASSES)), axis=1)

    options = {"mode": "float", "loss": loss, "select": selection(seed=0), "keep": "last"}
    history = train(model(), Batches(), schedule=FAST, **options).history
    assert history[-1].loss < history[0].loss


OTHERS = {
    "schedule": {"schedule": replace(FAST, weight_lr=2e-3)},
    "mode": {"mode": "weights"},
    "loss": {"loss": "distill"},
    "seed": {"seed": 1},
    "data": {"batches": Batches(seed=1)},
    "model": {"model": regenerate},
}


@pytest.fixture(name="begun", scope="module")
def a_folder_of_a_training(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    train(model(), Batches(), schedule=FAST, folder=folder, listener=Recorder(3))
    return folder


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(begun, what):
    changed = dict(OTHERS[what])
    net = regenerate(*network(seed=5)) if "model" in changed else model()
    changed.pop("model", None)
    before = weights_digest(net)
    with pytest.raises(UsageError, match=rf"belongs to another {what};.*Received: ") as caught:
        train(net, changed.pop("batches", Batches()), folder=begun, **{"schedule": FAST, **changed})
    assert "\n" not in str(caught.value)
    assert weights_digest(net) == before


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    options = {"schedule": FAST, "folder": tmp_path, "checkpoint_every": 4}
    whole = model()
    train(whole, Batches(), schedule=FAST)
    assert train(model(), Batches(), listener=Recorder(9), **options).steps == 9
    newest = tmp_path / "checkpoints" / "step-9.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    net = model()
    result = train(net, Batches(), **options)
    assert result.resumed_from == 8
    assert weights_digest(net) == weights_digest(whole)
    assert "step-9" in caplog.text


def test_checkpoints_that_cannot_be_read_are_one_line(tmp_path):
    train(model(), Batches(), schedule=FAST, folder=tmp_path, listener=Recorder(2))
    for file in (tmp_path / "checkpoints").glob("step-*"):
        file.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"none of the checkpoints can be read. Received: "):
        train(model(), Batches(), schedule=FAST, folder=tmp_path)
    (tmp_path / "checkpoints" / "latest.json").write_text('["../../step-1"')
    with pytest.raises(DataError, match=r"latest.json: .*Received: "):
        train(model(), Batches(), schedule=FAST, folder=tmp_path)


@dataclass
class Poisoned(Batches):
    """A NaN in one image of one batch."""

    at: int = 12

    def batch(self, step, part=0, parts=1):
        feeds, labels = super().batch(step, part, parts)
        if step == self.at:
            feeds["x"] = feeds["x"].copy()
            feeds["x"][3, 2, 1, 0] = np.nan
        return feeds, labels


def test_a_loss_that_is_no_number_stops_names_the_input_and_keeps_the_best(tmp_path):
    net = model()
    with pytest.raises(DivergedError, match=r"loss of step 12 is not finite; .*the input 'x'.*Received: ") as caught:
        train(net, Poisoned(), schedule=FAST, select=selection(), folder=tmp_path)
    result = caught.value.result
    assert result.kept == max(result.history, key=lambda row: (row.accuracy, -row.loss)).step
    assert result.steps >= 12
    assert all(np.isfinite(array).all() for array in net.arrays().values())
    latest = json.loads((tmp_path / "checkpoints" / "latest.json").read_text())
    assert int(latest[0].removeprefix("step-")) <= 12  # nothing of what came after


def test_weights_that_blow_up_name_the_first_layer():
    net = model()
    with pytest.raises(DivergedError, match=r"what blew up first is 'dense__acc', an output of the Gemm 'dense__acc'\.") as caught:
        schedule = Schedule(batch=8, steps=40, weight_lr=1e20, weight_optimizer="sgd-momentum")
        train(net, Batches(), schedule=schedule, mode="float")
    assert "\n" not in str(caught.value)
    assert all(np.isfinite(array).all() for array in net.arrays().values())


def test_a_label_that_is_no_class_is_named_before_it_is_trained_on():
    @dataclass
    class Mislabelled(Batches):
        def batch(self, step, part=0, parts=1):
            feeds, labels = super().batch(step, part, parts)
            return feeds, labels + (CLASSES if step == 5 else 0)

    with pytest.raises(DataError, match=rf"training data, step 5: labels 0\.\.{CLASSES - 1} are expected.*Received: "):
        train(model(), Mislabelled(), schedule=FAST)
    with pytest.raises(DataError, match=r"the selection data: labels 0\.\."):
        train(model(), Batches(), schedule=FAST, select=lambda: [({"x": np.zeros((1, 6, 6, 3), np.float32)}, np.array([-1]))])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "all"}, UsageError, "mode must be one of"),
        ({"schedule": Schedule(batch=4)}, UsageError, "batches of 4. Received: 8"),
        ({"keep": "best"}, UsageError, "needs data to select by"),
        ({"schedule": replace(FAST, quant_delay=3), "mode": "thresholds"}, UsageError, "quant_delay"),
        ({"batches": Batches(labelled=False)}, UsageError, "needs labelled training data"),
        ({"select": selection(labelled=False)}, UsageError, "needs labels here too"),
        ({"select": list}, DataError, "at least one example"),
        ({"batches": Batches(steps_per_epoch=0)}, DataError, "at least one batch"),
        ({"net": regenerate(network()[0])}, UsageError, "mode float only"),
    ],
)
def test_what_cannot_be_trained_is_one_line(options, error, message):
    given = {"schedule": FAST, **options}
    net, batches = given.pop("net", None) or model(), given.pop("batches", Batches())
    with pytest.raises(error, match=rf"{message}.*") as caught:
        train(net, batches, **given)
    assert "\n" not in str(caught.value)
    assert "Received: " in str(caught.value)


def test_what_is_logged_by_an_interrupted_training_is_what_the_whole_one_logs(tmp_path):
    train(model(), Batches(), schedule=FAST, folder=tmp_path / "whole", select=selection())
    for stop in (10, None):
        train(model(), Batches(), schedule=FAST, folder=tmp_path / "parts", select=selection(), listener=Recorder(stop))
    for name in ("validation.csv", "frozen.csv", "thresholds.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
