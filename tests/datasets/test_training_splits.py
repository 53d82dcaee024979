"""Training, selection and test data share no example, and the report says where each comes from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_files import example, write

from tqt_onnx.datasets import Dataset, open_array, open_dataset, split_for_training
from tqt_onnx.datasets.splits import hold_out, shared_examples
from tqt_onnx.ir import DataError


def labelled(sizes: list[int]) -> Dataset:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return open_array(np.arange(len(labels))[:, None], labels=labels)


def pictures(root: Path, count: int = 6) -> Path:
    for i in range(count):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(root / "ab"[i % 2] / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([5, 5, 5], 4, [2, 1, 1]),  # the first takes what is left over
        ([100, 1, 1], 10, [10, 0, 0]),  # no class is lost
        ([1, 1, 1], 2, [1, 1, 0]),  # unless there is no other way
        ([2, 2, 2], 5, [2, 2, 1]),
        ([7], 3, [3]),
        ([1, 999], 999, [1, 998]),
    ],
)
def test_every_class_has_its_share(sizes: list[int], count: int, expected: list[int]) -> None:
    data = labelled(sizes)
    held, by_class = hold_out(data, count, seed=1)
    assert by_class
    assert held.labels is not None
    assert np.bincount(held.labels, minlength=len(sizes)).tolist() == expected
    assert held.rows.tolist() == sorted(set(held.rows.tolist()))


def test_held_back_examples_are_drawn_at_random_and_never_trained_on() -> None:
    data = labelled([40, 60])
    split = split_for_training(data, 0.2, seed=3)
    assert split.select is not None
    assert sorted([*split.train.rows.tolist(), *split.select.rows.tolist()]) == list(range(100))
    assert split.train.labels is not None
    assert np.bincount(split.train.labels).tolist() == [32, 48]
    again, other = (split_for_training(data, 20, seed=seed).select for seed in (3, 4))
    assert again is not None
    assert other is not None
    assert again.rows.tolist() == split.select.rows.tolist() != other.rows.tolist()
    assert split.trained_on == "80 of 100 examples of array"
    assert split.selected_on == "20 of 100 examples of array, held back from training, of each class in proportion"
    assert split.tested_on == "nothing"


def test_without_labels_at_random() -> None:
    split = split_for_training(open_array(np.zeros((20_000, 1))), 2000)
    assert split.selected_on == "2,000 of 20,000 examples of array, held back from training"
    assert len(split.train) == 18_000


def test_a_view_holds_back_of_itself() -> None:
    view = labelled([50, 50]).sample(40, 1)
    split = split_for_training(view, 10)
    assert split.select is not None
    assert {*split.select.rows.tolist()} | {*split.train.rows.tolist()} == {*view.rows.tolist()}


def test_nothing_selects_and_data_of_its_own_does(tmp_path: Path) -> None:
    data = labelled([5, 5])
    assert split_for_training(data).select is None
    assert split_for_training(data).selected_on == "nothing"
    other, test = open_dataset(pictures(tmp_path / "val")), open_dataset(pictures(tmp_path / "test"))
    split = split_for_training(open_dataset(pictures(tmp_path / "train")), other, test=test)
    assert (split.select, split.test) == (other, test)
    assert split.selected_on == f"6 examples of {tmp_path / 'val'}"
    assert split.tested_on == f"6 examples of {tmp_path / 'test'}"


@pytest.mark.parametrize("select", [0, 10, -1, 1.5, 1.0, float("nan"), float("inf"), 11])
def test_numbers_that_cannot_be_held_back(select: float) -> None:
    if select == 1.0:  # one example
        assert len(split_for_training(labelled([10]), select).train) == 9
        return
    with pytest.raises(DataError, match=r"array: 1 to 9 of its 10 examples, or a share .* Received: "):
        split_for_training(labelled([10]), select)


def test_an_example_in_two_sets_is_refused() -> None:
    data = labelled([10, 10])
    train, rest = data.skip(5), data.take(5)
    with pytest.raises(DataError, match=r"selection data that is no training data .* 2 of its 7 .* the first is row 5"):
        split_for_training(train, data.take(7))
    with pytest.raises(DataError, match=r"test data that is no training data .* 20 of its 20"):
        split_for_training(data, 3, test=data)
    with pytest.raises(DataError, match=r"test data that is no selection data .* 5 of its 5"):
        split_for_training(train, rest, test=rest)
    assert split_for_training(train, rest.take(2), test=rest.skip(2)).tested_on == "3 examples of array"


def test_the_same_source_opened_twice_is_seen(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d")
    (folder / "list.csv").write_text("file,label\na/0.png,0\nb/1.png,1\n")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "x.png").symlink_to(folder / "a" / "2.png")
    whole = open_dataset(folder, input_shape=(4, 4, 3))
    same = {
        "twice": (open_dataset(folder), 6),
        "by a list": (open_dataset(folder / "list.csv"), 2),
        "a class": (open_dataset(folder / "b"), 3),
        "through a link": (open_dataset(tmp_path / "link"), 6),
        "relative": (open_dataset(os.path.relpath(folder)), 6),
        "links in a folder": (open_dataset(tmp_path / "farm"), 1),
        "copies are not told": (open_dataset(pictures(tmp_path / "copy")), 0),
    }
    assert {name: len(shared_examples(other, whole)) for name, (other, _) in same.items()} == {
        name: count for name, (_, count) in same.items()
    }


def test_rows_of_arrays_and_records_opened_twice_are_seen(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((8, 2), np.float32))
    data = open_dataset(tmp_path / "d.npy")
    assert shared_examples(open_dataset(tmp_path / "d.npy").take(3), data.skip(2)) == ["row 2"]
    memory = np.zeros((10, 2))
    assert shared_examples(open_array(memory[4:]), open_array(memory[:6])) == ["row 0", "row 1"]
    assert not shared_examples(open_array(memory[::2]), open_array(memory[1::2]))
    assert not shared_examples(open_array(memory), open_array(memory.copy()))
    buffer = tmp_path / "i.png"
    Image.new("RGB", (4, 4)).save(buffer)
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        write(tmp_path / name, [example(buffer.read_bytes(), 1)] * 3)
    train, validation, by_name = (open_dataset(tmp_path / name) for name in ("train-*", "validation-*", "train-00000-of-00001"))
    assert not shared_examples(train, validation)
    assert shared_examples(train, by_name) == [f"train-00000-of-00001 record {i}" for i in range(3)]
    assert not hold_out(train, 1, 0)[1]


def test_one_row_in_memory_that_stands_for_many_is_not_one_example() -> None:
    """A broadcast array has one address for all its rows."""
    same = open_array(np.broadcast_to(np.zeros((1, 3), np.float32), (10, 3)), labels=np.arange(10))
    first, rest = same.take(4), same.skip(4)
    again = open_array(same.reader.data, labels=np.arange(10))  # type: ignore[attr-defined]
    assert shared_examples(first, again.skip(4)) == []
    assert shared_examples(rest, again.take(6)) == ["row 4", "row 5"]
