"""Inputs and labels from `.npy` and `.npz` files, memory-mapped wherever the file allows it; pickles are never loaded."""

from __future__ import annotations

import math
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .geometry import Region, stretched
from .preprocess import Preprocessing
from .rows import RowFile

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_INPUT_KEYS: Final[tuple[str, ...]] = ("x", "inputs", "images")
_LABEL_KEYS: Final[tuple[str, ...]] = ("y", "labels")
_LOCAL_HEADER: Final = 30  # bytes of a zip member's fixed header; name and extra field follow
_UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,  # a header may promise any shape
    tokenize.TokenError,  # NumPy lets it out of damaged headers
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # encrypted, or (NotImplementedError) of an unknown version or compression
)


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Rows of an array [N, ...]."""

    data: Array | RowFile
    prepare: Preprocessing

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.data.shape[1:])

    @property
    def holds_pixels(self) -> bool:
        """Whether the numbers are pixels of 0..255 before `prepare`: those of integer arrays are."""
        return self.data.dtype.kind != "f"

    def __len__(self) -> int:
        return len(self.data)

    def name(self, row: int) -> str:
        """What an error message calls a row."""
        return f"row {row}"

    def read(self, rows: Integers) -> npt.NDArray[np.float32]:
        """The rows as float32; numbers beyond float32 become Inf, which the caller refuses."""
        return self.prepare.values(self.pixels(rows))

    def pixels(self, rows: Integers, regions: Sequence[Region] | None = None) -> npt.NDArray[np.float32]:
        """The rows as float32 before their values are mapped; with `regions`, these parts of them [H, W, C], stretched."""
        with np.errstate(over="ignore"):
            found = np.asarray(self.data[rows]).astype(np.float32)
        for index, region in enumerate(regions or ()):
            left, upper, right, lower = region(*found.shape[1:3])
            found[index] = stretched(found[index, upper:lower, left:right], found.shape[1:3])
        return found


def load_npy(path: Path) -> Array:
    """The array of a `.npy` file, memory-mapped.

    Raises:
        DataError: not such a file, truncated, or holding Python objects.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    return array


def load_npz(path: Path) -> tuple[Array, Array | None]:
    """Inputs and labels of a `.npz` file.

    Inputs are the array `x`, `inputs` or `images`, else the only array that is not `y` or `labels` (it may bear the name of
    the network's input). Members are memory-mapped: uncompressed ones (`numpy.savez`) in place, compressed ones in a temporary
    file that vanishes with the process.

    Raises:
        DataError: unreadable, or it is not clear which array holds the inputs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            inputs, labels = _choose(path, list(members))
            return _member(path, archive, members[inputs]), None if labels is None else _member(path, archive, members[labels])
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def check_inputs(array: Array | RowFile, source: str, input_shape: tuple[int | None, ...] | None, *, mapped: bool) -> None:
    """Refuses an array that cannot be a set of inputs.

    Args:
        array: [N, ...].
        source: what a message calls it.
        input_shape: expected shape of one row, None where a dimension does not matter, or None.
        mapped: whether a preprocessing other than `none` is to be applied, which needs pixels.

    Raises:
        DataError: object, text or complex dtype; no rows; another shape; one asked for on floating-point data.
    """
    if array.dtype.kind not in "buif":
        raise DataError(f"{source}: numbers are expected. Received: dtype {array.dtype}")
    expected = "[N, ...]" if input_shape is None else f"[N, {', '.join('?' if d is None else str(d) for d in input_shape)}]"
    if array.ndim < 2 or 0 in array.shape:
        raise DataError(f"{source}: a non-empty array {expected} is expected. Received: {list(array.shape)}")
    if input_shape is not None and not _fits(array.shape[1:], input_shape):
        raise DataError(
            f"{source}: an array {expected} is expected{_hint(array.shape, input_shape)}. Received: {list(array.shape)}"
        )
    if mapped and array.dtype.kind == "f":  # most likely prepared already: mapping it twice would be silent nonsense
        raise DataError(
            f"{source}: preprocessing maps pixels of an integer type; floating-point arrays are taken as they are, with 'none'. "
            f"Received: dtype {array.dtype}"
        )


def check_labels(labels: Array, source: str, count: int) -> Integers:
    """Labels as int64 [count].

    Raises:
        DataError: not integers, negative, or not one for each example.
    """
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.dtype.kind not in "ui" or flat.ndim != 1:
        raise DataError(f"{source}: labels must be integers [N]. Received: {labels.dtype} {list(labels.shape)}")
    if len(flat) != count:
        raise DataError(f"{source}: one label for each of {count} examples is expected. Received: {len(flat)} labels")
    result = flat.astype(np.int64)
    if result.min(initial=0) < 0:
        row = int(np.argmin(result))
        raise DataError(f"{source}: labels must not be negative. Received: {result[row]} at row {row}")
    return result


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(want in (None, have) for have, want in zip(shape, expected, strict=True))


def _hint(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> str:
    swapped = (*shape[2:], *shape[1:2])
    return " (channels last; these seem to come first)" if len(shape) == 4 and _fits(swapped, expected) else ""


def _choose(path: Path, keys: list[str]) -> tuple[str, str | None]:
    labels = [key for key in _LABEL_KEYS if key in keys]
    inputs = [key for key in _INPUT_KEYS if key in keys] or [key for key in keys if key not in _LABEL_KEYS]
    if len(inputs) != 1 or len(labels) > 1:
        raise DataError(
            f"{path}: one array of inputs ({', '.join(_INPUT_KEYS)}, or the only one) and at most one of labels "
            f"({', '.join(_LABEL_KEYS)}) is expected. Received: {', '.join(sorted(keys)) or 'no array'}"
        )
    return inputs[0], labels[0] if labels else None


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array of an archive, mapped: in place where it is stored uncompressed, else unpacked."""
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        header_bytes = file.tell()
        if dtype.hasobject:
            raise ValueError(f"array {info.filename!r} holds Python objects")
        promised = math.prod(shape) * dtype.itemsize
        if header_bytes + promised > info.file_size:
            raise ValueError(f"array {info.filename!r} is cut off: {promised} bytes are expected after {header_bytes}")
        if not promised:
            return np.empty(shape, dtype)
        order: Literal["F", "C"] = "F" if fortran else "C"
        if info.compress_type != zipfile.ZIP_STORED:
            return np.memmap(_unpacked(path, file, promised), dtype, "r", 0, shape, order)
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        local = raw.read(_LOCAL_HEADER)
        start = info.header_offset + _LOCAL_HEADER + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return np.memmap(path, dtype, "r", start + header_bytes, shape, order)


def _unpacked(path: Path, file: IO[bytes], size: int) -> IO[bytes]:
    """A temporary file without a name that holds the rest of `file`; a few bytes may promise more than the disk holds."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free // 2:
        raise DataError(
            f"{path}: {size} bytes when unpacked, more than half of what is free in {tempfile.gettempdir()} ({free}); "
            "an uncompressed .npz (numpy.savez) or a .npy is read in place"
        )
    temporary = tempfile.TemporaryFile()  # noqa: SIM115  # the map that is made of it keeps it
    shutil.copyfileobj(file, temporary, 1 << 20)
    temporary.flush()
    return temporary


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path}: cannot be read as NumPy arrays ({reason}); a .npy or .npz file without Python objects is expected")
