"""Integers in files that grow at their end: `.mem` for simulators, one hexadecimal word on each line, and `.npy` for NumPy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import UnsupportedError, integer_bounds

_LONGEST_STEM: Final = 80
_PART: Final = 1 << 20
"""Words that are turned into text at once."""

_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def hex_digits(bits: int) -> int:
    """Hexadecimal digits of a word."""
    return -(-bits // 4)


def storage(bits: int, signed: bool) -> npt.DTypeLike:
    """The smallest little-endian NumPy type that holds words of so many bits, at most 32."""
    size = next(size for size in (1, 2, 4) if bits <= 8 * size)
    return np.dtype(f"<{'i' if signed else 'u'}{size}")


def hex_lines(integers: npt.NDArray[Any], bits: int) -> bytes:
    """Integers in C order as two's complement of so many bits, lower case, leading zeros kept, each line ended."""
    digits = hex_digits(bits)
    words = np.ascontiguousarray(integers).reshape(-1).astype(np.int64) & ((1 << bits) - 1)
    text = np.empty((words.size, digits + 1), np.uint8)
    for place in range(digits):
        text[:, place] = _DIGITS[(words >> (4 * (digits - 1 - place))) & 15]
    text[:, digits] = ord("\n")
    return text.tobytes()


def comment_lines(lines: Sequence[str]) -> bytes:
    """Comments as `$readmemh` skips them; the text must be one line of ASCII each."""
    return "".join(f"// {line}\n" for line in lines).encode("ascii")


def quoted(name: str) -> str:
    """A name of anybody's choosing as one line of ASCII."""
    return json.dumps(name)


def safe_stem(index: int, count: int, name: str) -> str:
    """A file name of letters, digits, `_` and `-`, without suffix.

    Args:
        index: what makes it the only one of its kind, however alike names are.
        count: of all such files.
        name: of anybody's choosing.
    """
    width = max(3, len(str(count - 1)))
    return f"{index:0{width}d}_{re.sub('[^A-Za-z0-9_-]+', '_', name)}"[:_LONGEST_STEM]


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class GrowingArray:
    """A `.npy` file to whose first axis rows are added; only what is added is in memory, and the file is closed in between.

    Args:
        path: to write.
        dtype: of its elements.
        row: shape behind the first axis.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, row: tuple[int, ...]) -> None:
        self.path, self.row, self.rows = path, row, 0
        self._dtype = np.dtype(dtype)
        with path.open("wb") as file:
            self._write_header(file)
            self._start = file.tell()

    def append(self, array: npt.NDArray[Any]) -> None:
        """Adds rows [n, *row], which the type must hold."""
        assert array.shape[1:] == self.row, (array.shape, self.row)
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(array, self._dtype).tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Writes how many rows there are; the header leaves room for that."""
        with self.path.open("r+b") as file:
            self._write_header(file)
            assert file.tell() == self._start

    def _write_header(self, file: Any) -> None:
        shape = (self.rows, *self.row)
        np.lib.format.write_array_header_1_0(file, {"descr": self._dtype.str, "fortran_order": False, "shape": shape})


class WordFiles:
    """One integer tensor as `.npy` and `.mem`, side by side.

    Args:
        stem: path without suffix.
        bits: of a word, at most 32.
        signed: two's complement or unsigned.
        row: shape behind the first axis; None for a constant, which is written at once.
        comments: the first lines of the `.mem` file.
    """

    def __init__(self, stem: Path, bits: int, signed: bool, row: tuple[int, ...] | None, comments: Sequence[str]) -> None:
        self.npy, self.mem = stem.with_suffix(".npy"), stem.with_suffix(".mem")
        self._bits, self._signed = bits, signed
        self._array = None if row is None else GrowingArray(self.npy, storage(bits, signed), row)
        self.mem.write_bytes(comment_lines(comments))

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return 0 if self._array is None else self._array.rows

    def append(self, integers: npt.NDArray[np.int64], comments: Sequence[str] = ()) -> None:
        """Adds integers [n, *row], or all of a constant.

        In the `.mem` file they are in as many equal parts as there are comments, each behind its own.

        Raises:
            UnsupportedError: one of them does not fit.
        """
        if not fits(integers, self._bits, self._signed):
            raise UnsupportedError(
                f"{self.mem.name}: words of {self._bits} bits, {'signed' if self._signed else 'unsigned'}, are expected. "
                f"Received: integers from {integers.min()} to {integers.max()}"
            )
        if self._array is None:
            np.save(self.npy, integers.astype(storage(self._bits, self._signed), order="C"))
        else:
            self._array.append(integers)
        parts = np.ascontiguousarray(integers).reshape(len(comments) or 1, -1)
        with self.mem.open("ab") as file:
            for place, part in enumerate(parts):
                file.write(comment_lines(comments[place : place + 1]))
                for start in range(0, part.size, _PART):
                    file.write(hex_lines(part[start : start + _PART], self._bits))

    def close(self) -> None:
        """Ends the `.npy` file."""
        if self._array is not None:
            self._array.close()


def fits(integers: npt.NDArray[Any], bits: int, signed: bool) -> bool:
    """Whether all integers are words of so many bits."""
    lower, upper = integer_bounds(bits, signed)
    return integers.size == 0 or (int(integers.min()) >= lower and int(integers.max()) <= upper)
