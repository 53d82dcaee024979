"""`quantize --retrain` on the command line: options, help, exit statuses, files, and trainings that end before their time."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from digits_files import arrays
from digits_network import build, digits

from tqt_onnx.cli import run
from tqt_onnx.cli.quantize import quantize
from tqt_onnx.cli.sections import section_of
from tqt_onnx.cli.training_options import MODES, OPTIMIZERS, SCHEDULE, STRATEGIES, WEIGHT_SCHEDULES, ScheduleOption
from tqt_onnx.ir import UsageError, load, quantizers_of, save
from tqt_onnx.verbs.training_data import AUTO, SELECTION

FEW = "--steps 12 --batch-size 24 --weight-lr 1e-3 --weight-bits 4"
LONG = "--steps 300 --batch-size 24 --weight-lr 1e-3 --weight-bits 4 --checkpoint-every 10"


@pytest.fixture(name="files", scope="module")
def network_and_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.onnx`, `train.npz`, `test.npz`."""
    folder = tmp_path_factory.mktemp("files")
    save(build(), folder / "net.onnx")
    x, y = arrays()
    np.savez(folder / "train.npz", x=x, y=y)
    np.savez(folder / "test.npz", x=digits().test, y=digits().test_labels)
    return folder


def words(files: Path, output: Path, options: str) -> list[str]:
    return f"quantize {files}/net.onnx -o {output} --retrain --train {files}/train.npz {options}".split()


# --- tables that are written twice, so that --help loads no TensorFlow


def test_choices_and_defaults_are_those_of_the_trainer() -> None:
    from tqt_onnx.backend_tf.training import phase, schedule, strategies

    assert sorted(MODES) == sorted(phase.MODES)
    assert OPTIMIZERS == schedule.OPTIMIZERS
    assert WEIGHT_SCHEDULES == schedule.WEIGHT_SCHEDULES
    assert STRATEGIES == strategies.STRATEGIES
    own = {entry.name: entry.default for entry in SCHEDULE}
    assert own == {field.name: field.default for field in fields(schedule.Schedule)}


def test_defaults_are_those_of_the_python_verb() -> None:
    import inspect

    from tqt_onnx import retrain

    verb = {name: parameter.default for name, parameter in inspect.signature(retrain).parameters.items()}
    own = {parameter.name: parameter.default for parameter in quantize.params}
    same = ("mode", "temperature", "label_smoothing", "batch_norm_momentum", "strategy", "label_offset", "method", "percentile")
    assert {name: own[name] for name in same} == {name: verb[name] for name in same}
    assert (float(own["select"]), verb["select"]) == (SELECTION, AUTO)


# --- options reach the verb


@pytest.fixture(name="asked")
def what_the_verb_is_asked(monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """The arguments that reach `retrain`."""

    def asked(options: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def verb(model: Path, train: Path, **arguments: Any) -> None:
            found.update(arguments, model=model, train=train)
            raise UsageError("far enough")

        monkeypatch.setattr("tqt_onnx.verbs.retrain.retrain", verb)
        assert run(words(files, tmp_path / "out.onnx", options)) == 2
        assert found, "the verb was not called"
        return found

    return asked


def another(entry: ScheduleOption) -> tuple[str, Any]:
    """A value other than the default, as typed and as meant."""
    if isinstance(entry.kind, click.Choice):
        value = next(choice for choice in entry.kind.choices if choice != entry.default)
        return f"{entry.flag} {value}", value
    if entry.kind is None:
        return entry.flag.partition("/")[2], not entry.default
    return (f"{entry.flag} 7", 7) if isinstance(entry.kind, click.IntRange) else (f"{entry.flag} 0.25", 0.25)


@pytest.mark.parametrize("entry", SCHEDULE, ids=lambda entry: entry.name)
def test_each_number_of_the_schedule_is_an_option(asked: Callable[[str], dict[str, Any]], entry: ScheduleOption) -> None:
    from tqt_onnx.backend_tf.training import Schedule

    typed, value = another(entry)
    assert asked(typed)["schedule"] == replace(Schedule(), **{entry.name: value})


def test_without_options_everything_has_the_verbs_defaults(
    asked: Callable[[str], dict[str, Any]], files: Path, tmp_path: Path
) -> None:
    import inspect

    from tqt_onnx import retrain
    from tqt_onnx.backend_tf.training import Schedule
    from tqt_onnx.passes import BitWidths

    found = asked("")
    expected = {name: parameter.default for name, parameter in inspect.signature(retrain).parameters.items()}
    given = {"model": files / "net.onnx", "train": files / "train.npz", "folder": tmp_path / "out.train"}
    settled = {"schedule": Schedule(), "bits": BitWidths(), "select": SELECTION, **given}
    settled |= {name: found[name] for name in ("progress", "save")}
    assert {**expected, **found} == {**expected, **settled}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--mode weights", {"mode": "weights"}),
        ("--distill --temperature 3", {"loss": "distill", "temperature": 3.0}),
        ("--label-smoothing 0.1", {"label_smoothing": 0.1}),
        ("--keep last", {"keep": "last"}),
        ("--keep best", {"keep": "best"}),
        ("--folder elsewhere", {"folder": Path("elsewhere")}),
        ("--checkpoint-every 9", {"checkpoint_every": 9}),
        ("--restart", {"restart": True}),
        ("--strategy mirrored", {"strategy": "mirrored"}),
        ("--weight-method max", {"weight_method": "max"}),
        ("--mode float --preset mobilenet_v1", {"mode": "float", "bits": None, "label_offset": 1}),
        ("--select 0", {"select": None}),
        ("--select 0.25", {"select": 0.25}),
        ("--select 40", {"select": 40.0}),
        ("--select some.npz", {"select": Path("some.npz")}),
        ("--test t.npz --calibration c.npz", {"test": Path("t.npz"), "calibration": Path("c.npz")}),
        ("--label-offset -1", {"label_offset": -1}),
        ("--augment flip,pad=4", {"augment": "flip,pad=4"}),
        ("--batch-norm-momentum 0.5", {"batch_norm_momentum": 0.5}),
        ("--seed 5 --limit 60 --exclude list.txt", {"seed": 5, "limit": 60, "exclude": Path("list.txt")}),
        ("--method max --weight-method mse --parallel-calibration", {"method": "max", "weight_method": "mse", "parallel": True}),
        ("--preset mobilenet_v1", {"label_offset": 1}),
        ("--preset mobilenet_v1 --label-offset 0", {"label_offset": 0}),
    ],
)
def test_an_option_reaches_the_verb(asked: Callable[[str], dict[str, Any]], typed: str, expected: dict[str, Any]) -> None:
    found = asked(typed)
    assert {name: found[name] for name in expected} == expected


def test_the_help_has_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "--help"]) == 0
    text = capsys.readouterr().out
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]
    assert titles[0] == "Options"
    assert titles[1:] == list(dict.fromkeys(section for option in quantize.params if (section := section_of(option)) is not None))
    assert "Retraining (--retrain)" in titles and "Weights" in titles
    assert " ".join(text.split()).count("; with --retrain, of --train.") == 2  # of --limit and --exclude
    for entry in SCHEDULE:
        assert entry.flag.partition("/")[0] in text
        assert section_of(next(option for option in quantize.params if option.name == entry.name)) == entry.section


# --- trainings


def newest(folder: Path) -> int:
    """Step of the newest checkpoint; -1 without one."""
    try:
        return int(json.loads((folder / "checkpoints" / "latest.json").read_text())[0].removeprefix("step-"))
    except OSError:
        return -1


def test_a_training_writes_model_report_and_folder(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = words(files, tmp_path / "out.onnx", f"{FEW} --test {files}/test.npz --json {tmp_path}/out.json")
    assert run(command) == 0
    received = capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.onnx", "out.train"]
    assert quantizers_of(load(tmp_path / "out.onnx")) is not None
    folder = tmp_path / "out.train"
    names = ["checkpoints", "frozen.csv", "log.csv", "tensorboard", "thresholds.csv", "validation.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert newest(folder) == 12
    rows = list(csv.DictReader((folder / "validation.csv").open()))
    assert [int(row["step"]) for row in rows] == [0, 3, 6, 9, 12]
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["schema"] == "tqt_onnx.retraining/1" and report["training"]["steps"] == 12
    assert [model["name"] for model in report["accuracy"]["models"]] == ["float", "static", "retrained"]
    for said in (
        "trained on 108 of 120 examples of ",
        "kept: step ",
        "selected by accuracy on 12 of 120 examples of ",
        "held back",
    ):
        assert said in received.out
    shown = " ".join(received.out.split())
    assert f"calibrated on 50 of the 108 training examples of {files}/train.npz; tested on 400 examples of " in shown
    assert "static - float" in received.out and received.out.rstrip().endswith("out.onnx: written")
    assert "12/12 in " in received.err and "training, loss " in received.err  # the end of its progress
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    assert run(command) == 2  # at once: the output is there
    assert "out.onnx: exists; give another name, or --force" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before
    first = (tmp_path / "out.onnx").read_bytes()
    assert run([*command, "--force"]) == 0  # nothing is left to do
    assert "gone on from step 12" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").read_bytes() == first
    assert run([*command, "--force", "--weight-lr", "2e-3"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "the checkpoint belongs to another schedule" in line and "--restart" in line and "weight_lr 0.002 instead of 0.001" in line
    )
    assert (tmp_path / "out.onnx").read_bytes() == first
    narrow = command.index("--weight-bits")
    floats = [*command[:narrow], *command[narrow + 2 :], "--force", "--mode", "float", "--restart", "--steps", "3"]
    assert run(floats) == 0
    shown = capsys.readouterr().out
    assert "out.onnx: written; it is the float network" in shown
    assert "fine-tuned - float" in shown and "static" not in shown and "retrained" not in shown
    assert newest(folder) == 3
    assert quantizers_of(load(tmp_path / "out.onnx")) is None


def test_what_is_not_measured_is_written_all_the_same(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0/a.png", "1/b.png"):
        (tmp_path / "test" / name).parent.mkdir(parents=True)
        (tmp_path / "test" / name).write_bytes(b"no image")
    options = "--steps 2 --batch-size 24 --select 0"
    command = words(files, tmp_path / "out.onnx", f"{options} --test {tmp_path}/test --json {tmp_path}/out.json")
    assert run(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path}/out.onnx is written, and the same command with --force goes on from there" in line
    assert f"could not be measured: {tmp_path}/test: 0/a.png: cannot be read as an image (of no known format)" in line
    first = (tmp_path / "out.onnx").read_bytes()
    assert not (tmp_path / "out.json").exists()

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tqt_onnx.verbs.retrain._measured", stopped)
        assert run([*command, "--force"]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert f"tqt-onnx: {tmp_path}/out.onnx is written, but not measured" in lines and "interrupted" in lines[-1]

    def full(*_: object, **__: object) -> None:
        raise UsageError("out.onnx: cannot be written: no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tqt_onnx.ir.save", full)
        assert run([*command, "--force"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the training is done, and the same command goes on from {tmp_path}/out.train, but out.onnx: cannot be written" in line
    assert run(words(files, tmp_path / "out.onnx", f"{options} --force --test {files}/test.npz")) == 0
    assert "gone on from step 2" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").read_bytes() == first


def test_a_process_that_is_not_the_chief_writes_nothing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tqt_onnx.verbs.retraining import Retraining

    worker: Any = Retraining(None, None, None, {}, "", "", "", "", None, chief=False)  # type: ignore[arg-type]
    monkeypatch.setattr("tqt_onnx.verbs.retrain.retrain", lambda *_, **__: worker)
    assert run(words(files, tmp_path / "out.onnx", f"--json {tmp_path}/out.json")) == 0
    assert list(tmp_path.iterdir()) == []
    assert "worker 0 writes" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_exit_2_and_the_best_is_written(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--mode float --weight-optimizer sgd-momentum --weight-lr 1e38 --steps 12 --batch-size 24"
    assert run(words(files, tmp_path / "out.onnx", f"{options} --json {tmp_path}/out.json")) == 2
    received = capsys.readouterr()
    last = received.err.splitlines()[-1]
    assert last.startswith("tqt-onnx: error: training: the loss of step ") and "what blew up first is" in last
    assert "The state of step 0 is kept" in last and "a defect" not in received.err
    assert "nothing was gained" in received.out and "out.onnx: written" in received.out
    assert load(tmp_path / "out.onnx") is not None
    assert json.loads((tmp_path / "out.json").read_text())["training"]["kept"] == 0


# --- trainings that end before their time

HEED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tqt_onnx.cli import main
main(sys.argv[1:])
"""
"""A job in the background hands "ignore Ctrl-C" on to its children; here they are to take it."""


@pytest.fixture(name="uninterrupted", scope="module")
def bytes_of_a_whole_training(files: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    assert run(words(files, folder / "out.onnx", LONG)) == 0
    return (folder / "out.onnx").read_bytes()


def ended(files: Path, output: Path, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal to a training once it has written its second checkpoint; exit status and standard error."""
    command = [sys.executable, "-c", HEED, *words(files, output, LONG)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and newest(output.with_suffix(".train")) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        if time.monotonic() >= deadline:
            process.kill()
            pytest.fail(f"no second checkpoint: {process.communicate()[1]}")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(files: Path, tmp_path: Path, uninterrupted: bytes) -> None:
    status, errors = ended(files, tmp_path / "out.onnx", signal.SIGKILL)
    assert status == -signal.SIGKILL, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.train"]
    assert 20 <= newest(tmp_path / "out.train") < 300
    assert run(words(files, tmp_path / "out.onnx", LONG)) == 0
    assert (tmp_path / "out.onnx").read_bytes() == uninterrupted


def test_ctrl_c_writes_the_model_and_the_same_command_goes_on(
    files: Path, tmp_path: Path, uninterrupted: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    status, errors = ended(files, tmp_path / "out.onnx", signal.SIGINT)
    assert status == 130, errors
    assert "Traceback" not in errors
    step = newest(tmp_path / "out.train")
    assert errors.splitlines()[-1] == f"tqt-onnx: interrupted at step {step} of 300; the same command with --force goes on"
    assert 20 <= step < 300
    assert run(["check", str(tmp_path / "out.onnx"), "--data", str(files / "train.npz")]) == 0
    assert run([*words(files, tmp_path / "out.onnx", LONG), "--force"]) == 0
    assert f"gone on from step {step}" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").read_bytes() == uninterrupted
