from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tqt_onnx.datasets import PREPROCESS, Dataset, open_dataset
from tqt_onnx.datasets.geometry import central_box
from tqt_onnx.ir import DataError


def picture(value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, (value, value // 2, 7) if mode == "RGB" else value)


def write_classes(root: Path, classes: dict[str, int], size: tuple[int, int] = (4, 4)) -> None:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(10 * i + len(name), size).save(root / name / f"{i}.png")


def zip_of(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def labels_of(data: Dataset) -> list[int] | None:
    return None if data.labels is None else data.labels.tolist()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_give_the_same(tmp_path: Path, compression: int) -> None:
    write_classes(tmp_path / "d", {"zebra": 2, "ape": 1, "cat": 2})
    (tmp_path / "d" / "readme.txt").write_text("x")
    (tmp_path / "d" / "ape" / ".hidden.png").write_text("x")
    files = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in sorted((tmp_path / "d").rglob("*")) if p.is_file()}
    zipped = open_dataset(zip_of(tmp_path / "d.zip", files, compression), input_shape=(4, 4, 3))
    folder = open_dataset(tmp_path / "d", input_shape=(4, 4, 3))
    assert labels_of(zipped) == labels_of(folder) == [0, 1, 1, 2, 2]
    assert np.array_equal(zipped.array(), folder.array())
    assert folder.array()[0, 0, 0].tolist() == [3, 1, 7]
    assert {p.name for p in tmp_path.iterdir()} == {"d", "d.zip"}


def test_loose_images_have_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.PNG", "PNG")
    data = open_dataset(tmp_path)
    assert (len(data), data.labels, data.input_shape) == (3, None, (4, 4, 3))
    assert data.array()[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path)
    write_classes(tmp_path, {"a/b": 1, "c": 1})
    with pytest.raises(DataError, match="one folder of images for each class"):
        open_dataset(tmp_path)


def test_an_image_of_the_right_size_is_untouched_others_are_cropped_and_resized(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert np.array_equal(open_dataset(tmp_path, input_shape=(16, 16, 3)).array()[0], noise)
    # 87.5% of 16 is 14: a 14 x 14 target is exactly the crop; the frame around it has no influence
    assert np.array_equal(open_dataset(tmp_path, input_shape=(14, 14, 3)).array()[0], noise[1:15, 1:15])
    framed = np.zeros((16, 16, 3), np.uint8)
    framed[1:15, 1:15] = 200
    Image.fromarray(framed).save(tmp_path / "a.png")
    assert (open_dataset(tmp_path, input_shape=(5, 9, 3)).array() == 200).all()
    assert (open_dataset(tmp_path, input_shape=(40, 40, 3)).array() == 200).all()


def test_boxes() -> None:
    assert central_box(512, 256, (224, 224), 0.875) == (144, 16, 368, 240)  # shorter side 256, then the central 224 x 224
    assert central_box(1024, 512, (224, 112), 0.875) == (400, 32, 624, 480)
    assert central_box(1, 1, (9, 9), 0.875) == (0, 0, 1, 1)
    assert central_box(1, 500, (9, 1), 0.875) == (0, 246, 1, 254)


def test_values_of_the_presets(tmp_path: Path) -> None:
    picture(255).save(tmp_path / "a.png")
    pixel = {name: open_dataset(tmp_path, preprocess=name).array()[0, 0, 0].tolist() for name in PREPROCESS}
    rgb = np.array([255, 127, 7], np.float32)
    means = np.array([123.68, 116.78, 103.94], np.float32)
    assert pixel == {
        "none": [255, 127, 7],
        "unit": (rgb / np.float32(255)).tolist(),
        "signed_unit": (rgb / np.float32(127.5) - 1).tolist(),
        "inception": (rgb / np.float32(127.5) - 1).tolist(),
        "vgg": (rgb - means).tolist(),
        "resnet_v1p5": (rgb - means).tolist(),
        "darknet": (rgb / np.float32(255)).tolist(),
        "letterbox": (rgb / np.float32(255)).tolist(),
    }


def test_grey_palette_and_alpha(tmp_path: Path) -> None:
    picture(90, mode="L").save(tmp_path / "a.png")
    picture(90, mode="L").convert("P").save(tmp_path / "b.png")
    picture(90, mode="L").convert("RGBA").save(tmp_path / "c.png")
    assert (open_dataset(tmp_path).array() == 90).all()
    grey = open_dataset(tmp_path, input_shape=(4, 4, 1))
    assert grey.input_shape == (4, 4, 1)
    assert (grey.array() == 90).all()


def test_alpha_is_dropped_and_cmyk_converted(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")  # what lies under a transparent place counts
    assert open_dataset(tmp_path).array()[0, 0, 0].tolist() == [10, 20, 30]
    (tmp_path / "a.png").unlink()
    Image.new("CMYK", (4, 4), (0, 255, 0, 0)).save(tmp_path / "b.jpg", quality=100)
    red, green, blue = open_dataset(tmp_path).array()[0, 0, 0].tolist()
    assert red > 250 and green < 5 and blue > 250


def test_orientation_tags_are_ignored(tmp_path: Path) -> None:
    turned = Image.new("RGB", (8, 4), (200, 0, 0))
    tags = Image.Exif()
    tags[0x0112] = 6  # to be shown turned by 90 degrees
    turned.save(tmp_path / "a.jpg", exif=tags)
    assert open_dataset(tmp_path).input_shape == (4, 8, 3)


def sixteen_bit_png(channels: int) -> bytes:
    """Pillow writes none in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + np.full((4, channels), 40000, ">u2").tobytes() for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_images_are_refused(tmp_path: Path, channels: int) -> None:
    (tmp_path / "a.png").write_bytes(sixteen_bit_png(channels))
    with pytest.raises(DataError, match=r"a\.png.*8 bits a channel"):
        open_dataset(tmp_path).array()


def test_a_zip_that_promises_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zip_of(tmp_path / "d.zip", {"a/0.png": encoded(picture(1)), "b/0.png": b"\0" * 100_000}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr("tqt_onnx.datasets.images._MAX_ENTRY", 50_000)
    with pytest.raises(DataError, match=r"b/0\.png has 100000 bytes; images of at most 50000"):
        open_dataset(bomb, input_shape=(4, 4, 3)).array()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("keep", [0, 3, 30, -200])
def test_unreadable_images_are_named(tmp_path: Path, kind: str, keep: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    path = zip_of(tmp_path / "d.zip", {"x/a/0.png": encoded(picture(1)), "x/b/bad.jpg": encoded(noise, kind)[:keep]})
    with pytest.raises(DataError, match=r"x/b/bad\.jpg") as error:
        list(open_dataset(path, input_shape=(4, 4, 3)).batches(1))
    assert "\n" not in str(error.value)


def test_damaged_zips(tmp_path: Path) -> None:
    content = zip_of(tmp_path / "d.zip", {"a/0.png": encoded(picture(1)), "b/0.png": encoded(picture(2))}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[:-30])
    with pytest.raises(DataError, match="zip"):
        open_dataset(tmp_path / "cut.zip")
    (tmp_path / "text.zip").write_text("hello, I am no zip")
    with pytest.raises(DataError, match="zip"):
        open_dataset(tmp_path / "text.zip")
    flipped = bytearray(content)
    flipped[content.index(b"IHDR") + 5] ^= 0xFF  # the checksum of the entry no longer fits
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(DataError, match=r"a/0\.png"):
        open_dataset(tmp_path / "flipped.zip", input_shape=(4, 4, 3)).array()


def test_damaged_compression(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 4, (64, 64, 3), dtype=np.uint8)
    bitmap = encoded(Image.fromarray(rows), "BMP")
    content = bytearray(zip_of(tmp_path / "d.zip", {"a/0.bmp": bitmap, "b/0.bmp": bitmap}, zipfile.ZIP_DEFLATED).read_bytes())
    content[50:80] = b"\xff" * 30
    (tmp_path / "d.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a/0\.bmp cannot be read"):
        open_dataset(tmp_path / "d.zip", input_shape=(4, 4, 3)).array()


def test_sizes_must_agree_without_an_input_shape(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    picture(1, (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: the images differ in size.*4x5 after 4x4"):
        open_dataset(tmp_path).array()
    assert open_dataset(tmp_path, input_shape=(None, None, 3)).input_shape == (4, 4, 3)
    with pytest.raises(DataError, match="both height and width"):
        open_dataset(tmp_path, input_shape=(None, 9, 3))


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 4), (4, 4, 2), (0, 4, 3)])
def test_refused_input_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="shape H,W,C with C 1 or 3"):
        open_dataset(tmp_path, input_shape=shape)


@pytest.mark.real
def test_real_images(data: Path) -> None:
    cifar = open_dataset(data / "images/cifar10_test.zip", input_shape=(32, 32, 3), limit=20, seed=1)
    assert cifar.array().shape == (20, 32, 32, 3)
    assert cifar.labels is not None
    assert len(set(cifar.labels.tolist())) > 3
    imagenet = open_dataset(data / "images/imagenet", input_shape=(128, 128, 3), preprocess="inception", limit=4)
    assert labels_of(imagenet) == [0, 1, 2, 5]
    assert -1 <= imagenet.array().min() < imagenet.array().max() <= 1
