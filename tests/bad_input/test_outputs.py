"""Where a result cannot be written: nothing is half-written, and nothing that lies there is harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_files import QUANTIZE, image_network, left_in, write
from onnx import helper

from tqt_onnx.cli import run

Refused = Callable[..., str]


@pytest.mark.parametrize("verb", ["quantize {d}/m.onnx --calibration {d}/x.npy", "convert {s}/net.pb", "convert {d}/m.onnx"])
def test_outputs_in_the_way_or_with_nowhere_to_go(refused: Refused, tmp_path: Path, dense: Path, sources: Path, verb: str) -> None:
    (tmp_path / "there.onnx").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    places = {"d": dense, "s": sources}
    assert "there.onnx: exists" in refused(f"{verb} -o {{t}}/there.onnx", **places)
    assert "is a folder" in refused(f"{verb} --force -o {{t}}/folder", **places)
    assert "does not exist" in refused(f"{verb} -o {{t}}/none/o.onnx", **places)
    assert "does not exist" in refused(f"{verb} -o {{t}}/there.onnx/o.onnx", **places)  # below a regular file
    assert "cannot be written" in refused(f"{verb} -o", "{t}/" + "n" * 250 + ".onnx", **places)


def test_what_is_in_the_way_stays_where_the_work_fails(refused: Refused, tmp_path: Path, dense: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"precious")
    refused("quantize {d}/q.onnx --force -o {t}/there.onnx --calibration {d}/x.npy", d=dense)
    refused("convert {d}/q.onnx --force -o {t}/there.onnx", d=dense)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full", "/dev/stdout"])
def test_devices_are_not_replaced(refused: Refused, dense: Path, device: str) -> None:
    if Path(device).is_file():
        pytest.skip(f"{device} is a file here")
    assert "is a device or a pipe" in refused(f"quantize {{d}}/m.onnx --force -o {device} --calibration {{d}}/x.npy", d=dense)


def test_a_pipe_is_not_replaced(refused: Refused, tmp_path: Path, dense: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "is a device or a pipe" in refused(f"{QUANTIZE} --force".replace("out.onnx", "pipe.onnx"), d=dense)
    assert "pipe.onnx" in refused("inspect {t}/pipe.onnx")  # nor waited for


def test_a_link_to_nowhere_is_something(refused: Refused, tmp_path: Path, dense: Path) -> None:
    (tmp_path / "out.onnx").symlink_to(tmp_path / "gone.onnx")
    assert "out.onnx: exists" in refused(QUANTIZE, d=dense)


def test_a_folder_that_takes_no_files(refused: Refused, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", denied)  # root may write everywhere
    assert "cannot be written: Permission denied" in refused(QUANTIZE, d=dense)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("quantize {t}/m.onnx -o {t}/m.onnx --force --calibration {d}/x.npy", "is the input too"),
        ("convert {t}/m.onnx -o {t}/link.onnx --force", "is the input too"),
        ("convert {t}/m.onnx -o {t}/net.pb --force", "a name that ends in .onnx is expected"),
        ("convert {t}/m.onnx -o {t}/o.onnx --json {t}/o.onnx --force", "another file of this command"),
        ("inspect {t}/m.onnx --json {t}/m.onnx --force", "another file of this command"),
        ("inspect {t}/m.onnx --json {t}/there.json", "there.json: exists"),
    ],
)
def test_inputs_and_reports_are_not_overwritten(refused: Refused, tmp_path: Path, dense: Path, command: str, message: str) -> None:
    content = (dense / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content)
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m.onnx")
    (tmp_path / "there.json").write_text("precious")
    assert message in refused(command, d=dense)
    assert (tmp_path / "m.onnx").read_bytes() == content


# --- a disk that fills up while it is written: the size of a file is limited, in a process of its own

LIMITED = """
import json, resource, sys
limit, words = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from tqt_onnx.cli import main
main(words)
"""


def limited(limit: int, command: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    scratch.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, json.dumps([limit, command.split()])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},
    )


@pytest.mark.parametrize(("limit", "says"), [(40, "calibration keeps intermediate tensors"), (1000, "out.onnx: cannot be written")])
def test_a_disk_that_fills_up(tmp_path: Path, dense: Path, limit: int, says: str) -> None:
    assert (dense / "q.onnx").stat().st_size > 1000
    (tmp_path / "o").mkdir()
    done = limited(limit, QUANTIZE.format(t=tmp_path / "o", d=dense), tmp_path / "scratch")
    errors = [line for line in done.stderr.splitlines() if line.startswith("tqt-onnx")]
    assert done.returncode == 2 and len(errors) == 1 and says in errors[0], done.stderr
    assert "File too large" in errors[0] and "Traceback" not in done.stderr
    assert left_in(tmp_path / "o") == left_in(tmp_path / "scratch") == []


def test_a_report_that_cannot_be_printed(tmp_path: Path, dense: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "tqt_onnx", *QUANTIZE.format(t=tmp_path, d=dense).split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("tqt-onnx")]
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    assert "No space left on device" in errors[0] and "a defect of tqt-onnx" not in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]  # the model is whole; only the table is lost
    assert (tmp_path / "out.onnx").read_bytes() == (dense / "q.onnx").read_bytes()


def test_nothing_is_written_where_the_answer_is_no(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Sin", ["c"], ["y"])]
    write(tmp_path / "sin.onnx", image_network(nodes, {"w": np.array([[[[1]], [[2]]]], np.float32)}))
    assert run(f"convert {tmp_path}/sin.onnx -o {tmp_path}/m.onnx".split()) == 0
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32))
    before = sorted(tmp_path.iterdir())
    assert run(f"quantize {tmp_path}/m.onnx -o {tmp_path}/q.onnx --strict --calibration {tmp_path}/x.npy".split()) == 1
    assert sorted(tmp_path.iterdir()) == before
