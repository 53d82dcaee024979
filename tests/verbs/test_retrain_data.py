"""Data of a retraining, opened and kept apart; what is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from digits_files import arrays, npz, records
from digits_network import build, digits

from tqt_onnx import retrain
from tqt_onnx.backend_tf import regenerate
from tqt_onnx.datasets import open_array
from tqt_onnx.ir import DataError, UsageError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.preparation import lowered
from tqt_onnx.verbs.training_data import NeverNegative, TrainingData, training_data
from tqt_onnx.verbs.training_folder import training_folder, writable_folder


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
    assert found.calibrated_on == f"of the 60 training examples of {tmp_path / 'digits.npz'}"
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


@pytest.mark.parametrize("select", [0.1, np.float32(0.1), 12, np.int64(12), Fraction(1, 10), "auto"])
def test_a_share_is_any_number(model: onnx_ir.Model, select: Any) -> None:
    assert len(opened(model, arrays(), select=select).select or ()) == 12


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
    assert opened(model, pipeline, calibration=calibration, select="auto").select is None
    found = opened(model, pipeline, calibration=calibration, select=(digits().test, digits().test_labels))
    assert (found.trained_on, found.calibrated_on) == ("a tf.data.Dataset", "examples of arrays")
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
    "patience without selection": ({"select": None, "schedule": {"patience": 2}}, UsageError, "patience needs data to select by"),
    "the best of nothing": ({"select": None, "keep": "best"}, UsageError, "keeping the best state needs data to select by"),
    "widths without quantizers": (
        {"mode": "float", "bits": BitWidths(weight=4)},
        UsageError,
        r"mode float trains without quantizers.* Received: weight 4$",
    ),
    "a test label beyond the outputs": (
        {"loss": "distill", "test": (digits().test[:3], [0, 1, 10])},
        DataError,
        r"array: labels 0\.\.9 are expected .* Received: label 10 of row 2",
    ),
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


def test_labels_of_test_records_are_all_read_before_the_calibration(
    model: onnx_ir.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tqt_onnx.verbs.retrain.calibrate_prepared", lambda *_, **__: pytest.fail("calibrated"))
    with pytest.raises(
        DataError, match=r"digits.tfrecord: labels 2\.\.11 are expected .* Received: label \d of digits.tfrecord record"
    ):
        retrain(model, (arrays()[0], arrays()[1] + 2), test=records(tmp_path), label_offset=-2)


@pytest.mark.parametrize("choose", ["select", "test"])
def test_labels_are_wanted_for_what_is_measured_by_them(model: onnx_ir.Model, choose: str) -> None:
    data = opened(model, arrays(), **{choose: digits().test[:4]})
    if choose == "select":
        with pytest.raises(DataError, match="selection data with labels is expected"):
            data.check_labels(10, 0, needed=True, tested=10)
    else:
        with pytest.raises(DataError, match=r"first output has a score for each class"):
            data.check_labels(10, 0, needed=True, tested=None)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """Nothing is mixed with it, and nothing of it removed."""
    from tqt_onnx.backend_tf.training import forget_checkpoints

    foreign: dict[str, Callable[[Path], Any]] = {
        "notes": lambda folder: (folder / "notes.txt").write_text("mine"),
        "a log": lambda folder: [(folder / name).write_text("mine") for name in ("log.csv", "notes.txt")],
        "checkpoints": lambda folder: [
            (folder / "checkpoints").mkdir(),
            (folder / "checkpoints" / "epoch-1.pt").write_text("mine"),
        ],
    }
    for name, make in foreign.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
        with pytest.raises(
            UsageError, match=r"a folder that is new, empty, or holds a training already is expected. Received: one with"
        ):
            training_folder(folder)
    forget_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in (tmp_path / "checkpoints").rglob("*")] == ["checkpoints", "epoch-1.pt"]
    mixed = tmp_path / "ours"
    (mixed / "checkpoints").mkdir(parents=True)
    for name in ("latest.json", "step-3.index", ".latest.json.x.part", "notes.txt"):
        (mixed / "checkpoints" / name).write_text("")
    (mixed / "notes.txt").write_text("mine")
    assert training_folder(mixed) == mixed  # a training, and something beside it
    forget_checkpoints(mixed)
    assert [path.name for path in (mixed / "checkpoints").iterdir()] == ["notes.txt"]
    forget_checkpoints(tmp_path / "nowhere")


def test_a_folder_need_not_be_there_and_is_not_made(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert writable_folder(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for wrong in ("file", "file/under", "link"):
        with pytest.raises(UsageError, match="a folder that can be written is expected"):
            writable_folder(tmp_path / wrong)


def test_a_list_of_two_arrays_is_a_pair(model: onnx_ir.Model) -> None:
    x, y = arrays(20)
    found = opened(model, [x, y])
    assert len(found.train) == 20
    assert found.train.labels is not None and (found.train.labels == y).all()


def test_no_examples_at_all_are_refused(model: onnx_ir.Model) -> None:
    with pytest.raises(UsageError, match="at least one training example is expected"):
        opened(model, arrays(20), limit=0)


def test_negative_numbers_for_unsigned_inputs_are_refused_when_they_are_read() -> None:
    class Batches:
        batch_size, steps_per_epoch, labelled = 2, 3, True

        def batch(self, step: int, part: int = 0, parts: int = 1) -> Any:
            return {"image": np.full((2, 1), 1 - step, np.float32)}, np.zeros(2, np.int64)

    batches = NeverNegative(Batches())
    assert (batches.batch_size, batches.steps_per_epoch, batches.labelled) == (2, 3, True)
    assert batches.batch(1)[0]["image"].tolist() == [[0.0], [0.0]]
    with pytest.raises(DataError, match=r"'image' was declared unsigned, but the training data holds -1\.0"):
        batches.batch(2)


def test_selection_data_of_unsigned_inputs_hold_no_negative_numbers(model: onnx_ir.Model) -> None:
    x, y = arrays(40)
    found = opened(model, (x, y), select=(x[:6] - 2, y[:6]))
    network = regenerate(lowered(model.clone(), BitWidths()))
    batches = found.selection(network, 4, 0, 10, unsigned=True)
    assert batches is not None
    with pytest.raises(DataError, match="was declared unsigned, but the selection data holds"):
        next(iter(batches()))
    plain = found.selection(network, 4, 0, 10)
    assert plain is not None
    assert [len(labels) for _, labels in plain() if labels is not None] == [4, 2]


def test_other_training_data_of_the_same_size_are_another_training(model: onnx_ir.Model) -> None:
    x, y = arrays(60)
    source = open_array(x, labels=y)
    first, same, other = (opened(model, source, exclude=[name]).identity(0, None) for name in ("row 58", "row 58", "row 59"))
    assert first == same
    assert first["training data"]["count"] == other["training data"]["count"] == 59
    assert first["training data"] != other["training data"]
