"""Augmentation: a function of (seed, epoch, row) alone, within its bounds, in front of the map of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tqt_onnx.datasets import Augmentation, Dataset, Shuffled, open_array, open_dataset
from tqt_onnx.datasets.distortions import draw, random_box, recolour, reflected
from tqt_onnx.datasets.geometry import stretched
from tqt_onnx.ir import DataError, UsageError

ALL = (Augmentation(flip=True), Augmentation(pad=2), Augmentation(crop=0.2), Augmentation(colour=1), Augmentation(True, 3, 0, 0.5))


def images(count: int = 40, size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def recoloured(pixels: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    changed = pixels.copy()
    for image, amount in zip(changed, amounts, strict=True):
        recolour(image, amount)
    return changed


def epoch_by_row(data: Dataset, augment: Augmentation, batch_size: int, epoch: int, **options: int) -> dict[int, bytes]:
    """What each row of an epoch looks like, told by labels that are the rows."""
    batches = Shuffled(data, "x", batch_size, seed=5, augment=augment, **options)
    found: dict[int, bytes] = {}
    per_epoch = len(data) // batch_size
    for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
        feeds, labels = batches.batch(step)
        assert labels is not None
        found |= {int(row): image.tobytes() for row, image in zip(labels, feeds["x"], strict=True)}
    return found


@pytest.mark.parametrize("augment", ALL, ids=str)
def test_an_example_looks_the_same_in_every_batch_layout(augment: Augmentation) -> None:
    data = open_array(images(), labels=np.arange(40), preprocess="signed_unit")
    expected = epoch_by_row(data, augment, 8, 1)
    assert len(expected) == 40
    assert epoch_by_row(data, augment, 40, 1, threads=1) == expected
    assert epoch_by_row(data, augment, 5, 1, threads=7) == expected
    view = epoch_by_row(data.sample(20, 3), augment, 4, 1)
    assert view == {row: expected[row] for row in view}
    assert sum(expected[row] != other for row, other in epoch_by_row(data, augment, 8, 2).items()) > 10


def test_replicas_and_resumed_runs_see_the_same() -> None:
    data = open_array(images(), labels=np.arange(40))
    make = lambda: Shuffled(data, "x", 16, seed=2, augment=Augmentation(True, 2))  # noqa: E731
    whole = make().batch(7)[0]["x"]
    assert np.array_equal(np.concatenate([make().batch(7, part, 4)[0]["x"] for part in range(4)]), whole)


def test_random_numbers_are_pinned() -> None:
    numbers = draw(0, 0, 0)
    assert numbers.shape == (28,)
    assert numbers[:3].tolist() == [0.2529543671083837, 0.6937044851934455, 0.004742374908582758]
    assert len({tuple(draw(*key)) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}) == 4
    assert all(0 <= u < 1 for row in range(100) for u in draw(0, 0, row))


def test_half_are_mirrored_and_nothing_else_happens() -> None:
    source = images(400)
    batches = Shuffled(open_array(source, labels=np.arange(400)), "x", 400, seed=0, augment=Augmentation(flip=True))
    feeds, labels = batches.batch(0)
    mirrored = 0
    for row, image in zip(labels, feeds["x"], strict=True):
        flipped = not np.array_equal(image, source[row])
        assert np.array_equal(image, source[row][:, ::-1] if flipped else source[row])
        mirrored += flipped
    assert 160 < mirrored < 240


def test_shifts_reach_both_ends_and_reflect_the_border() -> None:
    source = images(300, size=5)
    feeds, labels = Shuffled(open_array(source, labels=np.arange(300)), "x", 300, seed=0, augment=Augmentation(pad=2)).batch(0)
    seen = set()
    for row, image in zip(labels, feeds["x"], strict=True):
        padded = np.pad(source[row], ((2, 2), (2, 2), (0, 0)), mode="reflect")
        windows = {(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 5, x : x + 5], image)}
        assert len(windows) == 1
        seen |= windows
    assert len(seen) == 25
    assert reflected(3, 2).tolist() == [2, 1, 0]
    assert reflected(3, -2).tolist() == [2, 1, 0]
    assert reflected(1, 0).tolist() == [0]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1, 1), (1, 300), (300, 1), (7, 2)])
@pytest.mark.parametrize("least", [0.08, 0.5, 1.0])
def test_parts_lie_inside_with_area_and_aspect(height: int, width: int, least: float) -> None:
    for row in range(200):
        left, upper, right, lower = random_box(draw(0, 0, row), least, height, width)
        assert 0 <= left < right <= width
        assert 0 <= upper < lower <= height
        if min(height, width) > 100:
            assert 0.74 < (right - left) / (lower - upper) < 1.35
            assert (right - left) * (lower - upper) / (height * width) > least * 0.97 or least == 1


def test_a_part_is_cut_from_the_image_before_it_is_resized(tmp_path: Path) -> None:
    Image.fromarray(images(1, 64)[0]).save(tmp_path / "a.png")
    source = np.asarray(Image.open(tmp_path / "a.png"), np.float32)
    for preprocess in ("inception", "unit"):
        data = open_dataset(tmp_path, input_shape=(16, 16, 3), preprocess=preprocess)
        batches = Shuffled(data, "x", 1, seed=0, augment=Augmentation(crop=0.05))
        left, upper, right, lower = random_box(draw(0, 0, 0), 0.05, 64, 64)
        part = open_array(source[None, upper:lower, left:right].astype(np.uint8)).array()[0]
        if preprocess == "inception":
            assert np.array_equal(batches.batch(0)[0]["x"][0], data.reader.prepare.values(stretched(part, (16, 16))))
        else:
            shrunk = Image.fromarray(part.astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR)
            assert np.array_equal(batches.batch(0)[0]["x"][0], data.reader.prepare.values(np.asarray(shrunk, np.float32)))


def test_colours_against_double_precision() -> None:
    pixels, amounts = images(5).astype(np.float32), np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, 1], [-0.3, 0.8, -0.9]])
    expected = pixels.astype(np.float64) + 32 * amounts[:, :1, None, None]
    grey = (expected * [0.299, 0.587, 0.114]).sum(-1, keepdims=True)
    expected = grey + (expected - grey) * (1 + 0.5 * amounts[:, 2:, None, None])
    mean = expected.mean((1, 2), keepdims=True)
    expected = np.clip(mean + (expected - mean) * (1 + 0.5 * amounts[:, 1:2, None, None]), 0, 255)
    changed = recoloured(pixels, amounts)
    assert np.abs(changed - expected).max() < 1e-3
    assert np.abs(changed[0] - pixels[0]).max() < 1e-4


def test_grey_images_have_no_saturation() -> None:
    grey = images(3, channels=1).astype(np.float32)
    assert np.abs(recoloured(grey, np.array([[0, 0, 1.0]] * 3)) - grey).max() < 1e-4


def test_values_are_mapped_behind_it() -> None:
    source, augment = images(), Augmentation(True, 2, 0, 1)
    inputs = {}
    for preprocess in ("none", "vgg"):
        data = open_array(source, preprocess=preprocess)
        inputs[preprocess] = Shuffled(data, "x", 40, seed=0, augment=augment).batch(0)[0]["x"]
    assert np.array_equal(inputs["vgg"], inputs["none"] - np.array([123.68, 116.78, 103.94], np.float32))


def test_floating_point_arrays_can_be_moved_but_not_recoloured() -> None:
    data = open_array(images().astype(np.float32) / 255)
    assert Shuffled(data, "x", 40, seed=0, augment=Augmentation(True, 2)).batch(0)[0]["x"].shape == (40, 8, 8, 3)
    assert Shuffled(data, "x", 40, seed=0, augment=Augmentation(crop=0.5)).batch(0)[0]["x"].max() <= 1
    with pytest.raises(DataError, match=r"array: augmentation of colours wants .* Received: floating-point numbers \[8, 8, 3\]"):
        Shuffled(data, "x", 40, seed=0, augment=Augmentation(colour=1))


def test_the_source_is_never_changed() -> None:
    source = images().astype(np.float32)
    before = source.copy()
    Shuffled(open_array(source), "x", 40, seed=0, augment=Augmentation(True, 2)).batch(0)
    assert np.array_equal(source, before)


@pytest.mark.parametrize(
    ("shape", "augment", "message"),
    [
        ((3, 32, 32), Augmentation(flip=True), r"channels last. Received: \[3, 32, 32\]"),
        ((10,), Augmentation(flip=True), r"images \[H, W, C\]"),
        ((4, 4, 3), Augmentation(pad=4), r"a padding smaller than the images is expected. Received: pad=4, images \[4, 4, 3\]"),
        ((8, 8, 4), Augmentation(colour=1), r"grey or RGB pixels"),
    ],
)
def test_examples_that_cannot_be_changed_so(shape: tuple[int, ...], augment: Augmentation, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Shuffled(open_array(np.zeros((4, *shape), np.uint8)), "x", 2, seed=0, augment=augment)


def test_options_as_text() -> None:
    for text in ("flip", "flip,pad=4", "crop=0.08", "flip,crop=0.3,colour=0.5", ""):
        assert str(Augmentation.parse(text)) == text
    assert Augmentation.parse(" colour, pad ,flip") == Augmentation(True, 4, 0, 1)
    assert Augmentation.parse("crop") == Augmentation(crop=0.08)
    assert not Augmentation.parse("")
    for text in ("mirror", "flip,flip", "pad=1.5", "pad=", "flip=1", "colour=red", "pad=nan"):
        with pytest.raises(UsageError, match=r"flip, pad\[=PIXELS\].* Received: '"):
            Augmentation.parse(text)
    for text in ("pad=-1", "crop=1.5", "colour=3", "crop=nan", "pad,crop"):
        with pytest.raises(UsageError, match="augmentation: "):
            Augmentation.parse(text)
