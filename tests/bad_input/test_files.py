"""Files that are missing, empty, cut off, or not what they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_files import dense_network, write

from tqt_onnx.cli import run

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("convert {t}/none.pb -o {t}/o.onnx", "none.pb: no such file"),
        ("convert {t}/none.keras -o {t}/o.onnx", "none.keras: no such file"),
        ("convert {t}/none.onnx -o {t}/o.onnx", "none.onnx: no such file"),
        ("quantize {t}/none.onnx -o {t}/o.onnx --calibration {d}/x.npy", "none.onnx: no such file"),
        ("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/none.npy", "none.npy: no such file"),
        ("check {t}/none.onnx --data {d}/x.npy", "none.onnx: no such file"),
        ("check {d}/q.onnx --data {t}/none", "none: no such file"),
        ("evaluate {t}/none.onnx --data {d}/xy.npz", "none.onnx: no such file"),
        ("evaluate {d}/m.onnx {t}/none.onnx --data {d}/xy.npz", "none.onnx: no such file"),
        ("inspect {t}/none.onnx", "none.onnx: no such file"),
        ("inspect {t}", "no such file; an .onnx file"),
        ("inspect /dev/null", "/dev/null: no such file"),
        ("quantize {d}/m.onnx -o {t}/o.onnx --calibration /dev/null", "/dev/null: no such file"),
        ("convert {t} -o {t}/o.onnx", "{t}"),
    ],
)
def test_missing_files(refused: Refused, tmp_path: Path, dense: Path, command: str, says: str) -> None:
    assert says.format(t=tmp_path) in refused(command, d=dense)


@pytest.mark.parametrize(
    "command",
    [
        "inspect {n}.onnx",
        "convert {n}.onnx -o {t}/o.onnx",
        "convert {n}.pb -o {t}/o.onnx",
        "quantize {d}/m.onnx -o {t}/{n}.onnx --calibration {d}/x.npy",
        "quantize {d}/m.onnx -o {t}/o.onnx --calibration {n}.npy",
    ],
)
def test_names_that_no_file_system_takes(refused: Refused, dense: Path, command: str) -> None:
    assert "too long" in refused(command.replace("{n}", "n" * 300), d=dense)


@pytest.mark.parametrize(
    "content", [b"", b"just some text\n" * 50, b"\x00" * 300, bytes(range(256)) * 20], ids=["empty", "text", "zeros", "binary"]
)
@pytest.mark.parametrize("suffix", ["onnx", "pb", "keras", "h5", "txt"])
def test_files_that_are_not_what_they_are_called(refused: Refused, tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    assert f"bad.{suffix}" in refused(f"convert {{t}}/bad.{suffix} -o {{t}}/o.onnx")
    if suffix == "onnx":
        assert "bad.onnx" in refused("inspect {t}/bad.onnx")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["net.onnx", "q.onnx", "net.keras", "net.h5"])
def test_truncated_files(refused: Refused, tmp_path: Path, sources: Path, name: str, share: float) -> None:
    whole = (sources / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    assert name in refused(f"convert {{t}}/{name} -o {{t}}/o.onnx")
    if name.endswith(".onnx"):
        assert name in refused(f"inspect {{t}}/{name}")


def test_external_data_inside_the_folder_are_read(tmp_path: Path, dense: Path) -> None:
    onnx.save(dense_network(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.bin")
    assert (tmp_path / "m.bin").is_file()
    assert run(["quantize", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/q.onnx", "--calibration", f"{dense}/x.npy"]) == 0
    assert (tmp_path / "q.onnx").read_bytes() == (dense / "q.onnx").read_bytes()
    assert run(["evaluate", f"{tmp_path}/m.onnx", f"{tmp_path}/q.onnx", "--data", f"{dense}/xy.npz"]) == 0
    assert run(["convert", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/c.onnx"]) == 0


def test_an_ir_version_that_onnxruntime_does_not_know_is_lowered_on_reading(tmp_path: Path, dense: Path) -> None:
    write(tmp_path / "m.onnx", dense_network(ir_version=onnx.IR_VERSION))
    assert run(["evaluate", f"{tmp_path}/m.onnx", "--data", f"{dense}/xy.npz"]) == 0
    assert run(["quantize", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/q.onnx", "--calibration", f"{dense}/x.npy"]) == 0
    assert (tmp_path / "q.onnx").read_bytes() == (dense / "q.onnx").read_bytes()  # of the one IR version (O1)


def test_a_zip_that_unpacks_to_a_hundred_times_its_size(refused: Refused, tmp_path: Path, dense: Path) -> None:
    """Its rows are read as they are needed; it is the shape that does not fit."""
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((200_000, 4), np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 32_000
    assert "[200000, 4]" in refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/bomb.npz", d=dense)
