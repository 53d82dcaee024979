"""What the readers of folders, zips, CSVs and TFRecords find, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ir import DataError
from .dataset import Labels


@dataclass(frozen=True, eq=False)
class Listing:
    """Images found.

    Attributes:
        names: names relative to the source, in order, each once.
        load: row -> the bytes of the image file.
        labels: int64 labels of rows, or None.
    """

    names: Sequence[str]
    load: Callable[[int], bytes]
    labels: Labels | None


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
