from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

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
    assert isinstance(load_npz(tmp_path / "d.npz")[0], np.memmap)
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
    with pytest.raises(DataError, match="preprocessing maps pixels of an integer type"):
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


def test_channels_first_are_told_from_channels_last(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", np.ones((2, 3, 4, 5)))
    with pytest.raises(
        DataError, match=r"\[N, 4, 5, 3\] is expected \(channels last; these seem to come first\)\. Received: \[2, 3,"
    ):
        open_dataset(path, input_shape=(4, 5, 3))
    with pytest.raises(DataError, match=r"\[N, 4, 4, 3\] is expected\. Received"):
        open_dataset(path, input_shape=(4, 4, 3))


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", ">f4", "f2", "f8"])
def test_rows_are_read_from_the_file_in_any_order(tmp_path: Path, dtype: str) -> None:
    array = np.arange(60).reshape(10, 2, 3).astype(dtype)
    for path in (save(tmp_path / "c.npy", array), save(tmp_path / "f.npy", np.asfortranarray(array))):
        data = open_dataset(path)
        for view in (data, data.sample(7, 1), data.skip(4), data.sample(10, 2).skip(3)):
            assert np.array_equal(view.array(), array[view.rows].astype(np.float32))


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    data = open_dataset(save(tmp_path / "x.npy", np.ones((10, 3))))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match="has become shorter"):
        data.array()


def test_compressed_arrays_that_promise_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1000, 100)))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(DataError, match="800000 bytes when unpacked, more than half of what is free"):
        open_dataset(tmp_path / "d.npz")


def test_an_array_shorter_than_its_header_says(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((10, 3)))
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "d.npz", "w", compression) as archive:
            archive.writestr("x.npy", buffer.getvalue()[:-8])
        with pytest.raises(DataError, match=r"array 'x\.npy' is cut off"):
            open_dataset(tmp_path / "d.npz")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="asks Linux for the memory of a process")
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """The process's own memory, in which pages of mapped files count, from the first of 64 batches of 1 MB to the last."""
    code = (
        "import sys; from tqt_onnx.datasets import open_dataset; from pathlib import Path\n"
        "memory = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 2**20\n"
        "data = open_dataset(sys.argv[1])\n"
        "sizes = [memory() for batch, _ in data.sample(len(data), 0).batches(64)]\n"
        "print(len(sizes), sizes[-1] - sizes[0])"
    )
    path = tmp_path / f"x.{kind}"
    array = np.zeros((4096, 64, 64), np.float32)
    np.save(path, array) if kind == "npy" else np.savez(path, x=array)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    batches, grown = done.stdout.split()
    assert int(batches) == 64
    assert float(grown) < 8


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
    with pytest.raises(
        DataError,
        match=r"must be one of none, unit, signed_unit, inception, vgg, resnet_v1p5, darknet, letterbox\. Received: 'vvg'",
    ):
        open_dataset(tmp_path, preprocess="vvg")


def test_arrays_in_memory() -> None:
    data = open_array(np.arange(6, dtype=np.uint8).reshape(3, 2), input_shape=(None,), preprocess="unit", labels=[2, 1, 0])
    assert np.array_equal(data.array(), np.arange(6, dtype=np.float32).reshape(3, 2) / np.float32(255))
    assert data.skip(2).labels is not None
    with pytest.raises(DataError, match=r"array: an array \[N, 3\] is expected"):
        open_array(np.ones((3, 2)), input_shape=(3,))
