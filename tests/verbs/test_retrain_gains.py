"""What retraining is for: INT4 weights that static mode cannot place; and that the same seed gives the same integers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from digits_network import build, digits

from tqt_onnx import retrain
from tqt_onnx.backend_tf import regenerate
from tqt_onnx.backend_tf.training import Row, Schedule
from tqt_onnx.datasets import open_array
from tqt_onnx.datasets.dataset import random_order
from tqt_onnx.datasets.training import STREAM
from tqt_onnx.ir import DataError, TqtOnnxError, quantizers_of
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.evaluate import evaluate
from tqt_onnx.verbs.quantize import quantize
from tqt_onnx.verbs.retraining import Retraining, StoppedError

INT4 = BitWidths(weight=4)
SCHEDULE = Schedule(batch=32, steps=60, weight_lr=3e-3)


@dataclass
class Heard:
    """Everything that progress and listener were told."""

    progress: list[tuple[int, int, str]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)

    def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
        self.steps.append((step, total))

    def on_validation(self, row: Row) -> None:
        self.rows.append(row)

    def on_freeze(self, step: int, group: str, log2_t: float) -> None:
        self.frozen.append(group)


verb = importlib.import_module("tqt_onnx.verbs.retrain")


@pytest.fixture(name="model", scope="module")
def float_model() -> onnx_ir.Model:
    return build()


def run(model: onnx_ir.Model, **arguments: Any) -> Retraining:
    given: dict[str, Any] = {"bits": None if arguments.get("mode") == "float" else INT4, "schedule": SCHEDULE, **arguments}
    return retrain(model, (digits().train, digits().train_labels), **given)


@pytest.fixture(name="heard", scope="module")
def what_was_heard() -> Heard:
    return Heard()


@pytest.fixture(name="retrained", scope="module")
def once(model: onnx_ir.Model, heard: Heard, tmp_path_factory: pytest.TempPathFactory) -> Retraining:
    """With test data and a folder."""
    return run(
        model,
        test=open_array(digits().test, labels=digits().test_labels),
        folder=tmp_path_factory.mktemp("run"),
        checkpoint_every=20,
        listener=heard,
        progress=lambda *told: heard.progress.append(told),
    )


def test_the_model_is_saved_before_the_test_data_are_measured(
    model: onnx_ir.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A test image that cannot be decoded comes too late to lose the training; the static network has the weight method typed."""
    methods: list[str] = []
    real = verb.calibrate_prepared
    monkeypatch.setattr(verb, "calibrate_prepared", lambda *a, **k: (methods.append(k["weight_method"]), real(*a, **k))[1])
    for name in ("0/a.png", "1/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"no image")
    few = replace(SCHEDULE, steps=1)
    saved: list[Retraining] = []
    for method in (None, "max"):
        with pytest.raises(DataError) as error:
            run(model, select=None, schedule=few, test=tmp_path, save=saved.append, weight_method=method)
        assert str(error.value).startswith(f"{tmp_path}: 0/a.png: cannot be read as an image (of no known format); ")
    assert methods == ["3sd", "mse", "max", "max"]
    assert all(quantizers_of(found.model) is not None and found.accuracy is None for found in saved) and len(saved) == 2


def to_bytes(model: onnx_ir.Model) -> bytes:
    return onnx_ir.to_proto(model).SerializeToString(deterministic=True)


def test_retraining_gives_back_what_static_int4_loses(retrained: Retraining) -> None:
    assert retrained.accuracy is not None
    found = {model.name: model.top1_share for model in retrained.accuracy.models}
    assert list(found) == ["float", "static", "retrained"]
    assert found["float"] > 0.95
    assert found["static"] < 0.6
    assert found["retrained"] > 0.85
    assert retrained.tested_on.startswith("400 examples of ")
    assert retrained.calibrated_on == "50 of the 1,167 training examples of array"


def test_the_kept_step_is_the_best_one_on_the_selection_data(retrained: Retraining, model: onnx_ir.Model) -> None:
    training = retrained.training
    best = max(training.history, key=lambda row: (row.accuracy or 0, -row.loss))
    assert training.kept == best.step
    assert training.selected_by == f"accuracy on {retrained.selected_on}"
    assert [row.step for row in training.history] == [0, 15, 30, 45, 60]
    assert quantizers_of(retrained.model) == retrained.quantization.graph  # type: ignore[union-attr]


def test_one_seed_gives_the_same_integers_and_another_others(model: onnx_ir.Model, retrained: Retraining) -> None:
    """Without test data, folder, listener and progress: they change nothing."""
    assert to_bytes(run(model).model) == to_bytes(retrained.model)
    assert to_bytes(run(model, seed=1).model) != to_bytes(retrained.model)


def test_the_model_in_memory_is_not_changed(retrained: Retraining, model: onnx_ir.Model) -> None:
    assert to_bytes(model) == to_bytes(build())


def test_progress_counts_every_step_and_shows_loss_and_validation(retrained: Retraining, heard: Heard) -> None:
    training = [told for told in heard.progress if told[2].startswith("training")]
    assert {total for _, total, _ in training} == {60}
    done = [step for step, _, _ in training]
    assert done == sorted(done) and set(done) == set(range(61))
    assert training[0] == (0, 60, "training; validating 0/130")
    text = training[-1][2]
    assert text.startswith("training, loss 0.") and ", top-1 " in text
    assert any("validating 128/130" in text for _, _, text in training)
    others = {what for _, _, what in heard.progress} - {what for _, _, what in training}
    assert {"calibration data", "evaluating"} <= others


def test_the_listener_is_told_too(retrained: Retraining, heard: Heard) -> None:
    assert heard.steps == [(step, 60) for step in range(1, 61)]
    assert tuple(heard.rows) == retrained.training.history
    assert set(heard.frozen) == {row.group for row in retrained.training.thresholds if row.frozen_at is not None}


@pytest.fixture(name="fine_tuned", scope="module")
def float_mode(model: onnx_ir.Model) -> Retraining:
    """Eight steps without quantizers."""
    return run(
        model,
        mode="float",
        select=None,
        schedule=replace(SCHEDULE, steps=8),
        test=open_array(digits().test, labels=digits().test_labels),
    )


def test_mode_float_gives_the_float_network_with_other_weights(fine_tuned: Retraining, model: onnx_ir.Model) -> None:
    assert fine_tuned.quantization is None
    assert quantizers_of(fine_tuned.model) is None
    assert fine_tuned.training.thresholds == ()
    assert fine_tuned.calibrated_on == "nothing"
    assert fine_tuned.accuracy is not None
    assert [found.name for found in fine_tuned.accuracy.models] == ["float", "fine-tuned"]
    assert min(found.top1_share for found in fine_tuned.accuracy.models) > 0.95
    sessions = [onnxruntime.InferenceSession(to_bytes(found)) for found in (fine_tuned.model, model)]
    (own,), (before,) = (session.run(None, {"image": digits().test}) for session in sessions)
    assert np.abs(own - before).max() > 1e-3
    np.testing.assert_allclose(regenerate(fine_tuned.model)(digits().test).numpy(), own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [16, 32])
def test_a_fine_tuned_float_network_can_be_quantized(fine_tuned: Retraining, layer: Any, tmp_path: Path) -> None:
    onnx_ir.save(fine_tuned.model, tmp_path / "float.onnx")
    quantized = quantize(tmp_path / "float.onnx", digits().calibration, bits=BitWidths(layer=layer)).model
    found = check(quantized, digits().test[:40])
    assert found.ok and not found.differences
    names = {"quantized": quantized, "float": fine_tuned.model}
    result = evaluate(names, open_array(digits().test, labels=digits().test_labels))
    shares = {entry.name: entry.top1_share for entry in result.models}
    assert shares["quantized"] > shares["float"] - 0.03


def test_a_loss_that_is_not_finite_keeps_the_best_state(model: onnx_ir.Model, tmp_path: Path) -> None:
    saved: list[Retraining] = []
    wild = Schedule(batch=32, steps=12, weight_lr=1e38, weight_optimizer="sgd-momentum", validate_every=1)
    with pytest.raises(
        StoppedError, match=r"loss of step 1 is not finite; what blew up first is the weights of 'conv'.*step 0 is kept"
    ) as stopped:
        run(model, mode="float", schedule=wild, folder=tmp_path, save=saved.append)
    assert isinstance(stopped.value, TqtOnnxError)
    kept = stopped.value.retraining
    assert saved == [kept]
    assert (kept.training.kept, kept.training.steps) == (0, 2)
    session = onnxruntime.InferenceSession(to_bytes(kept.model))
    expected = onnxruntime.InferenceSession(to_bytes(model)).run(None, {"image": digits().test})
    np.testing.assert_allclose(session.run(None, {"image": digits().test})[0], expected[0], rtol=0, atol=1e-5)
    nowhere = replace(kept.training, history=(replace(kept.training.history[0], loss=float("nan")),))
    assert nowhere.to_dict()["history"][0]["loss"] is None  # NaN is no JSON
    json.dumps(kept.to_dict(), allow_nan=False)


def test_data_that_break_on_the_way_lose_nothing(model: onnx_ir.Model) -> None:
    inputs, labels = digits().train[:120].copy(), digits().train_labels[:120]
    last = int(random_order(120, 0, STREAM, 0)[-1])
    inputs[last, 3, 3, 0] = np.nan
    saved: list[Retraining] = []
    few = Schedule(batch=24, steps=10, weight_lr=1e-3)
    with pytest.raises(StoppedError, match=rf"stopped behind step 4.*array: row {last} holds nan") as stopped:
        retrain(model, (inputs, labels), select=None, calibration=digits().calibration, schedule=few, save=saved.append)
    assert saved == [stopped.value.retraining]
    assert (saved[0].training.steps, saved[0].training.kept, saved[0].accuracy) == (4, 4, None)


def test_an_interrupted_training_measures_no_test_data(model: onnx_ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    class Stop(Heard):
        def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    result = run(model, test=open_array(digits().test, labels=digits().test_labels), listener=Stop())
    assert result.training.interrupted and result.training.steps < 60
    assert (result.tested_on, result.accuracy) == ("nothing", None)
