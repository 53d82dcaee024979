"""Batches to train on: every example once an epoch, the same at every step whoever asks, exactly as evaluation reads them."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_files import example, write

from tqt_onnx.datasets import Augmentation, Dataset, Shuffled, open_array, open_dataset
from tqt_onnx.ir import DataError, UsageError

SIZE = 6
COUNT = 11


def numbered(count: int = 100, labelled: bool = True) -> Dataset:
    """Examples that hold their row, labelled by it."""
    return open_array(np.arange(count, dtype=np.int64)[:, None], labels=np.arange(count) if labelled else None)


def rows(batches: Shuffled, step: int, part: int = 0, parts: int = 1) -> list[int]:
    feeds, labels = batches.batch(step, part, parts)
    found = feeds["x"][:, 0].astype(int).tolist()
    assert feeds["x"].dtype == np.float32
    assert labels is None or (labels.dtype == np.int64 and labels.tolist() == found)
    return found


def test_every_example_once_an_epoch_in_full_batches_across_the_borders() -> None:
    batches = Shuffled(numbered(100), "x", 24, seed=3)
    assert (batches.steps_per_epoch, batches.batch_size, batches.labelled) == (5, 24, True)
    drawn = [row for step in range(25) for row in rows(batches, step)]
    assert len(drawn) == 600  # 25 full batches are exactly six epochs
    epochs = [drawn[start : start + 100] for start in range(0, 600, 100)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_a_batch_depends_on_nothing_but_seed_and_step() -> None:
    batches = Shuffled(numbered(), "x", 24, seed=3)
    expected = [rows(batches, step) for step in range(12)]
    assert [rows(Shuffled(numbered(), "x", 24, seed=3, threads=1), step) for step in range(11, -1, -1)] == expected[::-1]
    assert rows(Shuffled(numbered(), "x", 24, seed=4), 0) != expected[0]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda step: rows(batches, step), list(range(12)) * 8)) == expected * 8


def test_parts_are_the_batch_in_order() -> None:
    batches = Shuffled(numbered(), "x", 24, seed=0)
    for step in (0, 4, 7):
        assert [row for part in range(3) for row in rows(batches, step, part, 3)] == rows(batches, step)
    for part, parts in ((0, 5), (2, 2), (-1, 2)):
        with pytest.raises(UsageError, match=r"share equally is expected. Received: 24"):
            batches.batch(0, part, parts)


def test_the_smallest_sets() -> None:
    whole = Shuffled(numbered(3), "x", 3, seed=0)
    assert whole.steps_per_epoch == 1
    assert sorted(rows(whole, 5)) == [0, 1, 2]
    assert rows(Shuffled(numbered(1), "x", 1, seed=0), 10**6) == [0]
    with pytest.raises(DataError, match=r"array: at least 4 examples, one batch, are expected to train on. Received: 3"):
        Shuffled(numbered(3), "x", 4, seed=0)
    for batch_size, seed, threads in ((0, 0, 1), (1, -1, 1), (1, 0, 0)):
        with pytest.raises(UsageError, match="a batch size"):
            Shuffled(numbered(3), "x", batch_size, seed, threads=threads)


def test_without_labels() -> None:
    batches = Shuffled(numbered(labelled=False), "x", 10, seed=0)
    assert not batches.labelled
    assert batches.batch(0)[1] is None


def test_a_view_is_trained_on_alone() -> None:
    view = numbered().sample(30, 7)
    drawn = [row for step in range(3) for row in rows(Shuffled(view, "x", 10, seed=0), step)]
    assert sorted(drawn) == sorted(view.rows.tolist())


@pytest.mark.parametrize(
    ("labels", "offset", "message"),
    [
        ([0, 1, 3, 2], 0, r"labels 0\.\.2 are expected \(3 classes, label offset 0; labels that count from 1 may want "
         r"--label-offset -1\). Received: label 3 of row 2"),
        ([1, 0, 2, 1], -1, r"labels 1\.\.3 .* labels that count from 0 may want --label-offset 0\). Received: label 0 of row 1"),
        ([0, 9, 1, 2], 0, r"\(3 classes, label offset 0\). Received: label 9 of row 1"),
        ([0, 1, 2, 1], 1, r"labels 0\.\.1 .*--label-offset 0\). Received: label 2 of row 2"),
    ],
)  # fmt: skip
def test_labels_without_an_output_are_found_before_training(labels: list[int], offset: int, message: str) -> None:
    data = open_array(np.zeros((4, 2)), labels=labels)
    with pytest.raises(DataError, match=message):
        Shuffled(data, "x", 2, seed=0, classes=3, label_offset=offset)


def test_label_offset_gives_the_index_of_the_output() -> None:
    data = open_array(np.arange(4)[:, None], labels=[0, 1, 2, 3])
    feeds, labels = Shuffled(data, "x", 4, seed=0, classes=5, label_offset=1).batch(0)
    assert labels is not None
    assert labels.tolist() == [int(row) + 1 for row in feeds["x"][:, 0]]


def test_trainings_share_their_threads() -> None:
    before = threading.active_count()
    sets = [Shuffled(numbered(), "x", 24, seed=seed, threads=3) for seed in range(8)]
    for batches in sets:
        batches.batch(0)
    assert threading.active_count() - before <= 3


def test_an_example_with_nan_is_named() -> None:
    values = np.zeros((8, 2), np.float32)
    values[5, 1] = np.nan
    with pytest.raises(DataError, match=r"row 5 holds nan at \[1\]"):
        Shuffled(open_array(values), "x", 8, seed=0).batch(0)


# All sources


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE + 4, SIZE + 2, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def in_classes() -> dict[str, bytes]:
    return {f"{'abc'[i % 3]}/{i:02d}.png": png(image) for i, image in enumerate(pictures())}


def folder(root: Path) -> Path:
    for name, content in in_classes().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(root: Path) -> Path:
    with zipfile.ZipFile(root / "d.zip", "w") as archive:
        for name, content in in_classes().items():
            archive.writestr(name, content)
    return root / "d.zip"


def listed(root: Path) -> Path:
    folder(root)
    (root / "list.csv").write_text("file,label\n" + "".join(f"{name},{'abc'.index(name[0])}\n" for name in in_classes()))
    return root / "list.csv"


def records(root: Path) -> Path:
    content = [example(image, "abc".index(name[0])) for name, image in in_classes().items()]
    write(root / "train-00000-of-00002", content[:5])
    write(root / "train-00001-of-00002", content[5:])
    return root


def arrays() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    return images, np.arange(COUNT) % 3


def npz(root: Path) -> Path:
    np.savez(root / "d.npz", x=arrays()[0], y=arrays()[1])
    return root / "d.npz"


def npy(root: Path) -> Path:
    np.save(root / "d.npy", arrays()[0])
    return root / "d.npy"


SOURCES = [folder, zipped, listed, records, npz, npy]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("preprocess", ["unit", "inception", "vgg"])
def test_every_source_trains_on_what_it_is_evaluated_with(make: Callable[[Path], Path], preprocess: str, tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path), input_shape=(SIZE, SIZE, 3), preprocess=preprocess)
    expected, labels = data.array(), data.labels
    batches = Shuffled(data, "x", 4, seed=1, augment=Augmentation(), classes=3, threads=3)
    assert batches.labelled == (make is not npy)
    seen = []
    for step in range(11):  # four epochs
        feeds, found = batches.batch(step)
        for place, image in enumerate(feeds["x"]):
            row = next(row for row in range(COUNT) if np.array_equal(image, expected[row]))
            assert found is None or labels is None or found[place] == labels[row]
            seen.append(row)
    assert sorted(seen) == sorted(list(range(COUNT)) * 4)


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_can_be_augmented(make: Callable[[Path], Path], tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path), input_shape=(SIZE, SIZE, 3), preprocess="unit")
    batches = Shuffled(data, "x", 8, seed=1, augment=Augmentation(flip=True, crop=0.3, colour=1))
    inputs = batches.batch(0)[0]["x"]
    assert inputs.shape == (8, SIZE, SIZE, 3)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert not any(np.array_equal(image, other) for image in inputs for other in data.array())
    assert np.array_equal(inputs, Shuffled(data, "x", 8, seed=1, augment=Augmentation(True, 0, 0.3, 1)).batch(0)[0]["x"])


def test_a_label_in_a_record_is_checked_with_its_batch(tmp_path: Path) -> None:
    batches = Shuffled(open_dataset(records(tmp_path), input_shape=(SIZE, SIZE, 3)), "x", COUNT, seed=0, classes=2)
    with pytest.raises(DataError, match=r"labels 0\.\.1 are expected .* Received: label 2 of train-0000[01]-of-00002 record \d"):
        batches.batch(0)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (folder(tmp_path) / "b" / "04.png").write_bytes(b"no image")
    batches = Shuffled(open_dataset(tmp_path, input_shape=(SIZE, SIZE, 3)), "x", COUNT, seed=0)
    with pytest.raises(DataError) as error:
        batches.batch(0)
    expected = f"{tmp_path}: b/04.png: cannot be read as an image (of no known format); JPEG, PNG, BMP, WebP or PPM is expected"
    assert str(error.value) == expected
