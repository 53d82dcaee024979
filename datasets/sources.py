"""`open_dataset`: finds out what a path is, and gives it one face."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .arrays import ArrayReader, check_inputs, check_labels, load_npy, load_npz
from .dataset import Dataset
from .images import LABEL_FILE, ImageReader, Listing, list_csv, list_folder, list_zip
from .preprocess import image_size, preset

Array = npt.NDArray[Any]
LabelSource = str | os.PathLike[str] | npt.ArrayLike

ARRAYS: Final = MappingProxyType({"npy": lambda path: (load_npy(path), None), "npz": load_npz})
IMAGES: Final[MappingProxyType[str, Callable[[Path], Listing]]] = MappingProxyType(
    {"zip": list_zip, "csv": list_csv, "folder": list_folder}
)
"""Readers by kind of source; `kind_of` tells the kind."""


def open_dataset(
    source: str | os.PathLike[str],
    *,
    input_shape: tuple[int | None, ...] | None = None,
    preprocess: str = "none",
    limit: int | None = None,
    seed: int | None = None,
    labels: LabelSource | None = None,
) -> Dataset:
    """Opens inputs for calibration or evaluation; nothing but headers is read until a batch is asked for.

    Args:
        source: what is told by content, then by name:

            - `.npy`: an array [N, ...] of inputs;
            - `.npz`: inputs as `x`, `inputs`, `images` or the only other array, labels as `y` or `labels`;
            - a folder of class folders of images, the class index being the place of the folder's name in sorted order
              (as text: `10` comes before `2`); a folder of images alone has no labels;
            - a folder with a `labels.csv`, or a CSV: a header, files in the first column (relative to the CSV), integers
              in a column whose name contains `label` or `class`;
            - a `.zip` of class folders of images, read in memory.
        input_shape: shape of one example without the batch dimension; None where a dimension is free. Images are
            resized to its H, W and converted to its C channels (1 or 3); without it they must all have one size, and are RGB.
        preprocess: a name in `PREPROCESS`. Arrays of integers count as pixels; floating-point ones are not mapped twice.
        limit: at most so many examples.
        seed: draws them, and their order, at random; without it the order is that of the source, where class folders
            come one after another.
        labels: integers [N] or a `.npy` of them, in place of those found.

    Returns:
        the examples in a fixed order.

    Raises:
        DataError: no such source, not one of the kinds above, or of the wrong shape, dtype or size.
    """
    path = Path(source)
    channels = input_shape[-1] if input_shape else None
    prepare = preset(preprocess, channels)
    kind = kind_of(path)
    reader: ArrayReader | ImageReader
    if kind in ARRAYS:
        inputs, found = ARRAYS[kind](path)
        check_inputs(inputs, str(path), input_shape, mapped=preprocess != "none")
        preset(preprocess, inputs.shape[-1])
        reader = ArrayReader(inputs, prepare)
        integers = None if found is None else check_labels(found, str(path), len(inputs))
    else:
        listing = IMAGES[kind](path)
        shape, resize = _image_shape(listing, path, input_shape)
        reader = ImageReader(shape, listing.names, listing.load, prepare, resize)
        integers = listing.labels
    if labels is not None:
        integers = _given_labels(labels, len(reader))
    dataset = Dataset(reader, np.arange(len(reader), dtype=np.int64), integers, str(path))
    if seed is not None:
        dataset = dataset.sample(len(dataset), seed)
    return dataset if limit is None else dataset.take(limit)


def open_array(
    array: Array, *, input_shape: tuple[int | None, ...] | None = None, preprocess: str = "none", labels: LabelSource | None = None
) -> Dataset:
    """The rows of an array in memory as a dataset.

    Args:
        array: [N, ...] numbers; it is not copied.
        input_shape: expected shape of one row, None where a dimension is free.
        preprocess: a name in `PREPROCESS`, for arrays of integers.
        labels: integers [N] or a `.npy` of them.

    Raises:
        DataError: of the wrong shape, dtype or size.
    """
    check_inputs(array, "array", input_shape, mapped=preprocess != "none")
    reader = ArrayReader(array, preset(preprocess, array.shape[-1]))
    integers = None if labels is None else _given_labels(labels, len(reader))
    return Dataset(reader, np.arange(len(reader), dtype=np.int64), integers, "array")


def kind_of(path: Path) -> str:
    """`npy`, `npz`, `zip`, `csv` or `folder`.

    Raises:
        DataError: none of them.
    """
    if path.is_dir():
        return "csv" if (path / LABEL_FILE).is_file() else "folder"
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if start == b"\x93NUMPY":
        return "npy"
    if start.startswith(b"PK"):
        return "npz" if _holds_arrays(path) else "zip"
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in ARRAYS or suffix in IMAGES:
        return suffix
    raise DataError(
        f"{path}: a .npy, .npz, .csv or .zip file or a folder of images is expected. Received: {path.suffix or 'no ending'}"
    )


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
    first = image_size(BytesIO(listing.load(0)), listing.names[0])
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
