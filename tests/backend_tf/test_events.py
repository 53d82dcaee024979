"""Logs of a training: CSV and event files, read back; cut and gone on with by a resumed one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.backend_tf.training.csv_log import CsvLog
from tqt_onnx.backend_tf.training.events import TrainingLog
from tqt_onnx.backend_tf.training.listener import Listener
from tqt_onnx.backend_tf.training.result import Row
from tqt_onnx.ir import DataError

GROUPS = ("conv1/weights", 'odd,"name"')


class Clock:
    """Two seconds a step, a hundred a validation."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def sit(folder: Path, first: int, last: int, after: int | None = None, close: bool = True) -> TrainingLog:
    """Logs the steps first..last: every second one with scalars, a validation every fourth, a freezing in step 5."""
    clock = Clock()
    log = TrainingLog(folder, batch_size=8, steps_per_epoch=4, after=after, clock=clock)
    listener: Listener = log
    for step in range(first, last + 1):
        clock.now += 2
        if step == 5:
            listener.on_freeze(step, GROUPS[1], -2.25)
        curves = {f"log2_t/{group}": float(np.float32(step / 3 + i)) for i, group in enumerate(GROUPS)}
        listener.on_step(step, 100, {"train/loss": 1 / step, "learning_rate/weights": 1e-6, **curves} if step % 2 == 0 else None)
        if step % 4 == 0:
            clock.now += 100
            listener.on_validation(Row(step, 0.5, 0.75, None, None, 1e-6, 1e-2, int(step > 4)))
    if close:
        log.close()
    return log


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> list[tuple[int, str, str, object]]:
    """(step, plugin, tag, value) of all events."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                found.append((event.step, value.metadata.plugin_data.plugin_name, value.tag, array.item()))
    return found


def test_tables(tmp_path: Path) -> None:
    sit(tmp_path / "new" / "logs", 1, 8)
    folder = tmp_path / "new" / "logs"
    assert (folder / "log.csv").read_text().splitlines() == [
        "step,epoch,examples_per_second,train/loss,learning_rate/weights",
        "2,0.5,4,0.5,1e-06",
        "4,1,4,0.25,1e-06",
        "6,1.5,4,0.166666667,1e-06",
        "8,2,4,0.125,1e-06",
    ]
    assert (folder / "validation.csv").read_text().splitlines()[:2] == [
        "step,loss,accuracy,agreement,train_loss,weight_lr,threshold_lr,frozen",
        "4,0.5,0.75,,,1e-06,0.01,0",
    ]
    assert table(folder / "frozen.csv") == [{"step": "5", "group": GROUPS[1], "log2_t": "-2.25"}]
    curves = table(folder / "thresholds.csv")
    assert list(curves[0]) == ["step", *GROUPS]
    assert [np.float32(row[GROUPS[0]]) for row in curves] == [np.float32(step / 3) for step in (2, 4, 6, 8)]


def test_tensorboard_reads_scalars_of_every_threshold(tmp_path: Path) -> None:
    sit(tmp_path, 1, 8)
    found = events(tmp_path)
    assert {(plugin, tag) for _, plugin, tag, _ in found} == {
        ("scalars", "train/loss"),
        ("scalars", "learning_rate/weights"),
        ("scalars", "examples_per_second"),
        ("scalars", "validation/loss"),
        ("scalars", "validation/accuracy"),
        ("scalars", "thresholds/frozen"),
        *(("scalars", f"log2_t/{group}") for group in GROUPS),
        ("text", f"frozen/{GROUPS[1]}"),
    }
    curve = [(step, value) for step, _, tag, value in found if tag == f"log2_t/{GROUPS[1]}"]
    assert curve == [(step, float(np.float32(step / 3 + 1))) for step in (2, 4, 6, 8)]
    assert [(step, value) for step, _, tag, value in found if tag == "thresholds/frozen"] == [(5, 1.0)]


def test_resumed_logs_are_those_of_a_training_that_never_stopped(tmp_path: Path) -> None:
    sit(tmp_path / "whole", 1, 16)
    sit(tmp_path / "resumed", 1, 9)
    sit(tmp_path / "resumed", 5, 12, after=4)
    sit(tmp_path / "resumed", 13, 16, after=12)
    for name in ("thresholds", "validation", "frozen"):
        assert (tmp_path / "resumed" / f"{name}.csv").read_bytes() == (tmp_path / "whole" / f"{name}.csv").read_bytes()
    assert [row["step"] for row in table(tmp_path / "resumed" / "log.csv")] == [str(step) for step in range(2, 17, 2)]
    whole, resumed = (sorted(events(tmp_path / name)) for name in ("whole", "resumed"))
    assert [event for event in resumed if event[2] != "examples_per_second"] == [
        event for event in whole if event[2] != "examples_per_second"
    ]


def test_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    log = sit(tmp_path, 1, 8, close=False)
    assert len(table(tmp_path / "log.csv")) == 4  # on the disk without being closed
    log.close()
    for name in ("log", "thresholds"):
        with (tmp_path / f"{name}.csv").open("ab") as file:
            file.write(b"8,0.1")
    (event_file,) = (tmp_path / "tensorboard").iterdir()
    before = events(tmp_path)
    with event_file.open("ab") as file:
        file.write(b"\x20\0\0\0\0\0")
    sit(tmp_path, 9, 8, after=8)
    assert [row["step"] for row in table(tmp_path / "log.csv")] == ["2", "4", "6", "8"]
    assert events(tmp_path) == before


def test_what_is_complete_is_not_rewritten(tmp_path: Path) -> None:
    sit(tmp_path, 1, 8)
    (event_file,) = (tmp_path / "tensorboard").iterdir()
    inode = event_file.stat().st_ino
    sit(tmp_path, 9, 8, after=8)
    assert event_file.stat().st_ino == inode
    assert list((tmp_path / "tensorboard").iterdir()) == [event_file]


def test_a_new_training_begins_anew(tmp_path: Path) -> None:
    sit(tmp_path, 1, 8)
    sit(tmp_path, 1, 4)
    assert [row["step"] for row in table(tmp_path / "log.csv")] == ["2", "4"]
    assert not (tmp_path / "frozen.csv").exists()
    assert {step for step, *_ in events(tmp_path)} == {2, 4}


def test_refusals(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "a.csv", None)
    log.row(1, {"loss": float("nan"), "n": 3})
    assert (tmp_path / "a.csv").read_text() == "step,loss,n\n1,nan,3\n"
    with pytest.raises(DataError, match=r"a\.csv: the columns step, loss, n are expected. Received: step, loss"):
        log.row(2, {"loss": 1.0})
    log.close()
    for content in (b"step,loss\nred,1\n", b"\xff\xfe\n", b"step\n\n"):
        (tmp_path / "b.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.csv: rows that begin with a step are expected"):
            CsvLog(tmp_path / "b.csv", 3)
    (tmp_path / "b.csv").write_bytes(b"step,lo")  # killed while the first line was written
    CsvLog(tmp_path / "b.csv", 3).row(4, {"loss": 1.5})
    assert (tmp_path / "b.csv").read_text() == "step,loss\n4,1.5\n"
    with pytest.raises(DataError, match="a folder for logs is expected"):
        TrainingLog(tmp_path / "a.csv", 1, 1)
