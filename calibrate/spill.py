"""Live tensors of a calibration set, kept in anonymous temporary files (C5).

The files have no name in the file system, so that nothing is left behind by whatever ends the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from io import FileIO
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir import UsageError


class SpillAccount:
    """What is spilled at the moment.

    Attributes:
        files: open files.
        bytes_live: bytes in them.
        bytes_peak: the most there ever were.
    """

    def __init__(self) -> None:
        self.files = 0
        self.bytes_live = 0
        self.bytes_peak = 0

    def add(self, size: int) -> None:
        """Books bytes written, or freed where negative."""
        self.bytes_live += size
        self.bytes_peak = max(self.bytes_peak, self.bytes_live)


class Spill:
    """One tensor, batch after batch, of one dtype; written once, then read any number of times, then closed.

    Raises (all methods):
        UsageError: the temporary folder is full or cannot be written.
    """

    def __init__(self, account: SpillAccount, dtype: npt.DTypeLike) -> None:
        self._account = account
        self._dtype = np.dtype(dtype)
        self._shapes: list[tuple[int, ...]] = []
        self._size = 0
        try:
            self._file: FileIO | None = tempfile.TemporaryFile(prefix="tqt_onnx_", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from None
        account.files += 1

    def append(self, batch: npt.NDArray[Any]) -> None:
        """Writes the next batch."""
        assert self._file is not None
        array = np.ascontiguousarray(batch, self._dtype)
        try:
            rest = array.reshape(-1).view(np.uint8).data
            while rest:  # the system may write less than it is given
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _no_room(error) from None
        self._shapes.append(batch.shape)
        self._size += array.nbytes
        self._account.add(array.nbytes)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Reads the batches, in order, each into memory of its own."""
        assert self._file is not None
        position = 0
        for shape in self._shapes:
            batch = np.empty(shape, self._dtype)
            try:
                self._file.seek(position)
                rest = batch.reshape(-1).view(np.uint8).data
                while rest:
                    count = self._file.readinto(rest)
                    if not count:
                        raise OSError("the file is shorter than what was written to it")
                    rest = rest[count:]
            except OSError as error:
                raise _no_room(error) from None
            position += batch.nbytes
            yield batch

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each batch."""
        return tuple(self._shapes)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._shapes)

    def close(self) -> None:
        """Gives the space back; closing twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._account.files -= 1
            self._account.add(-self._size)


def _no_room(error: OSError) -> UsageError:
    return UsageError(
        f"calibration keeps intermediate tensors in {tempfile.gettempdir()}, which failed; set TMPDIR to a folder with room. "
        f"Received: {error.strerror or error}"
    )
