"""Trainings that do not come to their end: signals, broken data, full disks, numbers that blow up; and what is left of them."""

from __future__ import annotations

import csv
import logging
import os
import resource
import signal
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import CLASSES, Batches, network, weights_digest

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.training import BrokenDataError, DivergedError, Schedule, StoppedTrainingError, check_delay, train
from tqt_onnx.backend_tf.training.blame import first_not_finite
from tqt_onnx.backend_tf.training.checkpoints import Checkpoints
from tqt_onnx.backend_tf.training.interrupt import Interrupt
from tqt_onnx.backend_tf.training.state import TrainingState
from tqt_onnx.ir import DataError, UsageError

FAST = Schedule(batch=8, steps=24, weight_lr=1e-3)
SELECTION = Batches(seed=7)


def model() -> RegeneratedModel:
    return regenerate(*network())


def select():
    return [SELECTION.batch(step) for step in range(2)]


@dataclass
class Signals:
    """A listener that sends this process a signal after a step."""

    at: int
    number: int = signal.SIGINT
    rows: list[int] = field(default_factory=list)

    def on_step(self, step, total, scalars):
        if step == self.at:
            os.kill(os.getpid(), self.number)

    def on_validation(self, row):
        self.rows.append(row.step)

    def on_freeze(self, step, group, log2_t):
        pass


def largest(net: RegeneratedModel) -> float:
    return max(float(np.abs(array).max()) for array in net.arrays().values())


def test_a_delay_that_outlives_the_epochs_is_refused_before_any_work():
    schedule = Schedule(batch=8, epochs=1, quant_delay=10)
    with pytest.raises(UsageError, match=r"quant_delay must leave steps .* out of 10. Received: 10$"):
        train(model(), Batches(), schedule=schedule)
    check_delay(schedule, 11)


@pytest.mark.parametrize("blown_up", [False, True])
def test_in_front_of_the_quantizers_no_float_accuracy_is_the_kept_models(blown_up):
    data = Poisoned(at=7) if blown_up else Batches()
    schedule = replace(FAST, quant_delay=20, validate_every=2)
    run = partial(train, model(), data, schedule=schedule, select=select, listener=Signals(99 if blown_up else 6))
    if blown_up:
        with pytest.raises(DivergedError) as caught:
            run()
        result = caught.value.result
    else:
        result = run()
        assert (result.interrupted, result.kept) == (True, 6)
    assert result.history == ()
    assert result.selected_by.startswith("nothing: ")


@dataclass
class Poisoned(Batches):
    """A NaN in one image of one batch; batches change when they are asked for once more."""

    at: int = 12
    asked: set[int] = field(default_factory=set)

    def batch(self, step, part=0, parts=1):
        feeds, labels = super().batch(step, part, parts)
        if step == self.at and step not in self.asked:
            feeds = {"x": feeds["x"].copy()}
            feeds["x"][3, 2, 1, 0] = np.nan
        self.asked.add(step)
        return feeds, labels


def test_the_batch_that_is_blamed_is_the_one_that_was_used():
    with pytest.raises(DivergedError, match=r"loss of step 12 is not finite; .*the input 'x'"):
        train(model(), Poisoned(), schedule=FAST)


def test_blame_walks_the_steps_in_order_through_all_parts():
    net = model()
    variables = {net.true_names[variable.name]: variable for variable in net.trainable_weights_only}
    parts = [Batches().batch(0, part, 2)[0] for part in range(2)]
    variables["dense/b"].assign(np.full(variables["dense/b"].shape, np.nan, np.float32))
    parts[1] = {"x": np.full_like(parts[1]["x"], 3e38)}  # finite, its convolution is not
    assert first_not_finite(net, parts, net.threshold_vector(), False) == "'conv__acc', an output of the Conv 'conv__acc'"
    assert "dense" in str(first_not_finite(net, parts[:1], net.threshold_vector(), False))
    variables["conv/w"].assign(np.full(variables["conv/w"].shape, np.inf, np.float32))
    assert "conv" in str(first_not_finite(net, [], net.threshold_vector(), False))


class Exploding(Poisoned):
    """From a step on images so loud that the weights follow them."""

    def batch(self, step, part=0, parts=1):
        feeds, labels = Batches.batch(self, step, part, parts)
        return {"x": feeds["x"] * np.float32(1e25 if step >= self.at else 1)}, labels


@pytest.mark.parametrize(
    ("rate", "data", "kept", "selected_by"),
    [
        (1e20, Batches(), {0}, "nothing: the last state that is known to be finite"),  # finite as the weights are: 1e20 gradients
        (0.01, Exploding(at=25), {0, 10}, "the training loss"),
    ],
)
def test_without_selection_data_weights_that_blow_up_are_not_kept(rate, data, kept, selected_by):
    net = model()
    with pytest.raises(DivergedError) as caught:
        train(net, data, schedule=Schedule(batch=8, steps=40, weight_lr=rate, weight_optimizer="sgd-momentum"), mode="float")
    assert largest(net) < 10
    assert caught.value.result.kept in kept
    assert caught.value.result.selected_by == selected_by


def test_numbers_that_are_not_finite_behind_the_last_step_are_an_error():
    """No loss tells of them."""

    def loss(labels, outputs):
        return tf.where(labels >= 0, tf.sqrt(tf.reduce_sum(tf.square(outputs), 1) * 0), 0)  # 0, with the gradient 0 * inf

    with pytest.raises(DivergedError, match=r"step 0 trained is not finite; .* first is the .*'.*Received: ") as caught:
        train(model(), Batches(), schedule=replace(FAST, steps=1), mode="float", loss=loss)
    assert caught.value.result.kept == 0


def test_broken_data_on_the_way_leaves_a_checkpoint_and_the_result_so_far(tmp_path):
    @dataclass
    class Mislabelled(Batches):
        at: int = 13

        def batch(self, step, part=0, parts=1):
            feeds, labels = super().batch(step, part, parts)
            return feeds, labels + (CLASSES if step == self.at else 0)

    net, whole = model(), model()
    options = {"schedule": FAST, "select": select, "folder": tmp_path}
    with pytest.raises(BrokenDataError, match=r"stopped behind step 13; .* command goes on: .*step 13.*Received: ") as caught:
        train(net, Mislabelled(), **options)
    assert isinstance(caught.value, StoppedTrainingError) and isinstance(caught.value, DataError)
    result = caught.value.result
    assert (result.steps, result.kept) == (13, max(result.history, key=lambda row: (row.accuracy, -row.loss)).step)
    repaired = train(net := model(), Mislabelled(at=-1), **options)
    assert repaired.resumed_from == 13
    train(whole, Batches(), schedule=FAST, select=select)
    assert weights_digest(net) == weights_digest(whole)


def test_broken_data_behind_steps_that_blew_up_hide_nothing():
    """Without checkpoints too: the loss of step 12 is looked at when the data of step 13 break."""

    @dataclass
    class Both(Poisoned):
        def batch(self, step, part=0, parts=1):
            feeds, labels = super().batch(step, part, parts)
            return feeds, labels + (CLASSES if step == 13 else 0)

    with pytest.raises(DivergedError, match="loss of step 12 is not finite"):
        train(net := model(), Both(at=12), schedule=FAST, select=select, keep="last")
    assert all(np.isfinite(array).all() for array in net.arrays().values())


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path, caplog):
    """No file may grow beyond a few bytes for a while."""
    net = model()
    state = TrainingState(net, FAST, 24, tf.distribute.get_strategy())
    checkpoints = Checkpoints(state, tmp_path, {}, 4)
    checkpoints.save()
    state.facts.step = 4
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with caplog.at_level(logging.WARNING):
            checkpoints.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [record.message.count("\n") for record in caplog.records if "no checkpoint could be written" in record.message] == [0]
    assert not [*(tmp_path / "checkpoints").glob("step-4*")]
    again = TrainingState(model(), FAST, 24, tf.distribute.get_strategy())
    assert Checkpoints(again, tmp_path, {}, 4).restore()
    assert again.facts.step == 0
    checkpoints.save()
    assert Checkpoints(again, tmp_path, {}, 4).restore()
    assert again.facts.step == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_validation_gives_it_up_and_the_next_sitting_makes_up_for_it(tmp_path, number):
    schedule = replace(FAST, validate_every=6, steps=14)
    batches = []

    def interrupted():
        for batch in select():
            batches.append(batch)
            if len(batches) == 4:  # the first of the second validation, as one was read to know the data by
                os.kill(os.getpid(), number)
            yield batch

    part = train(model(), Batches(), schedule=schedule, select=interrupted, folder=tmp_path)
    assert (part.interrupted, part.steps, len(batches)) == (True, 6, 4)
    assert [row.step for row in part.history] == [0]
    whole, net = model(), model()
    expected = train(whole, Batches(), schedule=schedule, select=select, folder=tmp_path / "whole")
    found = train(net, Batches(), schedule=schedule, select=select, folder=tmp_path)
    assert found.history == expected.history
    assert weights_digest(net) == weights_digest(whole)
    assert (tmp_path / "validation.csv").read_text() == (tmp_path / "whole" / "validation.csv").read_text()


class Killed(BaseException):
    """Nothing is done about it, as nothing is about a signal that kills."""


@pytest.mark.parametrize("killed_at", [6, 10])
def test_a_validation_is_logged_once_whatever_was_killed_behind_it(tmp_path, killed_at):
    """At a delay that is over, and at a step that is validated anyway."""

    class Kills(Signals):
        def on_validation(self, row):
            super().on_validation(row)
            if row.step == killed_at:
                raise Killed

    schedule = replace(FAST, quant_delay=10, validate_every=6, steps=14)
    options = {"schedule": schedule, "select": select, "folder": tmp_path, "checkpoint_every": 1}
    with pytest.raises(Killed):
        train(model(), Batches(), listener=Kills(99), **options)
    result = train(model(), Batches(), **options)
    with (tmp_path / "validation.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [0, 6, 10, 12, 14] == [row.step for row in result.history]


def test_handlers_are_put_back_and_those_of_others_left_alone(monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    changed = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # something other than Python handles it
    monkeypatch.setattr(signal, "signal", lambda *arguments: changed.append(arguments))
    with Interrupt():
        pass
    assert changed == []
