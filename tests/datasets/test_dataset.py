from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tqt_onnx.datasets import Dataset, demo_digits, open_dataset
from tqt_onnx.datasets.dataset import random_order
from tqt_onnx.ir import DataError


@pytest.fixture
def hundred(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "d.npz", x=np.arange(100.0)[:, None], y=np.arange(100) // 10)
    return open_dataset(tmp_path / "d.npz")


def ids(data: Dataset) -> list[int]:
    return [int(value) for value in data.array()[:, 0]]


def test_labels_follow_their_rows(hundred: Dataset) -> None:
    for view in (hundred.sample(30, 1), hundred.split(30, 1)[1], hundred.skip(95), hundred.take(3)):
        assert view.labels is not None
        assert view.labels.tolist() == [i // 10 for i in ids(view)]
        assert [i for x, _ in view.batches(7) for i in x[:, 0].astype(int).tolist()] == ids(view)
        assert [i for _, y in view.batches(7) if y is not None for i in y.tolist()] == view.labels.tolist()


def test_samples_are_without_replacement_deterministic_and_nested(hundred: Dataset) -> None:
    drawn = ids(hundred.sample(40, 5))
    assert len(set(drawn)) == 40
    assert drawn == ids(hundred.sample(40, 5)) != ids(hundred.sample(40, 6))
    assert ids(hundred.sample(80, 5))[:40] == drawn
    assert drawn != sorted(drawn)


def test_split_never_overlaps(hundred: Dataset) -> None:
    chosen, rest = hundred.split(30, 2)
    assert sorted(ids(chosen) + ids(rest)) == list(range(100))
    inner, outer = rest.split(20, 2)
    assert not {*ids(inner)} & ({*ids(outer)} | {*ids(chosen)})
    assert sorted(ids(hundred.take(60)) + ids(hundred.skip(60))) == list(range(100))


def test_examples_left_out_by_name(tmp_path: Path, hundred: Dataset) -> None:
    drawn = hundred.sample(30, 5)
    (tmp_path / "drawn.txt").write_text("\n".join(drawn.names()) + "\n")
    for exclude in (drawn.names(), tmp_path / "drawn.txt", str(tmp_path / "drawn.txt")):
        rest = open_dataset(tmp_path / "d.npz", exclude=exclude)
        assert ids(rest) == sorted(set(range(100)) - set(ids(drawn)))
        assert rest.labels is not None
        assert rest.labels.tolist() == [i // 10 for i in ids(rest)]
        assert len(open_dataset(tmp_path / "d.npz", exclude=exclude, limit=80, seed=1)) == 70
    with pytest.raises(DataError, match=r"has no example called 'cat\.png' to be left out; its first is 'row 0'"):
        open_dataset(tmp_path / "d.npz", exclude=["row 3", "cat.png"])
    with pytest.raises(DataError, match="nothing is left of its 100 examples"):
        open_dataset(tmp_path / "d.npz", exclude=hundred.names())
    with pytest.raises(DataError, match=r"none\.txt: cannot be read.*one example a line"):
        open_dataset(tmp_path / "d.npz", exclude=tmp_path / "none.txt")


def test_limit_and_seed(tmp_path: Path, hundred: Dataset) -> None:
    assert ids(open_dataset(tmp_path / "d.npz", limit=3)) == [0, 1, 2]
    assert ids(open_dataset(tmp_path / "d.npz", limit=3, seed=4)) == ids(hundred.sample(3, 4))
    assert len(open_dataset(tmp_path / "d.npz", limit=1000)) == 100


def test_order_is_pinned() -> None:
    assert random_order(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]  # NumPy keeps the raw stream for ever


def test_refusals(hundred: Dataset, tmp_path: Path) -> None:
    for call in (
        lambda: hundred.sample(101, 0),
        lambda: hundred.sample(0, 0),
        lambda: hundred.split(100, 0),
        lambda: hundred.skip(100),
        lambda: hundred.skip(-1),
        lambda: hundred.take(0),
        lambda: hundred.without(hundred),
        lambda: hundred.without(open_dataset(tmp_path / "d.npz")),
        lambda: list(hundred.batches(0)),
    ):
        with pytest.raises(DataError):
            call()


def test_only_one_batch_is_read_at_a_time() -> None:
    class Spy:
        shape = (2,)
        largest = 0

        def __len__(self) -> int:
            return 1000

        def name(self, row: int) -> str:
            return str(row)

        def read(self, rows: np.ndarray) -> np.ndarray:
            self.largest = max(self.largest, len(rows))
            return np.zeros((len(rows), 2), np.float32)

    spy = Spy()
    stream = Dataset(spy, np.arange(1000), None, "spy").batches(16)
    next(stream)
    assert spy.largest == 16
    assert sum(len(x) for x, _ in stream) == 1000 - 16


def test_digits_split() -> None:
    digits = demo_digits(3)
    parts = (digits.train, digits.calibration, digits.test)
    assert [part.shape for part in parts] == [(1297, 8, 8, 1), (100, 8, 8, 1), (400, 8, 8, 1)]
    assert all(part.dtype == np.float32 and part.min() == 0 and part.max() == 1 for part in parts)
    assert np.array_equal(demo_digits(3).test, digits.test)
    assert not np.array_equal(demo_digits(4).test, digits.test)
    assert set(digits.calibration_labels.tolist()) == set(range(10))
    with pytest.raises(ValueError, match="leave some"):
        demo_digits(calibration=1000, test=797)


def test_importing_the_room_loads_no_tensorflow_and_no_sklearn() -> None:
    import subprocess
    import sys

    code = "import sys, tqt_onnx.datasets; print(sorted({'tensorflow', 'sklearn', 'onnxruntime', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
