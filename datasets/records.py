"""TFRecord files without TensorFlow: where each record lies, and reading one of them.

A record is its length (8 bytes, little endian), the masked CRC-32C of these, the data, and the masked CRC-32C of the data.
The index pass reads the twelve bytes in front of each record and jumps over the data.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .crc32c import masked_crc32c

Integers = npt.NDArray[np.int64]

HEADER: Final = 12
_FOOTER: Final = 4


@dataclass(frozen=True, eq=False)
class Records:
    """The records of several files, in order.

    Attributes:
        files: the files.
        firsts: int64 [files], row number of the first record of each.
        starts: int64 [N], where the data of each record begins in its file.
        sizes: int64 [N], bytes of its data.
    """

    files: Sequence[Path]
    firsts: Integers
    starts: Integers
    sizes: Integers

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, row: int) -> tuple[Path, int]:
        """The file of a record and its number there, from 0."""
        file = int(np.searchsorted(self.firsts, row, side="right")) - 1  # of files without records, the last one
        return self.files[file], row - int(self.firsts[file])

    def name(self, row: int) -> str:
        """What an error message, and a list of examples, calls a record; the same for any selection of the files."""
        file, number = self.place(row)
        return f"{file.name} record {number}"

    def read(self, row: int, *, check: bool = True) -> bytes:
        """The data of a record.

        Raises:
            DataError: unreadable, or (with `check`) not what its checksum was made of.
        """
        path, number = self.place(row)
        size = int(self.sizes[row])
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(int(self.starts[row]))
                data = file.read(size + _FOOTER)
        except OSError as error:
            raise DataError(f"{path}: record {number} cannot be read: {error.strerror}") from None
        if len(data) < size + _FOOTER:
            raise DataError(f"{path}: record {number} is cut off; the file has changed since it was opened")
        if check and masked_crc32c(data[:size]) != int.from_bytes(data[size:], "little"):
            raise DataError(f"{path}: record {number} is damaged: its checksum does not match its {size} bytes")
        return data[:size]


def is_header(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a TFRecord file: a length followed by its checksum."""
    return len(start) >= HEADER and masked_crc32c(start[:8]) == int.from_bytes(start[8:HEADER], "little")


def index(files: Sequence[Path]) -> Records:
    """Finds the records of the files; data is not read.

    Raises:
        DataError: a file that is no TFRecord file, or damaged, or cut off; no record at all.
    """
    starts, sizes, firsts = array("q"), array("q"), array("q")  # a training set has a million records
    for path in files:
        firsts.append(len(starts))
        try:
            with path.open("rb", buffering=0) as file:
                for start, size in _walk(file, path):
                    starts.append(start)
                    sizes.append(size)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not starts:
        raise DataError(f"{', '.join(str(path) for path in files[:3])}: holds no records")
    return Records(tuple(files), *(np.array(numbers, np.int64) for numbers in (firsts, starts, sizes)))


def _walk(file: IO[bytes], path: Path) -> Iterator[tuple[int, int]]:
    """(start, size) of the data of each record of one file."""
    end = path.stat().st_size
    number = position = 0
    while position < end:
        file.seek(position)
        header = file.read(HEADER)
        if header.startswith(b"\x1f\x8b") and not number:
            raise DataError(f"{path}: a compressed file; TFRecord files are read uncompressed (gunzip)")
        if len(header) == HEADER and not is_header(header):
            raise DataError(f"{path}: record {number} is damaged at byte {position}: its length does not match its checksum")
        start = position + HEADER
        size = struct.unpack_from("<Q", header)[0] if len(header) == HEADER else 0
        position = start + size + _FOOTER
        if position > end:
            raise DataError(f"{path}: record {number} is cut off: it ends at byte {position}, the file at {end}")
        yield start, size
        number += 1
