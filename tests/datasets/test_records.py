"""TFRecord files written by TensorFlow, read without it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_files import example, write

from tqt_onnx.datasets import open_dataset
from tqt_onnx.datasets.crc32c import crc32c, masked_crc32c
from tqt_onnx.datasets.records import Records, index
from tqt_onnx.ir import DataError


def encoded(value: int, size: tuple[int, int] = (4, 4), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value // 2, 7)).save(buffer, kind)
    return buffer.getvalue()


def write_set(folder: Path, split: str, counts: Sequence[int], first: int = 1) -> None:
    """Shards whose n-th picture is of colour n and has the label first + n."""
    folder.mkdir(exist_ok=True)
    number = 0
    for shard, count in enumerate(counts):
        rows = range(number, number + count)
        write(folder / f"{split}-{shard:05d}-of-{len(counts):05d}", [example(encoded(i), first + i) for i in rows])
        number += count


@pytest.mark.parametrize("size", [0, 1, 3, 4, 9, 2047, 2048, 2049, 5000, 1024 * 7, 1024 * 7 + 1, 123_457])
def test_checksums_are_tensorflows(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    content = write(tmp_path / "r", [data]).read_bytes()
    assert masked_crc32c(data) == int.from_bytes(content[-4:], "little")
    assert index([tmp_path / "r"]).read(0) == data
    assert not size or crc32c(data[:-1] + bytes([data[-1] ^ 1])) != crc32c(data)


def test_known_checksums() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720 and the check value of the catalogues
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_slims_layout(tmp_path: Path) -> None:
    write_set(tmp_path / "d", "validation", [2, 0, 3])
    for source in (tmp_path / "d", tmp_path / "d" / "validation-*", str(tmp_path / "d" / "val*-0000?-of-00003")):
        data = open_dataset(source)
        assert (len(data), data.input_shape) == (5, (4, 4, 3))
        assert data.labels is not None
        assert data.labels.tolist() == [1, 2, 3, 4, 5]  # 0 is "background" and does not occur
        assert data.array()[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
        assert data.names()[1:3] == ["validation-00000-of-00003 record 1", "validation-00002-of-00003 record 0"]
    one = open_dataset(tmp_path / "d" / "validation-00002-of-00003", input_shape=(2, 2, 1), preprocess="unit")
    assert one.array().shape == (3, 2, 2, 1)


def test_sampling_and_the_rest_keep_labels_with_their_images(tmp_path: Path) -> None:
    write_set(tmp_path / "d", "train", [4, 6], first=0)
    drawn = open_dataset(tmp_path / "d", limit=4, seed=3)
    colours = [int(x[0, 0, 0]) for batch, _ in drawn.batches(3) for x in batch]
    assert colours == [label for _, labels in drawn.batches(3) if labels is not None for label in labels.tolist()]
    assert sorted(colours) != colours
    rest = open_dataset(tmp_path / "d", exclude=drawn.names())
    assert sorted([*colours, *rest.array()[:, 0, 0, 0].tolist()]) == list(range(10))


def test_tfds_names_jpeg_and_no_labels(tmp_path: Path) -> None:
    records = [example(None, None, image=encoded(90, kind="JPEG"), label=i) for i in (7, 0)]
    data = open_dataset(write(tmp_path / "a.tfrecord", records))
    assert data.labels is not None
    assert data.labels.tolist() == [7, 0]
    assert abs(data.array()[:, 0, 0, 0] - 90).max() < 3
    assert open_dataset(write(tmp_path / "b", [example(encoded(1), None)] * 2)).labels is None


def test_the_index_pass_reads_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "r", [example(encoded(i, (64, 64)), i) for i in range(30)])
    read: list[int] = []
    original = Records.read
    monkeypatch.setattr(Records, "read", lambda self, row, **more: (read.append(row), original(self, row, **more))[1])
    data = open_dataset(tmp_path / "r", input_shape=(8, 8, 3))
    assert set(read) <= {0}  # which features there are
    read.clear()
    stream = data.batches(4)
    next(stream)
    assert set(read) == {0, 1, 2, 3}


REFUSALS: list[tuple[str, Callable[[], list[bytes]], str]] = [
    ("empty", list, "holds no records"),
    ("text", lambda: [b"hello", b"world"], "record 0 is no tf.train.Example"),
    (
        "no image",
        lambda: [example(None, 1)],
        r"record 0 must hold one encoded image .*Received: features image/class/label, image/file",
    ),
    ("no features", lambda: [b""], "Received: features none"),
    ("image of another kind", lambda: [example(None, 1, **{"image/encoded": 5})], "record 0 must hold one encoded image"),
    ("second without image", lambda: [example(encoded(1), 1), example(None, 1)], "record 1 must hold one encoded image"),
    ("second without label", lambda: [example(encoded(1), 1), example(encoded(1), None)], "record 1 must hold one label.*none"),
    ("two labels", lambda: [example(encoded(1), [1, 2])], r"record 0 must hold one label .*Received: \[1, 2\]"),
    ("negative label", lambda: [example(encoded(1), -1)], r"Received: \[-1\]"),
    ("broken image", lambda: [example(encoded(1), 1), example(encoded(9)[:30], 1)], "r record 1: cannot be read as an image"),
]


@pytest.mark.parametrize(("records", "message"), [entry[1:] for entry in REFUSALS], ids=[entry[0] for entry in REFUSALS])
def test_refused_records(tmp_path: Path, records: Callable[[], list[bytes]], message: str) -> None:
    path = write(tmp_path / "r", records())
    with pytest.raises(DataError, match=message) as error:
        list(open_dataset(path.rename(tmp_path / "r.tfrecord") if not path.stat().st_size else path).batches(8))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [-1, -5, -40, 30, 12, 11, 1])
def test_cut_off_files_are_named_with_the_record(tmp_path: Path, keep: int) -> None:
    size = len(write(tmp_path / "one", [example(encoded(1), 1)]).read_bytes())
    content = write(tmp_path / "r.tfrecord", [example(encoded(1), 1)] * 3).read_bytes()
    at = 2 * size + keep if keep > 0 else 3 * size + keep
    (tmp_path / "r.tfrecord").write_bytes(content[:at])
    with pytest.raises(DataError, match=rf"r\.tfrecord: record 2 is cut off: it ends at byte \d+, the file at {at}"):
        open_dataset(tmp_path / "r.tfrecord")


@pytest.mark.parametrize("place", ["length", "checksum of the length", "data", "checksum of the data"])
def test_flipped_bits_are_found(tmp_path: Path, place: str) -> None:
    size = len(write(tmp_path / "one", [example(encoded(1), 1)]).read_bytes())
    content = bytearray(write(tmp_path / "r.tfrecord", [example(encoded(1), 1)] * 3).read_bytes())
    content[size + {"length": 1, "checksum of the length": 9, "data": size // 2, "checksum of the data": size - 1}[place]] ^= 16
    (tmp_path / "r.tfrecord").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.tfrecord: record 1 is damaged"):
        open_dataset(tmp_path / "r.tfrecord").array()


def test_other_files_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_text("just some text, longer than a header")
    with pytest.raises(DataError, match="record 0 is damaged at byte 0"):
        open_dataset(tmp_path / "a.tfrecord")
    write(tmp_path / "b.tfrecord", [example(encoded(1), 1)], "GZIP")
    with pytest.raises(DataError, match="compressed"):
        open_dataset(tmp_path / "b.tfrecord")


def test_folders_hold_one_complete_set(tmp_path: Path) -> None:
    write_set(tmp_path / "d", "train", [1, 1])
    write_set(tmp_path / "d", "validation", [1])
    with pytest.raises(DataError, match=r"several sets.*'.*d/train\*'.*Received: train, validation"):
        open_dataset(tmp_path / "d")
    assert len(open_dataset(tmp_path / "d" / "train-*")) == 2
    (tmp_path / "d" / "validation-00000-of-00001").unlink()
    (tmp_path / "d" / "train-00001-of-00002").unlink()
    with pytest.raises(DataError, match=r"2 files of 'train' are expected.*takes those that are there. Received: 1"):
        open_dataset(tmp_path / "d")
    assert len(open_dataset(tmp_path / "d" / "train-*")) == 1
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(tmp_path / "d" / "test-*")


def test_files_without_numbers_in_slims_form(tmp_path: Path) -> None:
    for name in ("part_2.tfrecord", "part_1.tfrecord", "labels.txt"):
        write(tmp_path / name, [example(encoded(int(name[5]) if name[5].isdigit() else 0), 1)])
    assert open_dataset(tmp_path).array()[:, 0, 0, 0].tolist() == [1, 2]
    write(tmp_path / "test.tfrecord", [example(encoded(1), 1)])
    with pytest.raises(DataError, match=r"several sets.*Received: part, test"):
        open_dataset(tmp_path)


def test_no_tensorflow_is_loaded(tmp_path: Path) -> None:
    write_set(tmp_path / "d", "validation", [2])
    code = (
        "import sys; from tqt_onnx.datasets import open_dataset;"
        f"print(len(open_dataset({str(tmp_path / 'd')!r}).array()), 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2 False\n"


@pytest.mark.real
def test_real_images_in_records_are_those_in_the_folder(data: Path, tmp_path: Path) -> None:
    folder = open_dataset(data / "images/imagenet", input_shape=(128, 128, 3), preprocess="inception", limit=20, seed=1)
    assert folder.labels is not None
    files = [(data / "images/imagenet" / name).read_bytes() for name in folder.names()]
    records = [example(content, label + 1) for content, label in zip(files, folder.labels.tolist(), strict=True)]
    for shard in range(2):
        write(tmp_path / f"validation-{shard:05d}-of-00002", records[10 * shard : 10 * shard + 10])
    slim = open_dataset(tmp_path, input_shape=(128, 128, 3), preprocess="inception")
    assert np.array_equal(slim.array(), folder.array())
    assert slim.labels is not None
    assert np.array_equal(slim.labels, folder.labels + 1)
