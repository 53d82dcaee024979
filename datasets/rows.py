"""Rows of an array that stays in its file.

A memory map would do, but the pages it has touched count as memory of the process, so that memory seems to grow with the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir import DataError

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RowFile:
    """An array in C order in a file; indexing with row numbers reads these rows.

    Attributes:
        path: the file.
        offset: where the array begins in it.
        shape: [N, ...].
        dtype: of its elements.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Array:
        """The rows [n, ...], in the order given.

        Raises:
            DataError: the file cannot be read, or has become shorter.
        """
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        step = result[:1].nbytes
        content = result.reshape(-1).view(np.uint8).data
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        bounds = [0, *breaks.tolist(), len(rows)]
        try:
            with self.path.open("rb") as file:
                for start, stop in pairwise(bounds):  # neighbours in one go
                    file.seek(self.offset + int(rows[start]) * step)
                    if file.readinto(content[start * step : stop * step]) != (stop - start) * step:
                        raise DataError(f"{self.path}: has become shorter since it was opened")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from None
        return result


def streamed(array: Array) -> Array | RowFile:
    """The same array, read row by row instead of mapped where its layout allows it."""
    if (
        not isinstance(array, np.memmap)
        or not array.flags.c_contiguous
        or array.filename is None
        or array.ndim < 2
        or not array.size
    ):
        return array
    return RowFile(Path(array.filename), array.offset, array.shape, array.dtype)
