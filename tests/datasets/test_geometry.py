"""Geometries against TensorFlow's own operators, and their borders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tqt_onnx.datasets import PREPROCESS, CentralCrop, Letterbox, ShorterSide, Shrink, open_dataset
from tqt_onnx.datasets.geometry import sample, taps

Pixels = np.ndarray[Any, Any]
SIZES = [(375, 500), (500, 333), (256, 341), (64, 64), (7, 300), (1, 1), (2, 1), (1000, 31)]


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def tensorflow_resize(pixels: Pixels, height: int, width: int) -> Pixels:
    import tensorflow as tf

    result: Pixels = tf.compat.v1.image.resize_bilinear(pixels[None], [height, width], align_corners=False).numpy()[0]
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [(224, 224), (1, 1), (97, 31), (300, 700)])
@pytest.mark.parametrize("size", SIZES)
def test_sampling_is_tensorflows_resize_bilinear(size: tuple[int, int], target: tuple[int, int], channels: int) -> None:
    pixels = noise(*size, channels)
    assert np.array_equal(sample(pixels, taps(size[0], target[0]), taps(size[1], target[1])), tensorflow_resize(pixels, *target))


@pytest.mark.parametrize("share", [0.875, 0.5, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_central_crop_is_slims(size: tuple[int, int], share: float) -> None:
    import tensorflow as tf

    pixels = noise(*size)
    cropped = tf.image.central_crop(pixels, share).numpy()
    assert np.array_equal(CentralCrop(share).fit(picture(pixels), (96, 128)), tensorflow_resize(cropped, 96, 128))


@pytest.mark.parametrize(("size", "resized"), [((375, 500), (256, 341)), ((500, 333), (384, 256)), ((90, 90), (256, 256))])
def test_shorter_side_is_slims(size: tuple[int, int], resized: tuple[int, int]) -> None:
    pixels = noise(*size)
    top, left = ((side - 224) // 2 for side in resized)
    expected = tensorflow_resize(pixels, *resized)[top : top + 224, left : left + 224]
    assert np.array_equal(ShorterSide().fit(picture(pixels), (224, 224)), expected)


@pytest.mark.parametrize("geometry", [CentralCrop(), ShorterSide(), ShorterSide(1.0), Letterbox(), Shrink()])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(5, 9), (1, 1), (64, 3)])
def test_every_geometry_fills_every_target(geometry: Any, channels: int, size: tuple[int, int], target: tuple[int, int]) -> None:
    result = geometry.fit(picture(np.full((*size, channels), 77, np.uint8)), target)
    assert (result.shape, result.dtype) == ((*target, channels), np.float32)
    assert set(np.unique(result)) <= ({77, 127.5} if isinstance(geometry, Letterbox) else {77})


def test_letterbox_centres_the_picture() -> None:
    result = Letterbox(fill=9).fit(picture(np.full((10, 20, 3), 50, np.uint8)), (40, 40))
    assert (result[:10] == 9).all() and (result[10:30] == 50).all() and (result[30:] == 9).all()
    assert (Letterbox(fill=9).fit(picture(np.full((20, 10, 3), 50, np.uint8)), (40, 40))[:, 10:30] == 50).all()


def test_what_is_cropped_has_no_influence() -> None:
    framed = np.zeros((160, 320, 3), np.uint8)
    framed[10:150, 20:300] = 200
    assert (CentralCrop().fit(picture(framed), (70, 70)) == 200).all()
    assert (CentralCrop(1.0).fit(picture(framed), (160, 320)) == framed).all()


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    picture(np.full((10, 20, 3), 51, np.uint8)).save(tmp_path / "a.png")
    boxed = replace(PREPROCESS["darknet"], geometry=Letterbox(fill=255))
    result = open_dataset(tmp_path, input_shape=(20, 20, 3), preprocess=boxed).array()[0]
    assert result[0, 0].tolist() == [1, 1, 1]
    assert result[10, 10].tolist() == [np.float32(51) / np.float32(255)] * 3
    assert np.array_equal(open_dataset(tmp_path, input_shape=(10, 20, 3), preprocess=boxed).array()[0, 0, 0], result[10, 10])


@pytest.mark.parametrize("name", ["inception", "vgg", "resnet_v1p5", "darknet"])
def test_presets_are_the_published_pipelines(tmp_path: Path, name: str) -> None:
    """The formulas of slim, of TensorFlow's official ResNet and of Graffitist, written down with TensorFlow's operators."""
    import tensorflow as tf

    pixels = noise(375, 500)
    picture(pixels).save(tmp_path / "a.png")
    if name in {"inception", "darknet"}:
        image = tf.image.central_crop(tf.image.convert_image_dtype(pixels, tf.float32), 0.875)
        image = tf.compat.v1.image.resize_bilinear(image[None], [224, 224], align_corners=False)[0]
        expected, tolerance = (image - 0.5) * 2.0 if name == "inception" else image, 1e-6  # it divides first: float32 rounding
    else:
        image = tf.compat.v1.image.resize_bilinear(pixels[None], [256, 341], align_corners=False)[0][16:240, 58:282]
        expected, tolerance = image - tf.constant([123.68, 116.78, 103.94]), 0.0
    result = open_dataset(tmp_path, input_shape=(224, 224, 3), preprocess=name).array()[0]
    assert np.abs(result - np.asarray(expected)).max() <= tolerance
