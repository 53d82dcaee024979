"""`open_dataset`: finds out what a path is, and gives it one face."""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .arrays import ArrayReader, check_inputs, check_labels, load_npy, load_npz
from .dataset import Dataset, Labels
from .decode import image_size
from .examples import list_records, shards
from .images import ImageReader, list_folder, list_zip
from .listing import Listing
from .preprocess import PREPROCESS, Preprocessing, preprocessing
from .records import HEADER, is_header
from .rows import RowFile, streamed
from .tables import LABEL_FILE, list_csv

Array = npt.NDArray[Any]
LabelSource = str | os.PathLike[str] | npt.ArrayLike
NameSource = str | os.PathLike[str] | Sequence[str]

ARRAYS: Final = MappingProxyType({"npy": lambda path: (load_npy(path), None), "npz": load_npz})
IMAGES: Final[MappingProxyType[str, Callable[[Path], Listing]]] = MappingProxyType(
    {
        "zip": list_zip,
        "csv": list_csv,
        "folder": list_folder,
        "records": lambda path: list_records(_record_files(path)),
    }
)
"""Readers by kind of source; `kind_of` tells the kind."""


def open_dataset(
    source: str | os.PathLike[str],
    *,
    input_shape: tuple[int | None, ...] | None = None,
    preprocess: str | Preprocessing = "none",
    limit: int | None = None,
    seed: int | None = None,
    labels: LabelSource | None = None,
    exclude: NameSource | None = None,
) -> Dataset:
    """Opens inputs for calibration or evaluation; nothing but headers is read until a batch is asked for.

    Args:
        source: what is told by content, then by name:

            - `.npy`: an array [N, ...] of inputs;
            - `.npz`: inputs as `x`, `inputs`, `images` or the only other array, labels as `y` or `labels`;
            - a folder of class folders of images, the class index being the place of the folder's name in sorted order
              (as text: `10` comes before `2`); a folder of images alone has no labels;
            - a folder with a `labels.csv`, or a `.csv`: `file,label` lines, with or without a header; files relative to the CSV
              and inside its folder, labels as whole numbers or as names of classes (numbered in sorted order);
            - a `.zip` of class folders of images, read in memory;
            - TFRecord files of `tf.train.Example` in slim's layout (`image/encoded`, `image/class/label`): one file, a pattern
              such as `imagenet/validation-*`, or a folder that holds one complete set `NAME-00000-of-00128` or `.tfrecord`
              files. Labels are those of the records: slim's ImageNet counts from 1.
        input_shape: shape of one example without the batch dimension; None where a dimension is free. Images are
            resized to its H, W and converted to its C channels (1 or 3); without it they must all have one size, and are RGB.
        preprocess: a name in `PREPROCESS`, or one of one's own. Arrays of integers count as pixels; floating-point ones
            are not mapped twice.
        limit: at most so many examples.
        seed: draws them, and their order, at random; without it the order is that of the source, where class folders
            come one after another.
        labels: integers [N] or a `.npy` of them, one for each example of the source, in place of those found.
        exclude: names of examples to leave out, or a text file with one on each line, as `calibration_set` writes it.

    Returns:
        the examples in a fixed order.

    Raises:
        DataError: no such source, not one of the kinds above, or of the wrong shape, dtype or size.
    """
    path = Path(source)
    channels = input_shape[-1] if input_shape else None
    prepare = preprocessing(preprocess, channels)
    kind = kind_of(path)
    reader: ArrayReader | ImageReader
    integers: Labels | None
    if kind in ARRAYS:
        mapped, found = ARRAYS[kind](path)
        inputs = streamed(mapped)
        reader = _rows(inputs, str(path), input_shape, preprocess)
        integers = None if found is None else check_labels(found, str(path), len(inputs))
    else:
        listing = IMAGES[kind](path)
        shape, resize = _image_shape(listing, path, input_shape)
        reader = ImageReader(shape, listing.names, listing.load, prepare, resize, str(path))
        integers = listing.labels
    if labels is not None:
        integers = _given_labels(labels, len(reader))
    dataset = Dataset(reader, np.arange(len(reader), dtype=np.int64), integers, str(path), _location(path, kind))
    if exclude is not None:
        dataset = dataset.without_names(listed_names(exclude))
    if seed is not None:
        dataset = dataset.sample(len(dataset), seed)
    return dataset if limit is None else dataset.take(limit)


def open_array(
    array: Array,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    preprocess: str | Preprocessing = "none",
    labels: LabelSource | None = None,
) -> Dataset:
    """The rows of an array in memory as a dataset.

    Args:
        array: [N, ...] numbers; it is not copied.
        input_shape: expected shape of one row, None where a dimension is free.
        preprocess: a name in `PREPROCESS`, or one of one's own, for arrays of integers.
        labels: integers [N] or a `.npy` of them.

    Raises:
        DataError: of the wrong shape, dtype or size.
    """
    reader = _rows(array, "array", input_shape, preprocess)
    integers = None if labels is None else _given_labels(labels, len(reader))
    return Dataset(reader, np.arange(len(reader), dtype=np.int64), integers, "array")


def _rows(
    array: Array | RowFile, source: str, input_shape: tuple[int | None, ...] | None, preprocess: str | Preprocessing
) -> ArrayReader:
    """The rows of an array that is fit to be a set of inputs."""
    prepare = preprocessing(preprocess)
    if prepare.lenient and array.dtype.kind == "f":
        prepare = PREPROCESS["none"]
    check_inputs(array, source, input_shape, mapped=prepare.maps)
    return ArrayReader(array, preprocessing(prepare, array.shape[-1]))


def kind_of(path: Path) -> str:
    """`npy`, `npz`, `zip`, `csv`, `folder` or `records`.

    Raises:
        DataError: none of them.
    """
    if path.is_dir():
        if (path / LABEL_FILE).is_file():
            return "csv"
        return "records" if shards(path) else "folder"
    if not path.exists() and _matches(path):
        return "records"
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    try:
        with path.open("rb") as file:
            start = file.read(HEADER)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"PK"):
        return "npz" if _holds_arrays(path) else "zip"
    suffix = path.suffix.lower().removeprefix(".")
    if is_header(start) or suffix in {"tfrecord", "tfrecords", "record"}:
        return "records"
    if suffix in {*ARRAYS, "zip", "csv"}:
        return suffix
    raise DataError(
        f"{path}: a .npy, .npz, .csv or .zip file, TFRecord files or a folder of images is expected. "
        f"Received: {path.suffix or 'no ending'}"
    )


def _location(path: Path, kind: str) -> Path | None:
    """What the names of the examples are relative to; not known where a pattern spans several folders."""
    if kind not in {"csv", "records"} or path.is_dir():
        return path
    return None if glob.has_magic(str(path.parent)) and not path.parent.is_dir() else path.parent


def _matches(path: Path) -> list[Path]:
    """Files that a pattern such as `DIR/validation-*` stands for, sorted."""
    if not glob.has_magic(str(path)):
        return []
    return [Path(name) for name in sorted(glob.glob(str(path))) if Path(name).is_file()]  # noqa: PTH207  # also absolute ones


def _record_files(path: Path) -> list[Path]:
    return shards(path) if path.is_dir() else [path] if path.is_file() else _matches(path)


def listed_names(exclude: NameSource) -> list[str]:
    """Names of examples, given as they are or in a text file, one on each line.

    Raises:
        DataError: the file cannot be read.
    """
    if not isinstance(exclude, (str, os.PathLike)):
        return list(exclude)
    try:
        return [line for line in Path(exclude).read_text(encoding="utf-8", errors="surrogateescape").splitlines() if line]
    except OSError as error:
        raise DataError(
            f"{exclude}: cannot be read ({error.strerror}); a text file with the name of one example a line is expected"
        ) from None


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: a damaged zip or .npz file ({error})") from None
    return path.suffix.lower() == ".npz" or (bool(names) and all(name.endswith(".npy") for name in names))


def _image_shape(listing: Listing, path: Path, input_shape: tuple[int | None, ...] | None) -> tuple[tuple[int, int, int], bool]:
    """(H, W, C) and whether images of another size are resized; what is free is taken from the first image."""
    wanted = (None, None, 3) if input_shape is None else input_shape
    if len(wanted) != 3 or wanted[2] not in (1, 3, None) or any(dim is not None and dim < 1 for dim in wanted):
        raise DataError(f"{path}: images fill inputs of shape H,W,C with C 1 or 3. Received: {list(wanted)}")
    height, width, channels = wanted
    if height is not None and width is not None:
        return (height, width, channels or 3), True
    first = image_size(BytesIO(listing.load(0)), f"{path}: {listing.names[0]}")
    for have, want in zip(first, (height, width), strict=True):
        if want not in (None, have):
            raise DataError(f"{path}: give both height and width to have images resized. Received: {list(wanted)}")
    return (*first, channels or 3), False


def _given_labels(labels: LabelSource, count: int) -> npt.NDArray[np.int64]:
    if isinstance(labels, (str, os.PathLike)):
        path = Path(labels)
        if not path.is_file():
            raise DataError(f"{path}: no such file of labels; a .npy of integers [N] is expected")
        return check_labels(np.asarray(load_npy(path)), str(path), count)
    return check_labels(np.asarray(labels), "labels", count)
