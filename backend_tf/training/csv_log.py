"""A CSV with a row for every logged step, which a resumed training goes on with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ...ir import DataError, atomic_path

Value = float | int | str | None


class CsvLog:
    """Rows `step, ...` of one file; the first one decides the columns.

    When `row` returns the system has the row: it outlives the process, if not the machine.

    Args:
        path: the file; it is made with the first row.
        after: rows of later steps, written before the training was interrupted, are cut, and a line that was cut off; None begins
            anew.

    Raises:
        DataError: the file is not such a log.
    """

    def __init__(self, path: Path, after: int | None) -> None:
        self._path = path
        self._columns: tuple[str, ...] | None = None
        self._file: TextIO | None = None
        self.rows = 0
        if after is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._cut(after)

    def row(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a row.

        Args:
            step: first column.
            values: the others by name, in order; None leaves the cell empty.

        Raises:
            DataError: other columns than those of the file, or it cannot be written.
        """
        columns = ("step", *values)
        if self._columns is None:
            self._write(columns)
            self._columns = columns
        if columns != self._columns:
            raise DataError(f"{self._path}: the columns {', '.join(self._columns)} are expected. Received: {', '.join(columns)}")
        self._write([str(step), *map(_text, values.values())])
        self.rows += 1

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cut(self, after: int) -> None:
        try:
            text = self._path.read_text(encoding="utf-8")
            lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
            kept = [line for line in lines[1:] if int(line[0]) <= after]
        except (OSError, ValueError, IndexError, csv.Error) as error:
            raise DataError(f"{self._path}: rows that begin with a step are expected. Received: {error}") from None
        if not lines:
            self._path.unlink()
            return
        self._columns, self.rows = tuple(lines[0]), len(kept)
        with atomic_path(self._path, force=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([lines[0], *kept])

    def _write(self, cells: tuple[str, ...] | list[str]) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8", newline="")
            csv.writer(self._file, lineterminator="\n").writerow(cells)
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written: {error.strerror}") from None


def _text(value: Value) -> str:
    """Nine digits tell every float32 from its neighbours."""
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
