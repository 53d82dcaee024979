from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tqt_onnx.datasets import open_array, open_dataset
from tqt_onnx.datasets.arrays import load_npz
from tqt_onnx.ir import DataError


def save(path: Path, array: object) -> Path:
    np.save(path, np.asarray(array))
    return path


def test_batches_keep_the_remainder_and_cast_integers(tmp_path: Path) -> None:
    pixels = np.arange(7 * 4, dtype=np.uint8).reshape(7, 2, 2, 1)
    batches = list(open_dataset(save(tmp_path / "x.npy", pixels), input_shape=(2, 2, 1)).batches(3))
    assert [len(x) for x, _ in batches] == [3, 3, 1]
    assert all(x.dtype == np.float32 and y is None for x, y in batches)
    assert np.array_equal(np.concatenate([x for x, _ in batches]), pixels)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_with_labels(tmp_path: Path, compressed: bool) -> None:
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.arange(5)[:, None]
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", images=x, y=y)
    assert isinstance(load_npz(tmp_path / "d.npz")[0], np.memmap) is not compressed
    data = open_dataset(tmp_path / "d.npz")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(data.array(), x.astype(np.float32))


def test_npz_fortran_order_and_input_name(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    np.savez(tmp_path / "d.npz", **{"serving_default_input:0": x})
    assert np.array_equal(open_dataset(tmp_path / "d.npz").array(), x)


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    save(tmp_path / "x.npy", np.ones((2, 3))).rename(tmp_path / "x.bin")
    assert len(open_dataset(tmp_path / "x.bin")) == 2


def test_presets_map_integer_arrays_only(tmp_path: Path) -> None:
    pixels = save(tmp_path / "u.npy", np.array([[0, 51, 255]], np.uint8))
    assert open_dataset(pixels, preprocess="unit").array().tolist() == [[0.0, np.float32(0.2), 1.0]]
    assert open_dataset(pixels, preprocess="inception").array().tolist() == [[-1.0, np.float32(51) / np.float32(127.5) - 1, 1.0]]
    with pytest.raises(DataError, match="presets map pixels of an integer type"):
        open_dataset(save(tmp_path / "f.npy", np.ones((1, 3), np.float32)), preprocess="unit")
    with pytest.raises(DataError, match="inputs of 3 channels"):
        open_dataset(save(tmp_path / "g.npy", np.ones((1, 2, 2, 1), np.uint8)), preprocess="vgg")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["a", "b"]), "numbers are expected"),
        (np.ones((2, 3), np.complex64), "numbers are expected"),
        (np.zeros((0, 4)), "non-empty"),
        (np.ones((3, 0)), "non-empty"),
        (np.float32(3.0), "non-empty"),
        (np.ones(4), "non-empty"),
        (np.ones((2, 5)), r"\[N, 4\] is expected. Received: \[2, 5\]"),
    ],
)
def test_refused_arrays(tmp_path: Path, array: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_dataset(save(tmp_path / "x.npy", array), input_shape=(4,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_are_never_loaded(tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise AssertionError('unpickled')",)

    objects = np.array([Bomb()], dtype=object)
    if name.endswith("npz"):
        np.savez(tmp_path / name, x=objects)
    else:
        np.save(tmp_path / name, objects, allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb()))
    for file in (name, "plain.npy"):
        with pytest.raises(DataError):
            open_dataset(tmp_path / file)


@pytest.mark.parametrize("keep", [0, 5, 6, 40, 100, 200])
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_truncated_files(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        if name.endswith("npz"):
            np.savez(file, x=np.ones((10, 3)))
        else:
            np.save(file, np.ones((10, 3)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError):
        open_dataset(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_nan_and_inf_are_named(tmp_path: Path, value: float) -> None:
    array = np.zeros((9, 2, 3))
    array[7, 1, 2] = value
    data = open_dataset(save(tmp_path / "x.npy", array))
    with pytest.raises(DataError, match=r"row 7 holds -?(nan|inf) at \[1, 2\]"):
        list(data.batches(4))
    assert len(list(data.take(7).batches(4))) == 2


def test_labels_given_and_refused(tmp_path: Path) -> None:
    x = save(tmp_path / "x.npy", np.ones((3, 2)))
    for labels in ([4, 5, 6], save(tmp_path / "y.npy", [4, 5, 6])):
        data = open_dataset(x, labels=labels)
        assert data.labels is not None
        assert data.labels.tolist() == [4, 5, 6]
    for wrong, message in [
        ([1, 2], "each of 3 examples"),
        ([1.0, 2.0, 3.0], "integers"),
        ([0, -1, 2], "negative.*-1 at row 1"),
        ([[1, 2], [3, 4], [5, 6]], "integers"),
        (tmp_path / "none.npy", "no such file"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset(x, labels=wrong)


def test_ambiguous_npz_lists_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(DataError, match="Received: a, b"):
        open_dataset(tmp_path / "d.npz")


def test_missing_and_unknown_sources(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(tmp_path / "missing.npy")
    with pytest.raises(DataError, match=r"Received: \.txt"):
        open_dataset(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"preprocess must be one of none, unit, inception, vgg\. Received: 'vvg'"):
        open_dataset(tmp_path, preprocess="vvg")


def test_arrays_in_memory() -> None:
    data = open_array(np.arange(6, dtype=np.uint8).reshape(3, 2), input_shape=(None,), preprocess="unit", labels=[2, 1, 0])
    assert np.array_equal(data.array(), np.arange(6, dtype=np.float32).reshape(3, 2) / np.float32(255))
    assert data.skip(2).labels is not None
    with pytest.raises(DataError, match=r"array: an array \[N, 3\] is expected"):
        open_array(np.ones((3, 2)), input_shape=(3,))
