"""`export` on what it cannot do: one line, exit status 2, and the folder as it was before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_files import left_in
from reader_fuzz import outcomes

from tqt_onnx.cli import run

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{d}/q32.onnx --target fpga -o {t}/out", "'fpga' is not one of 'qdq', "),
        ("{d}/q32.onnx --target qdq", "Missing option '-o'"),
        ("{d}/q32.onnx -o {t}/out", "Missing option '--target'"),
        ("--target qdq -o {t}/out", "Missing argument 'MODEL'"),
        ("{d}/q32.onnx --target qdq -o {t}/out --fix", "target qdq takes no options. Received: --fix"),
        ("{d}/q32.onnx --target qdq -o {t}/out --integer-io", "Received: --integer-io"),
        ("{d}/q32.onnx --target dpu -o {t}/out --bias-bits 16", "'16' is not one of '8', '32'"),
        ("{d}/q32.onnx --target vectors -o {t}/out", "target vectors writes examples: --data is expected"),
        ("{d}/q32.onnx --target vectors -o {t}/out --data {d}/none.npy", "none.npy"),
        ("{d}/q32.onnx --target vectors -o {t}/out --data {d}/m.onnx", "m.onnx"),
        ("{d}/q32.onnx --target vectors -o {t}/out --data {d}/x.npy --limit 0", "--limit"),
        ("{d}/q32.onnx --target vectors -o {t}/out --data {d}/x.npy --seed -1", "--seed"),
        ("{d}/q32.onnx --target vectors -o {t}/out --data {d}/x.npy --exclude {d}/none.txt", "none.txt"),
        ("{d}/m.onnx --target qdq -o {t}/out", "not a quantized model"),
        ("{d}/none.onnx --target qdq -o {t}/out", "none.onnx: no such file"),
        ("{d} --target qdq -o {t}/out", "no such file; an .onnx file is expected"),
        ("{d}/x.npy --target qdq -o {t}/out", "x.npy: not an ONNX"),
        ("{d}/q32.onnx --target qdq -o {t}/none/out", "does not exist"),
        ("{d}/q32.onnx --target qdq -o {d}/x.npy --force", "x.npy: exists and is no folder"),
        ("{d}/q32.onnx --target qdq -o {d}/x.npy/out", "does not exist"),
        ("{d}/q32.onnx --target qdq -o {d} --force", "holds something that no export wrote"),
        ("{d}/q32.onnx --target qdq -o {t}/out --json {t}/out", "lies in the folder to write"),
        ("{d}/q32.onnx --target qdq -o {t}/out --json {t}/out/r.json", "lies in the folder to write"),
        ("{d}/q32.onnx --target qdq -o {t}/out --json {t}/none/r.json", "does not exist"),
        ("{d}/q32.onnx --target qdq -o {t}/out --json {d}/q32.onnx --force", "another file of this command"),
        ("{d}/q32.onnx --target qdq -o /dev/null --force", "exists and is no folder"),
        ("{d}/q32.onnx --target qdq -o / --force", "holds it"),
        ("{d}/q32.onnx {d}/q.onnx --target qdq -o {t}/out", "unexpected extra argument"),
    ],
)
def test_one_line(refused: Refused, dense: Path, words: str, says: str) -> None:
    assert says in refused(f"export {words}", d=dense)


def test_a_name_that_no_file_system_takes(refused: Refused, dense: Path) -> None:
    assert "cannot be written" in refused("export {d}/q32.onnx --target qdq -o", "{t}/" + "n" * 300, d=dense)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that refuses even root is needed")
def test_a_read_only_folder(refused: Refused, dense: Path) -> None:
    assert "/proc/self/out: cannot be written" in refused("export {d}/q32.onnx --target qdq -o /proc/self/out", d=dense)


def test_what_is_in_the_way_stays(refused: Refused, tmp_path: Path, dense: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    command = "export {d}/q32.onnx --target qdq -o {t}/out"
    assert "out: exists; give another name, or --force to replace it" in refused(command, d=dense)
    assert "out: holds something that no export wrote" in refused(f"{command} --force", d=dense)
    os.mkfifo(tmp_path / "pipe")
    assert "exists and is no folder" in refused(f"{command} --force".replace("out", "pipe"), d=dense)


def test_a_float_model_and_a_wrong_array_leave_an_export_as_it_is(refused: Refused, tmp_path: Path, dense: Path) -> None:
    export = "export {d}/q32.onnx --target vectors -o {t}/out --data {d}/x.npy"
    assert run(export.format(d=dense, t=tmp_path).split()) == 0
    np.save(tmp_path / "wide.npy", np.zeros((3, 4), np.float32))
    assert "Received: [3, 4]" in refused(f"{export} --force".replace("{d}/x.npy", "{t}/wide.npy"), d=dense)
    assert "not a quantized model" in refused(f"{export} --force".replace("q32", "m"), d=dense)
    assert "out: holds the input" in refused(f"{export} --force".replace("{d}/x.npy", "{t}/out/floats/000_x.npy"), d=dense)
    assert run([*export.format(d=dense, t=tmp_path).split(), "--force"]) == 0


# --- a process that is stopped, or whose disk fills up

AT = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import os, sys, time
from pathlib import Path
moment, number = sys.argv[1], int(sys.argv[2])

def stop(*_, **__):
    os.kill(os.getpid(), number)
    time.sleep(30)  # a signal is seen at the next step of the interpreter

if moment == "recording":
    from tqt_onnx.export.vector_files import files as vectors_files
    write = vectors_files.Recorder.record
    vectors_files.Recorder.record = lambda *rest: (write(*rest), stop())
elif moment == "manifest":
    write = Path.write_text
    Path.write_text = lambda path, text, **rest: (write(path, text[:50], **rest), stop())
elif moment == "renaming":
    rename = Path.rename
    Path.rename = lambda path, to: rename(path, to) if path.suffix != ".part" else stop()
from tqt_onnx.cli import main
main(sys.argv[3:])
"""
"""Sends a signal to itself at a given moment."""


@pytest.mark.parametrize("moment", ["recording", "manifest", "renaming"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_leaves_what_was_there(tmp_path: Path, dense: Path, moment: str, number: signal.Signals, status: int) -> None:
    words = f"export {dense}/q32.onnx --target vectors -o {tmp_path}/out --data {dense}/x.npy".split()
    assert run([*words, "--limit", "1"]) == 0
    before = (tmp_path / "out" / "export.json").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", AT, moment, str(int(number)), *words, "--force"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == "tqt-onnx: interrupted" and "Traceback" not in done.stderr
    assert left_in(tmp_path) == ["out"]
    assert (tmp_path / "out" / "export.json").read_bytes() == before


LIMITED = """
import json, resource, sys
limit, words = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from tqt_onnx.cli import main
main(words)
"""


@pytest.mark.parametrize("limit", [100, 200, 2000])  # in the middle of an array, of a memory file, of the manifest
def test_a_disk_that_fills_up(tmp_path: Path, dense: Path, limit: int) -> None:
    words = f"export {dense}/q32.onnx --target vectors -o {tmp_path}/out --data {dense}/x.npy".split()
    done = subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, json.dumps([limit, words])], capture_output=True, text=True, check=False
    )
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("tqt-onnx")]
    assert done.returncode == 2 and error.endswith("out: cannot be written: File too large"), done.stderr
    assert left_in(tmp_path) == []


# --- damaged files


@pytest.mark.parametrize(("target", "count"), [("qdq", 100), ("integer", 100), ("vectors", 100)])
def test_damaged_models(dense: Path, target: str, count: int) -> None:
    data = f" --data {dense}/x.npy" if target == "vectors" else ""
    found = outcomes(dense / "q32.onnx", 1, range(count), f"export {{bad}} --target {target} -o {{out}}{data}")
    assert [outcome.case for outcome in found] == list(range(count))
    assert [outcome for outcome in found if not outcome.fine] == []
    assert {outcome.status for outcome in found} >= {2}
