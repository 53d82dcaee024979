"""Data that do not fit the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import QUANTIZE

Refused = Callable[..., str]


def bad_arrays() -> dict[str, Any]:
    good = np.ones((8, 3), np.float32)
    nan, inf = good.copy(), good.copy()
    nan[5, 1], inf[7, 2] = np.nan, -np.inf
    return {
        "wrong width": (np.ones((8, 4), np.float32), "[N, 3]"),
        "wrong rank": (np.ones((8, 3, 1), np.float32), "[N, 3]"),
        "one number": (np.float32(1), "[N, 3]"),
        "NaN": (nan, "nan"),
        "Inf": (inf, "inf"),
        "float64 beyond float32": (good.astype(np.float64) * 1e300, "inf"),
        "empty": (good[:0], "non-empty"),
        "pickled objects": (np.array([[1, "a", None]] * 8, dtype=object), "bad.npy"),
        "text": (np.array([["a", "b", "c"]]), "numbers"),
        "complex": (good.astype(np.complex64), "numbers"),
    }


@pytest.mark.parametrize("kind", bad_arrays())
def test_arrays_that_do_not_fit(refused: Refused, tmp_path: Path, dense: Path, kind: str) -> None:
    array, says = bad_arrays()[kind]
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    np.savez(tmp_path / "bad.npz", x=array, y=np.zeros(8, np.int64))
    assert says in refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/bad.npy", d=dense)
    assert says in refused("quantize {d}/m.onnx -o {t}/o.onnx --parallel-calibration --calibration {t}/bad.npy", d=dense)
    assert says in refused("check {d}/q.onnx --data {t}/bad.npy", d=dense)
    refused("evaluate {d}/m.onnx --data {t}/bad.npz", d=dense)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 0, 1, 0, 1, 0], [0, 1, -1, 0, 1, 0, 1, 0], [0.5] * 8, [0] * 7, [[0, 1]] * 8, [2**40] * 8]
)
def test_labels_that_do_not_fit(refused: Refused, tmp_path: Path, dense: Path, labels: list[Any]) -> None:
    np.savez(tmp_path / "bad.npz", x=np.ones((8, 3), np.float32), y=np.array(labels))
    assert "label" in refused("evaluate {d}/m.onnx --data {t}/bad.npz", d=dense)


@pytest.mark.parametrize("offset", ["1", "-1", "1000000"])
def test_a_label_offset_out_of_range(refused: Refused, dense: Path, offset: str) -> None:
    assert f"label offset {offset}" in refused("evaluate {d}/m.onnx --data {d}/xy.npz --label-offset", offset, d=dense)


def test_an_accuracy_bound_needs_labels(refused: Refused, dense: Path) -> None:
    assert "labels" in refused("evaluate {d}/m.onnx --data {d}/x.npy --min-accuracy 0.5", d=dense)
    assert "0<=x<=1" in refused("evaluate {d}/m.onnx --data {d}/xy.npz --min-accuracy 76", d=dense)


def test_negative_data_for_an_unsigned_input(refused: Refused, dense: Path) -> None:
    line = refused(f"{QUANTIZE} --unsigned-input", d=dense)
    assert "'x'" in line and "unsigned" in line and "-" in line


def test_images_for_a_network_without_images(refused: Refused, tmp_path: Path, dense: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "one.png")
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/images", d=dense)
    (tmp_path / "images" / "one.png").write_bytes(b"no image")
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/images", d=dense)
    (tmp_path / "none").mkdir()
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/none", d=dense)
