"""Batch norms in a training: statistics move during the first epoch and stay where they are from then on (B2)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf
from batch_norm_networks import every_layer, images
from tiny_training import weights_digest

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.training import Schedule, train
from tqt_onnx.verbs.preparation import calibrate_prepared, prepare

SCHEDULE = Schedule(batch=8, steps=12, weight_lr=1e-3, statistics_epochs=1, weight_optimizer="sgd-momentum")


@dataclass
class Unlabelled:
    """Images of the batch norm networks."""

    batch_size: int = 8
    steps_per_epoch: int = 5
    labelled: bool = False

    def batch(self, step, part=0, parts=1):
        return {"x": np.array_split(images(self.batch_size, seed=step), parts)[part]}, None


@dataclass
class Watch:
    """The moving statistics after every step."""

    model: RegeneratedModel
    moving: list[bytes] = field(default_factory=list)

    def on_step(self, step, total, scalars):
        self.moving.append(
            b"".join(np.asarray(variable.value.numpy()).tobytes() for variable in self.model.non_trainable_variables)
        )

    def on_validation(self, row):
        pass

    def on_freeze(self, step, group, log2_t):
        pass


@pytest.fixture(name="make", scope="module")
def quantized_network():
    prepared = prepare(every_layer(), images(64))
    calibrated = calibrate_prepared(prepared, weight_method="max")
    return lambda: regenerate(prepared.model, calibrated.graph, calibrated.log2_thresholds)


def test_statistics_move_in_the_first_epoch_only_and_a_resumed_training_is_the_same(make, tmp_path):
    model = make()
    watch = Watch(model)
    train(model, Unlabelled(), schedule=SCHEDULE, loss="distill", listener=watch)
    assert len(set(watch.moving[:5])) == 5
    assert set(watch.moving[4:]) == {watch.moving[4]}
    assert model.statistics_frozen
    for stop in (3, 8):  # while they move, and behind
        part = make()

        class Stop(Watch):
            def on_step(self, step, total, scalars, stop=stop):
                if step == stop:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(part, Unlabelled(), schedule=SCHEDULE, loss="distill", folder=tmp_path, checkpoint_every=1, listener=Stop(part))
    resumed = make()
    result = train(resumed, Unlabelled(), schedule=SCHEDULE, loss="distill", folder=tmp_path, checkpoint_every=1)
    assert result.resumed_from == 7
    assert weights_digest(resumed) == weights_digest(model)


def test_a_batch_without_finite_statistics_moves_none(make):
    """One image of 1e25: its square is no float32. The loss is finite all the same."""

    class Loud(Unlabelled):
        def batch(self, step, part=0, parts=1):
            feeds, labels = super().batch(step, part, parts)
            if step == 1:
                feeds["x"][3, 1, 2, 2] = 1e25
            return feeds, labels

    model = make()
    result = train(model, Loud(), schedule=SCHEDULE, loss=lambda labels, outputs: tf.reduce_sum(tf.tanh(outputs), 1), mode="float")
    assert result.kept == SCHEDULE.steps
    for variable in model.variables:
        assert np.isfinite(variable.value.numpy()).all()
        assert np.abs(variable.value.numpy()).max() < 1e3


def test_without_a_first_epoch_they_stay(make):
    model = make()
    watch = Watch(model)
    schedule = Schedule(batch=8, steps=3, weight_lr=1e-3, statistics_epochs=0)
    begun = weights_digest(model)
    train(model, Unlabelled(), schedule=schedule, loss="distill", listener=watch)
    fresh = Watch(make())
    fresh.on_step(0, 0, None)
    assert set(watch.moving) == set(fresh.moving)
    assert weights_digest(model) != begun


def test_regularization_takes_the_weights_of_layers_with_batch_norms_too(make):
    found = []
    for regularization in (0.0, 0.5):
        model = make()
        names = {variable.name: model.true_names[variable.name] for variable in model.trainable_weights_only}
        before = {variable.name: variable.value.numpy() for variable in model.trainable_weights_only}
        schedule = Schedule(
            batch=8, steps=1, weight_lr=0.1, weight_optimizer="sgd-momentum", statistics_epochs=0, regularization=regularization
        )
        train(model, Unlabelled(), schedule=schedule, loss="distill")
        found.append({variable.name: variable.value.numpy() for variable in model.trainable_weights_only})
    for name, plain in found[0].items():
        pull = 0.05 * before[name] if names[name].endswith("/w") else 0
        np.testing.assert_allclose(found[1][name], plain - pull, rtol=1e-4, atol=1e-6)
