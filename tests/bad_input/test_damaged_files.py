"""Damaged files, a few hundred of each kind: success or one line, never a traceback, a crash, a hang or gigabytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from reader_fuzz import damage, outcomes

CASES = {
    "foreign onnx": ("m13.onnx", "convert {bad} -o {out}", 200),
    "float onnx": ("m.onnx", "quantize {bad} -o {out} --calibration D/x.npy", 200),
    "quantized onnx": ("q.onnx", "check {bad} --data D/x.npy", 200),
    "layer32 onnx": ("q32.onnx", "inspect {bad}", 200),
    "npy": ("x.npy", "quantize D/m.onnx -o {out} --calibration {bad}", 200),
    "npz": ("xy.npz", "evaluate D/m.onnx --data {bad}", 200),
    "compressed npz": ("xyc.npz", "quantize D/m.onnx -o {out} --calibration {bad}", 200),
    "frozen graph": ("net.pb", "convert {bad} -o {out}", 60),
    "Keras 3": ("net.keras", "convert {bad} -o {out}", 60),
    "HDF5": ("net.h5", "convert {bad} -o {out}", 40),
}
"""File -> command, and how many: what loads TensorFlow takes longer."""


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files(kind: str, wholes: Path) -> None:
    name, command, count = CASES[kind]
    found = outcomes(wholes / name, 0, range(count), command.replace("D/", f"{wholes}/"))
    assert [outcome.case for outcome in found] == list(range(count))
    assert [outcome for outcome in found if not outcome.fine] == []
    assert {outcome.status for outcome in found} >= {2}


@pytest.fixture(name="wholes", scope="module")
def whole_files(dense: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undamaged files of every kind in one folder."""
    import numpy as np
    from bad_files import dense_network, write

    folder = tmp_path_factory.mktemp("wholes")
    for source in (*dense.iterdir(), *(sources / name for name in ("net.pb", "net.keras", "net.h5"))):
        (folder / source.name).write_bytes(source.read_bytes())
    write(folder / "m13.onnx", dense_network(opset=13, ir_version=8))
    with np.load(dense / "xy.npz") as arrays:
        np.savez_compressed(folder / "xyc.npz", **arrays)
    return folder


def test_damage_is_reproducible_and_real() -> None:
    whole = bytes(range(256)) * 4
    damaged = [damage(whole, 0, case) for case in range(200)]
    assert damaged == [damage(whole, 0, case) for case in range(200)]
    assert sum(data != whole for data in damaged) > 190
    assert len(set(damaged)) > 190
