"""Images in a folder or a zip: what there is, which class each belongs to, and reading them one batch at a time."""

from __future__ import annotations

import csv
import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .preprocess import Preset, decode

logger = logging.getLogger(__name__)

Integers = npt.NDArray[np.int64]

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"})
"""File name endings that are taken for images, in any case of letters; other files are passed over."""

LABEL_FILE: Final = "labels.csv"

_MAX_DEPTH: Final = 4
_MAX_ENTRY: Final = 1 << 28  # bytes; a zip may promise more than memory holds
_ZIP_ERRORS: Final = (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError)


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Images that are decoded when their batch is asked for.

    Attributes:
        shape: (H, W, C) of one example.
        names: name of each image, for messages.
        load: row -> the bytes of the file.
        prepare: preset for size and values.
        resize: whether an image of another size is resized.
    """

    shape: tuple[int, int, int]
    names: Sequence[str]
    load: Callable[[int], bytes]
    prepare: Preset
    resize: bool

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Name of the image."""
        return self.names[row]

    def read(self, rows: Integers) -> npt.NDArray[np.float32]:
        """The images of these rows, [n, H, W, C] float32."""
        pixels = np.empty((len(rows), *self.shape), np.uint8)
        for index, row in enumerate(rows.tolist()):
            pixels[index] = decode(io.BytesIO(self.load(row)), self.names[row], self.shape, self.prepare, resize=self.resize)
        return self.prepare.values(pixels.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Listing:
    """Images found, before anything is decoded.

    Attributes:
        names: paths relative to the source, in order.
        load: row -> the bytes of the file.
        labels: int64 [N] or None.
    """

    names: Sequence[str]
    load: Callable[[int], bytes]
    labels: Integers | None


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
    return Listing(names, lambda row: _read_file(folder / names[row]), classes(names, str(folder)))


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


def list_csv(source: Path) -> Listing:
    """Images named by a CSV with a header (or the `labels.csv` of a folder): its first column holds files, relative to its folder.

    Labels are the first column whose name contains `label` or `class` and that holds integers only.

    Raises:
        DataError: not such a file, no label column, an image missing or listed twice.
    """
    path = source / LABEL_FILE if source.is_dir() else source
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); a header and lines 'file,label' in UTF-8 are expected") from None
    header, entries = (rows[0], rows[1:]) if rows else ([], [])
    if not entries:
        raise DataError(f"{path}: a header and at least one line 'file,label' are expected. Received: {len(rows)} lines")
    short = next((number for number, row in enumerate(entries, 2) if len(row) != len(header)), None)
    if short is not None:
        raise DataError(
            f"{path}: every line has the {len(header)} columns of the header. Received: {len(entries[short - 2])} in entry {short}"
        )
    labels = _label_column(path, header, entries)
    names = [row[0] for row in entries]
    seen: set[str] = set()
    for name in names:
        normal = os.path.normpath(name)
        if normal in seen:  # calibration and evaluation could then share it
            raise DataError(f"{path}: {name} is listed twice; each image once is expected")
        seen.add(normal)
        if not (path.parent / name).is_file():
            raise DataError(f"{path}: {path.parent / name}: no such image")
    return Listing(names, lambda row: _read_file(path.parent / names[row]), labels)


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


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _label_column(path: Path, header: list[str], entries: list[list[str]]) -> Integers:
    wrong: list[str] = []
    for column, title in enumerate(header):
        if column and any(word in title.lower() for word in ("label", "class")):
            cells = [row[column].strip() for row in entries]
            bad = next((cell for cell in cells if not (cell.isascii() and cell.isdigit() and len(cell) < 10)), None)
            if bad is None:
                return np.array([int(cell) for cell in cells], np.int64)
            wrong.append(f"{title!r} holds {bad[:40]!r}")
    raise DataError(
        f"{path}: a column of non-negative integers whose name contains 'label' or 'class' is expected behind the column of files. "
        f"Received: columns {', '.join(header)}{'; ' + ', '.join(wrong) if wrong else ''}"
    )
