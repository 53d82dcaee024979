"""`quantize --retrain` and `--from-trained`: what cannot be trained, and options that contradict each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from bad_files import dense_network, write
from onnx import helper

from tqt_onnx.cli import run
from tqt_onnx.cli.quantize import quantize
from tqt_onnx.cli.sections import section_of

Refused = Callable[..., str]
RETRAIN = "quantize {d}/m.onnx -o {t}/o.onnx --retrain --batch-size 4 --steps 2"
TRAIN = f"{RETRAIN} --train {{d}}/xy.npz"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "--retrain needs training data, --train DATA"),
        ("--train {d}/none.npz", "none.npz: no such file or folder"),
        ("--train {d}/x.npy", "training with labels needs labelled training data; --distill needs no labels"),
        ("--train {d}/xy.npz --batch-size 8", "at least 8 examples, one batch, are expected to train on. Received: 7"),
        ("--train {d}/xy.npz --limit 3 --select 0", "at least 4 examples, one batch, are expected to train on. Received: 3"),
        ("--train {d}/xy.npz --label-offset 1", "labels 0..0 are expected (2 classes, label offset 1"),
        ("--train {d}/xy.npz --label-offset -1", "labels 1..2 are expected (2 classes, label offset -1"),
        ("--train {d}/xy.npz --test {d}/xy.npz", "test data that is no training data is expected"),
        ("--train {t}/beyond.npz --test {d}/xy.npz --calibration {d}/xy.npz", "test data that is no calibration data is expected"),
        ("--train {d}/xy.npz --select {d}/xy.npz", "selection data that is no training data is expected"),
        ("--train {d}/xy.npz --test {d}/none.npz", "none.npz: no such file or folder"),
        ("--train {d}/xy.npz --select 1.5", "1 to 7 of its 8 examples, or a share between 0 and 1, can be held back"),
        ("--train {d}/xy.npz --select 8", "1 to 7 of its 8 examples"),
        ("--train {d}/xy.npz --select -0.5", "1 to 7 of its 8 examples"),
        ("--train {d}/xy.npz --select nan", "1 to 7 of its 8 examples"),
        ("--train {d}/xy.npz --select nonsense", "nonsense: no such file or folder"),
        ("--train {d}/xy.npz --select 0 --keep best", "--keep best needs data to select by. Received: --select 0"),
        (
            "--train {d}/xy.npz --select {d}/x.npy",
            "x.npy: selection data with labels is expected, as of the training data. Received: none",
        ),
        ("--train {d}/xy.npz --select {t}/beyond.npz", "beyond.npz: labels 0..1 are expected (2 classes, label offset 0"),
        ("--train {d}/xy.npz --test {t}/beyond.npz", "beyond.npz: labels 0..1 are expected (2 classes, label offset 0"),
        ("--train {d}/xy.npz --calibration {d}/none.npy", "none.npy: no such file or folder"),
        ("--train {d}/xy.npz --augment nonsense", "flip, pad[=PIXELS], crop[=SHARE] and colour[=MAGNITUDE]"),
        ("--train {d}/xy.npz --augment flip", "augmentation wants images [H, W, C]"),
        ("--train {d}/xy.npz --mode int8", "--mode"),
        ("--train {d}/xy.npz --mode float --quant-delay 1", "quant_delay means float training of the weights first"),
        ("--train {d}/xy.npz --quant-delay 2", "quant_delay must leave steps with the quantizers on, out of 2"),
        ("--train {d}/xy.npz --weight-lr 0", "--weight-lr"),
        ("--train {d}/xy.npz --weight-lr nan", "weight_lr must be a number above 0. Received: nan"),
        ("--train {d}/xy.npz --weight-lr inf", "weight_lr must be a number above 0. Received: inf"),
        ("--train {d}/xy.npz --epochs -1", "--epochs"),
        ("--train {d}/xy.npz --beta-1 1", "--beta-1"),
        ("--train {d}/xy.npz --weight-bits 1", "weight bits must be 2 to 8. Received: 1"),
        ("--train {d}/xy.npz --strategy mirrored", "strategy mirrored: two or more different devices out of"),
        ("--train {d}/xy.npz --strategy tpu", "--strategy"),
        ("--train {d}/xy.npz --tune", "one of --tune, --retrain and --from-trained is expected. Received: --tune and --retrain"),
        ("--train {d}/xy.npz --folder {d}/x.npy", "x.npy: a folder that can be written is expected. Received: "),
        ("--train {d}/xy.npz --folder {d}/x.npy/under", "x.npy/under: a folder that can be written is expected"),
        ("--train {d}/xy.npz --folder /proc/nowhere", "/proc/nowhere: a folder that can be written is expected"),
        (
            "--train {d}/xy.npz --folder {d}",
            "a folder that is new, empty, or holds a training already is expected. Received: one with",
        ),
        ("--train {d}/xy.npz --folder {d} --restart", "a folder that is new, empty, or holds a training already is expected"),
        ("--train {d}/xy.npz --patience 0", "--patience"),
        ("--train {d}/xy.npz --patience 2 --select 0", "patience needs data to select by"),
        (
            "--train {d}/xy.npz --mode float --weight-bits 4 --method max",
            "--mode float trains without quantizers; options of theirs say nothing there. Received: --method, --weight-bits",
        ),
        ("--train {d}/xy.npz --mode float --calibration {d}/x.npy", "Received: --calibration"),
        ("--train {d}/xy.npz --folder {t}/o.onnx", "o.onnx: is the file to write; another name is expected for --folder"),
    ],
)
def test_what_cannot_be_trained(refused: Refused, dense: Path, tmp_path: Path, options: str, says: str) -> None:
    np.savez(tmp_path / "beyond.npz", x=np.ones((4, 3), np.float32), y=[0, 1, 2, 0])
    assert says in refused(f"{RETRAIN} {options}", d=dense)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "TF_CONFIG is not set"),
        ("{", "TF_CONFIG cannot be read"),
        (json.dumps({"cluster": {"worker": ["here"]}, "task": {"type": "worker", "index": 0}}), "must list workers as host:port"),
        (json.dumps({"cluster": {"worker": ["here:1"]}, "task": {"type": "worker", "index": 1}}), "a task index below 1"),
    ],
)
def test_several_workers_without_a_cluster(
    refused: Refused, dense: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, says: str
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert says in refused(f"{TRAIN} --strategy multi-worker", d=dense)


def test_models_that_cannot_be_trained(refused: Refused, dense: Path, tmp_path: Path) -> None:
    assert "a MODEL is expected" in refused("quantize -o {t}/o.onnx --retrain --train {d}/xy.npz", d=dense)
    assert "none.onnx: no such file" in refused("quantize {t}/none.onnx -o {t}/o.onnx --retrain --train {d}/xy.npz", d=dense)
    assert "quantized already" in refused("quantize {d}/q.onnx -o {t}/o.onnx --retrain --train {d}/xy.npz", d=dense)
    assert "is the input too" in refused("quantize {d}/m.onnx -o {d}/m.onnx --force --retrain --train {d}/xy.npz", d=dense)
    assert "is another file of this command" in refused(f"{TRAIN} --json {{d}}/xy.npz", d=dense)


def test_an_operator_that_tensorflow_has_no_counterpart_of(refused: Refused, dense: Path, tmp_path: Path) -> None:
    proto = dense_network()
    proto.graph.node.append(helper.make_node("Sin", ["y"], ["z"], name="wave"))
    proto.graph.output[0].name = "z"
    write(tmp_path / "sin.onnx", proto)
    line = refused("quantize {t}/sin.onnx -o {t}/o.onnx --retrain --batch-size 4 --train {d}/xy.npz", d=dense)
    assert "node 'wave': Sin has no counterpart in the regenerated TensorFlow graph" in line


def test_an_output_that_is_there_is_refused_before_anything_is_computed(
    refused: Refused, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        pytest.fail("trained")

    monkeypatch.setattr("tqt_onnx.verbs.retrain.retrain", too_late)
    (tmp_path / "o.onnx").write_bytes(b"precious")
    assert "o.onnx: exists; give another name, or --force to overwrite it" in refused(TRAIN, d=dense)
    (tmp_path / "o.onnx").rename(tmp_path / "o.json")
    assert "o.json: exists; give another name" in refused(f"{TRAIN} --json {{t}}/o.json", d=dense)


@pytest.mark.parametrize("option", ["--select", "--exclude", "--train", "--test", "--calibration"])
def test_data_are_never_overwritten(refused: Refused, dense: Path, tmp_path: Path, option: str) -> None:
    """A zip of images, say: its suffix tells nothing."""
    (tmp_path / "data.zip").write_bytes(b"precious")
    train = "" if option == "--train" else "--train {d}/xy.npz"
    line = refused(f"quantize {{d}}/m.onnx --retrain {train} {option} {{t}}/data.zip -o {{t}}/data.zip --force", d=dense)
    assert "data.zip: is the input too; another name is expected" in line
    line = refused(f"{RETRAIN} {train} {option} {{t}}/data.zip --json {{t}}/data.zip --force", d=dense)
    assert "data.zip: is another file of this command" in line


def test_no_command_overwrites_what_it_reads(refused: Refused, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("row 1\n")
    for command in ("evaluate {d}/m.onnx --data {d}/xy.npz", "check {d}/q.onnx --data {d}/x.npy"):
        line = refused(f"{command} --exclude {{t}}/list.txt --json {{t}}/list.txt --force", d=dense)
        assert "list.txt: is another file of this command" in line
    for option in ("-o", "--list"):
        line = refused(f"calibration-set {{d}}/x.npy --exclude {{t}}/list.txt {option} {{t}}/list.txt --force", d=dense)
        assert "list.txt: is the input too" in line


def test_tuning_is_layer_by_layer(refused: Refused, dense: Path) -> None:
    line = refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {d}/x.npy --tune --parallel-calibration", d=dense)
    assert "one of --tune and --parallel-calibration is expected. Received: both" in line


VALUES = {"--strategy": "mirrored", "--mode": "weights", "--weight-optimizer": "rmsprop", "--weight-schedule": "cosine"}


def test_options_of_retraining_want_retraining(refused: Refused, dense: Path) -> None:
    """Each one, also with the value that is its default."""
    seen = set()
    for option in quantize.params:
        section = section_of(option)
        flag = option.opts[0]
        if section is None or flag in ("--retrain", "--tune", "--from-trained"):
            continue
        assert isinstance(option, click.Option)
        typed = [flag] if option.is_flag else [flag, VALUES.get(flag, "best" if flag == "--keep" else "0.5")]
        if isinstance(option.type, click.IntRange) or option.type is click.INT:
            typed[1:] = ["1"]
        line = refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {d}/x.npy", *typed, d=dense)
        needed = "--tune" if section.endswith("(--tune)") else "--retrain"
        assert f"quantize: {flag} belongs to {needed}, which is not given" in line
        seen.add(section)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--from-trained {d}/x.npy", "x.npy"),
        ("--from-trained {d}/none.keras", "none.keras"),
        ("--from-trained {t}/text.keras", "text.keras"),
        ("--from-trained {s}/net.keras", "net.keras"),
        ("{d}/m.onnx --from-trained {s}/net.keras", "--from-trained takes no MODEL"),
        (
            "--from-trained {s}/net.keras --weight-bits 4",
            "what --weight-bits says was settled when the model of --from-trained was made",
        ),
        ("--from-trained {s}/net.keras --calibration {d}/x.npy", "what --calibration says was settled"),
        ("--from-trained {s}/net.keras --epochs 3", "--epochs belongs to --retrain, which is not given"),
        ("--from-trained {s}/net.keras --retrain --train {d}/xy.npz", "one of --tune, --retrain and --from-trained is expected"),
    ],
)
def test_what_was_not_trained_elsewhere(
    refused: Refused, dense: Path, sources: Path, tmp_path: Path, options: str, says: str
) -> None:
    (tmp_path / "text.keras").write_text("Remember to train the model.\n")
    assert says in refused(f"quantize -o {{t}}/o.onnx {options}", d=dense, s=sources)


# --- checkpoints that are in the way


@pytest.fixture(name="begun", scope="module")
def a_training_with_checkpoints(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    assert run(TRAIN.format(d=dense, t=folder).split()) == 0
    return folder


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--weight-lr 1e-3", "belongs to another schedule"),
        ("--mode weights", "belongs to another mode"),
        ("--distill", "belongs to another loss"),
        ("--seed 1", "belongs to another"),
        ("--activation-bits 4", "belongs to another model"),
        ("--method max", "belongs to another model"),
        ("--keep last", "belongs to another keep"),
        ("--batch-norm-momentum 0.5", "belongs to another batch norm momentum"),
        ("--select 2", "belongs to another selection data"),
        ("--select {t}/other.npz", "belongs to another selection data"),
        ("--label-offset 1 --distill", "belongs to another label offset"),
    ],
)
def test_a_checkpoint_of_another_training(
    begun: Path, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, says: str
) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones((4, 3), np.float32), y=[0, 1, 1, 0])
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    assert run(f"{TRAIN} {options} --folder {begun}/o.train".format(d=dense, t=tmp_path).split()) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("tqt-onnx: error: ") and says in line and "--restart" in line and "Received: " in line
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]


def test_checkpoints_of_which_none_can_be_read(
    begun: Path, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "o.train" / "checkpoints"
    folder.mkdir(parents=True)
    for file in (begun / "o.train" / "checkpoints").iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:40] if file.suffix == ".index" else file.read_bytes())
    assert run(TRAIN.format(d=dense, t=tmp_path).split()) == 2
    assert "none of the checkpoints can be read" in capsys.readouterr().err.splitlines()[-1]
    (folder / "latest.json").write_text("[1, 2")
    assert run(TRAIN.format(d=dense, t=tmp_path).split()) == 2
    assert "a JSON list of checkpoints is expected" in capsys.readouterr().err.splitlines()[-1]
    assert run(f"{TRAIN} --restart".format(d=dense, t=tmp_path).split()) == 0
