"""Data of a retraining, opened and kept apart; what is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir
import pytest
from digits_files import arrays, npz
from digits_network import build, digits

from tqt_onnx import retrain
from tqt_onnx.datasets import open_array
from tqt_onnx.ir import DataError, UsageError
from tqt_onnx.verbs.retrain import writable_folder
from tqt_onnx.verbs.training_data import TrainingData, training_data


@pytest.fixture(name="model", scope="module")
def float_model() -> onnx_ir.Model:
    return build()


def opened(model: onnx_ir.Model, train: Any, **options: Any) -> TrainingData:
    given = {"select": None, "test": None, "calibration": None, "preprocess": "none", "limit": None, "exclude": None, "seed": 0}
    return training_data(model, train, **{**given, **options})


def test_fifty_training_examples_calibrate_where_nothing_else_is_given(model: onnx_ir.Model, tmp_path: Path) -> None:
    found = opened(model, npz(tmp_path), select=0.5)
    assert (len(found.train), len(found.select or ()), len(found.calibration)) == (60, 60, 50)
    assert set(found.calibration.rows.tolist()) <= set(found.train.rows.tolist())
    assert found.calibrated_on == "50 of the training examples"
    assert len(opened(model, arrays(20)).calibration) == 20


def test_the_draw_is_a_function_of_the_seed(model: onnx_ir.Model) -> None:
    drawn = [opened(model, arrays(), select=12, seed=seed).select for seed in (0, 0, 1)]
    first, again, other = (set(found.rows.tolist()) for found in drawn if found is not None)
    assert first == again != other


@pytest.mark.parametrize("form", ["path", "arrays", "dataset"])
def test_limit_and_exclude_hold_for_every_form_of_data(model: onnx_ir.Model, tmp_path: Path, form: str) -> None:
    x, y = arrays()
    train: Any = {"path": npz(tmp_path), "arrays": (x, y), "dataset": open_array(x, labels=y)}[form]
    found = opened(model, train, limit=30, exclude=["row 3", "row 5"])
    assert len(found.train) == 30
    assert not {3, 5} & set(found.train.rows.tolist())
    whole = opened(model, train, exclude=["row 3"])
    assert len(whole.train) == 119


def test_examples_of_two_purposes_are_refused(model: onnx_ir.Model) -> None:
    x, y = arrays()
    own = open_array(x[:10], labels=y[:10])
    with pytest.raises(DataError, match="test data that is no training data is expected"):
        opened(model, (x, y), test=own)
    with pytest.raises(DataError, match="selection data that is no training data is expected"):
        opened(model, (x, y), select=own)
    with pytest.raises(DataError, match="test data that is no selection data is expected"):
        opened(model, (x[20:], y[20:]), select=own, test=own)
    with pytest.raises(DataError, match="test data that is no calibration data is expected"):
        opened(model, (x[20:], y[20:]), calibration=x[:10], test=own)


def test_of_a_pipeline_nothing_is_held_back_or_left_out(model: onnx_ir.Model) -> None:
    import tensorflow as tf

    pipeline = tf.data.Dataset.from_tensor_slices(arrays())
    calibration = digits().calibration
    for options in ({"select": 0.1, "calibration": calibration}, {"calibration": None}):
        with pytest.raises(UsageError, match="nothing can be held back"):
            opened(model, pipeline, **options)
    for options in ({"limit": 3}, {"exclude": ["row 0"]}):
        with pytest.raises(UsageError, match=r"nothing can be left out\. Received: limit"):
            opened(model, pipeline, calibration=calibration, **options)
    found = opened(model, pipeline, calibration=calibration, select=(digits().test, digits().test_labels))
    assert (found.trained_on, found.calibrated_on) == ("a tf.data.Dataset", "data of its own")
    assert found.selected_on.startswith("400 examples of ")


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "labels beyond the outputs": ({"train": lambda: (arrays()[0], arrays()[1] + 5)}, DataError, r"labels 0\.\.9 are expected"),
    "an offset too many": ({"label_offset": 1}, DataError, r"labels 0\.\.8 are expected .*--label-offset 0"),
    "less than a batch": ({"train": lambda: arrays(20), "select": None}, DataError, "at least 24 examples, one batch"),
    "no labels": ({"train": lambda: arrays()[0]}, UsageError, "labelled training data; --distill needs no labels"),
    "unknown changes": ({"augment": "rotate"}, UsageError, r"flip, pad\[=PIXELS\]"),
    "too much padding": ({"augment": "pad=8"}, DataError, "a padding smaller than the images"),
    "colours of numbers": ({"augment": "colour"}, DataError, "colours wants grey or RGB pixels"),
    "an unknown mode": ({"mode": "int8"}, UsageError, "the training mode must be one of"),
    "a delay without quantizers": (
        {"mode": "float", "schedule": {"quant_delay": 2}},
        UsageError,
        "quant_delay means float training",
    ),
    "an unknown loss": ({"loss": "mse"}, UsageError, "the loss must be one of labels, distill or a function"),
    "a temperature of zero": ({"loss": "distill", "temperature": 0.0}, UsageError, "temperature must be a number above 0"),
    "an unknown strategy": ({"strategy": "tpu"}, UsageError, "the strategy must be one of"),
    "an unknown method": ({"weight_method": "median"}, UsageError, "the weight method must be one of"),
    "a folder that is a file": ({"folder": __file__}, UsageError, "a folder that can be written is expected"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_before_the_calibration(model: onnx_ir.Model, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from tqt_onnx.backend_tf.training import Schedule

    def too_late(*_: object, **__: object) -> None:
        pytest.fail("calibrated")

    monkeypatch.setattr("tqt_onnx.verbs.retrain.calibrate_prepared", too_late)
    arguments, error, says = REFUSED[kind]
    given = {"train": arrays, **arguments}
    if "schedule" in given:
        given["schedule"] = Schedule(**given["schedule"])
    with pytest.raises(error, match=says):
        retrain(model, given.pop("train")(), **given)


def test_a_folder_need_not_be_there_and_is_not_made(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert writable_folder(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for wrong in ("file", "file/under", "link"):
        with pytest.raises(UsageError, match="a folder that can be written is expected"):
            writable_folder(tmp_path / wrong)
