"""Ctrl-C and SIGTERM at any moment: no temporary files, no half-written model, one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_files import QUANTIZE, left_in

HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A job in the background hands "ignore Ctrl-C" on to its children; here they are to take it."""

AT = f"""{HEED}
import os, sys, time
from pathlib import Path
moment, number = sys.argv[1], int(sys.argv[2])

def stop(*_, **__):
    os.kill(os.getpid(), number)
    time.sleep(30)  # a signal is seen at the next step of the interpreter

if moment == "spilling":
    from tqt_onnx.calibrate import spill
    spill.Spill.append = stop
elif moment == "writing":
    write = Path.write_bytes
    Path.write_bytes = lambda path, data: (write(path, data[:100]), stop())
elif moment == "renaming":
    Path.replace = stop
from tqt_onnx.cli import main
main(sys.argv[3:])
"""
"""Sends a signal to itself at a given moment."""


def interrupted(moment: str, number: signal.Signals, words: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    scratch.mkdir()
    return subprocess.run(
        [sys.executable, "-c", AT, moment, str(int(number)), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "TMPDIR": str(scratch)},
    )


@pytest.mark.parametrize("moment", ["spilling", "writing", "renaming"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, dense: Path, moment: str, number: signal.Signals, status: int) -> None:
    (tmp_path / "o").mkdir()
    done = interrupted(moment, number, QUANTIZE.format(t=tmp_path / "o", d=dense).split(), tmp_path / "scratch")
    assert left_in(tmp_path / "o") == left_in(tmp_path / "scratch") == []
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "tqt-onnx: interrupted"


def test_an_existing_file_survives_a_signal(tmp_path: Path, dense: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "out.onnx").write_bytes(b"precious")
    words = [*QUANTIZE.format(t=tmp_path / "o", d=dense).split(), "--force"]
    interrupted("writing", signal.SIGINT, words, tmp_path / "scratch")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "o").iterdir()] == [("out.onnx", b"precious")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "SIGTERM", "SIGKILL"])
def test_a_signal_in_the_middle_of_calibration(tmp_path: Path, dense: Path, number: signal.Signals) -> None:
    """The spill files are anonymous: whatever ends the process, the system takes them back."""
    for name in ("o", "scratch"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "many.npy", np.random.default_rng(0).normal(size=(400_000, 3)).astype(np.float32))
    words = f"quantize {dense}/m.onnx -o {tmp_path}/o/out.onnx --calibration {tmp_path}/many.npy".split()
    with subprocess.Popen(
        [sys.executable, "-c", f"{HEED}import sys; from tqt_onnx.cli import main; main(sys.argv[1:])", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    ) as process:
        spilled = False
        while process.poll() is None and not spilled:  # until a file without a name is open in the scratch folder
            names = open_files(process.pid)  # the standard library first tries the folder with a file that has a name
            spilled = any(str(tmp_path / "scratch") in name and name.endswith(" (deleted)") for name in names)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert spilled, errors.decode()
    assert process.returncode not in (0, 2)
    assert left_in(tmp_path / "o") == left_in(tmp_path / "scratch") == []


def open_files(process: int) -> list[str]:
    """What a running process has open; nothing where it has ended, or closes a file at this moment."""
    try:
        return [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return []
