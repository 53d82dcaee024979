"""Images in a folder or a zip: what there is, which class each belongs to, and reading them one batch at a time."""

from __future__ import annotations

import io
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .decode import decode
from .geometry import Region
from .listing import Listing, read_file
from .preprocess import Preprocessing

logger = logging.getLogger(__name__)

Integers = npt.NDArray[np.int64]

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"})
"""File name endings that are taken for images, in any case of letters; other files are passed over."""

_MAX_DEPTH: Final = 4
_MAX_ENTRY: Final = 1 << 28  # bytes; a zip may promise more than memory holds
_ZIP_ERRORS: Final = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError)


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Images that are decoded when their batch is asked for.

    Attributes:
        shape: (H, W, C) of one example.
        names: name of each image, relative to the source.
        load: row -> the bytes of the file.
        prepare: preprocessing for size and values.
        resize: whether an image of another size is resized.
        source: folder or file, for messages.
    """

    shape: tuple[int, int, int]
    names: Sequence[str]
    load: Callable[[int], bytes]
    prepare: Preprocessing
    resize: bool
    source: str

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Name of the image."""
        return self.names[row]

    @property
    def holds_pixels(self) -> bool:
        """True: images hold pixels of 0..255."""
        return True

    def read(self, rows: Integers) -> npt.NDArray[np.float32]:
        """The images of these rows, [n, H, W, C] float32."""
        return self.prepare.values(self.pixels(rows))

    def pixels(self, rows: Integers, regions: Sequence[Region] | None = None) -> npt.NDArray[np.float32]:
        """The images before their values are mapped; with `regions`, these parts of the undecoded images, stretched."""
        pixels = np.empty((len(rows), *self.shape), np.float32)
        for index, row in enumerate(rows.tolist()):
            pixels[index] = decode(
                io.BytesIO(self.load(row)),
                f"{self.source}: {self.names[row]}",
                self.shape,
                self.prepare,
                resize=self.resize,
                region=None if regions is None else regions[index],
            )
        return pixels


def list_folder(folder: Path) -> Listing:
    """Images of a folder: in class subfolders, or loose and then without labels. Symbolic links are followed.

    Raises:
        DataError: no images, or at differing depths.
    """
    names: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        relative = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".")] if len(relative.parts) < _MAX_DEPTH else []
        names.extend((relative / file).as_posix() for file in files)
    names = _images(names, str(folder))
    return Listing(names, lambda row: read_file(folder / names[row]), classes(names, str(folder)))


def list_zip(path: Path) -> Listing:
    """Images of a zip, read in memory one at a time, never extracted to disk.

    Raises:
        DataError: not a zip, no images, or at differing depths.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: cannot be read as a zip ({error}); a zip of class folders of images is expected") from None
    names = _images(archive.namelist(), str(path))

    def load(row: int) -> bytes:
        info = archive.getinfo(names[row])
        if info.file_size > _MAX_ENTRY:
            raise DataError(f"{path}: {names[row]} has {info.file_size} bytes; images of at most {_MAX_ENTRY} are expected")
        try:
            return archive.read(info)
        except _ZIP_ERRORS as error:
            raise DataError(f"{path}: {names[row]} cannot be read ({error})") from None

    return Listing(names, load, classes(names, str(path)))


def classes(names: Iterable[str], source: str) -> Integers | None:
    """Class of each image: the place of its folder's name in the sorted list of the names, or None where all lie in one folder.

    Raises:
        DataError: images at differing depths, so that it is not clear which folders are classes.
    """
    parents = [PurePosixPath(name).parent for name in names]
    distinct = sorted(set(parents))
    if len(distinct) == 1:
        return None
    if len({parent.parent for parent in distinct}) != 1 or PurePosixPath() in distinct:
        raise DataError(
            f"{source}: one folder of images for each class, side by side, is expected. "
            f"Received: images in {', '.join(repr(str(p)) for p in distinct[:3])}{', ...' if len(distinct) > 3 else ''}"
        )
    index = {parent: number for number, parent in enumerate(distinct)}
    return np.array([index[parent] for parent in parents], np.int64)


def _images(names: Iterable[str], source: str) -> list[str]:
    """Names of images in sorted order, hidden files and those of other kinds left out."""
    kept = []
    for name in names:
        path = PurePosixPath(name)
        if any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.suffix.lower() not in SUFFIXES:
            logger.debug("%s: %s is not taken for an image", source, name)
        else:
            kept.append(name)
    if not kept:
        raise DataError(f"{source}: holds no images; files ending in {', '.join(sorted(SUFFIXES))} are expected")
    if len(set(kept)) != len(kept):
        raise DataError(f"{source}: holds several images of the same name; each once is expected")
    return sorted(kept)
