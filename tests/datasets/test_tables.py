"""Images named by a CSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tqt_onnx.datasets import Dataset, open_dataset
from tqt_onnx.ir import DataError


def labels_of(data: Dataset) -> list[int] | None:
    return None if data.labels is None else data.labels.tolist()


@pytest.fixture(name="folder")
def images(tmp_path: Path) -> Path:
    """`a.png` to `c.png`, grey 0 to 2; `sub/a, b.png`, grey 3; beside them `outside.png`."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for value, name in enumerate(["a.png", "b.png", "c.png", "sub/a, b.png", "../outside.png"]):
        Image.new("L", (4, 4), value).save(folder / name)
    return folder


def write(folder: Path, text: str, name: str = "l.csv") -> Path:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        "file,label\nc.png,2\na.png,0\nb.png,9\n",
        "c.png,2\na.png,0\nb.png,9",
        "\ufefffile,label\r\nc.png,2\r\n\r\na.png,0\r\nb.png,9\r\n",
        '"file","class"\n"c.png"," 2"\n"./a.png","0"\nsub/../b.png,9\n',
        "file,class_name,class_index_0_999,note\nc.png,thing,2,\na.png,other,0,x\nb.png,thing,9,3\n",
        "file,label_text,label\nc.png,1a,2\na.png,,0\nb.png,7,9\n",
        "c.png,2,thing\na.png,0,other\nb.png,9,thing\n",
    ],
)
def test_numbers(folder: Path, text: str) -> None:
    data = open_dataset(write(folder, text))
    assert labels_of(data) == [2, 0, 9]
    assert data.array()[:, 0, 0, 0].tolist() == [2, 0, 1]
    assert data.names() == ["c.png", "a.png", "b.png"]


def test_names_of_classes_count_in_sorted_order_as_class_folders_do(folder: Path) -> None:
    assert labels_of(open_dataset(write(folder, "a.png,zebra\nb.png,ape\nc.png,cat\n"))) == [2, 0, 1]
    assert labels_of(open_dataset(write(folder, 'file,label\na.png,"cat, big"\nb.png,n01440764\nc.png,"cat, big"\n'))) == [0, 1, 0]


def test_labels_csv_of_a_folder_and_quoted_names(folder: Path) -> None:
    write(folder, 'file,label\n"sub/a, b.png",1\n', "labels.csv")
    data = open_dataset(folder)
    assert (labels_of(data), data.array()[0, 0, 0, 0]) == ([1], 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one line 'file,label' is expected. Received: 0 lines"),
        ("file,label\n", "Received: 1 lines"),
        ("file,number\na.png,1\n", "Received: columns file, number"),
        ("a.png\n", "Received: columns file"),
        ("file,label\na.png,-1\n", "'label' holds '-1' in line 2"),
        ("file,label\na.png,1\nb.png,\n", "'label' holds '' in line 3"),
        ("file,label\na.png,1\nb.png,1.5\n", "'label' holds '1.5' in line 3"),
        ("file,label\na.png,1\nb.png,cat\n", "'label' holds 'cat' in line 3"),
        ("file,label\na.png,1\n\nd.png,1\n", r"line 4: .*d\.png: no such image"),
        ("file,label\nsub,1\n", "line 2: .*sub: no such image"),
        ("file,label\na.png,1\n./a.png,1\n", r"line 3: a\.png is listed twice, first in line 2"),
        ("file,label\na.png,1\nb.png\n", "line 3 must have 2 columns like the first. Received: 1"),
        ("file,label\n../outside.png,1\n", r"line 2: a file inside .*data is expected\. Received: '\.\./outside\.png'"),
        ("file,label\nsub/../../outside.png,1\n", "line 2: a file inside"),
        ("file,label\n/etc/passwd,1\n", "line 2: a file inside"),
        ("C:\\a.png,1\n", "line 1: a file inside"),
        ("file,label\n\udcff,1\n", "cannot be read as CSV"),
        ('file,label\n"a.png,1\n', "cannot be read as CSV"),
    ],
)
def test_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_dataset(write(folder, text))
    assert "\n" not in str(error.value)


def test_a_broken_image_is_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"b\.png: cannot be read as an image"):
        open_dataset(write(folder, "a.png,0\nb.png,1\n"), input_shape=(4, 4, 3)).array()
