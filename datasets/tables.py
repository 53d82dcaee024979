"""Images named by a CSV: `file,label` lines, with or without a header."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .images import SUFFIXES
from .listing import Listing, read_file

Integers = npt.NDArray[np.int64]

LABEL_FILE: Final = "labels.csv"

_NUMBER: Final = re.compile(r"[-+]?(\d+\.?|\d*\.\d+)([eE][-+]?\d+)?")
_WORDS: Final = ("label", "class")


@dataclass(frozen=True)
class _Line:
    number: int
    cells: list[str]


def list_csv(source: Path) -> Listing:
    """Images named by a CSV (or by the `labels.csv` of a folder): files in its first column, relative to the CSV's folder.

    The first line is a header unless its first cell ends like an image (`cat.jpg`); then the second column holds the labels.
    With a header it is the first column whose name contains `label` or `class` and that holds whole numbers, else the first one
    that holds names of classes. A class's number is the place of its name among the names in sorted order (as text: `10`
    comes before `2`), as with class folders.

    Raises:
        DataError: not such a file, no label column, an image that is missing, listed twice or outside the folder.
    """
    path = source / LABEL_FILE if source.is_dir() else source
    lines = _lines(path)
    has_header = bool(lines) and Path(lines[0].cells[0].strip()).suffix.lower() not in SUFFIXES
    entries = lines[1:] if has_header else lines
    if not entries:
        raise DataError(f"{path}: at least one line 'file,label' is expected. Received: {len(lines)} lines")
    titles = lines[0].cells if has_header else ["file", "label", *lines[0].cells[2:]][: len(lines[0].cells)]
    for line in entries:
        if len(line.cells) != len(titles):
            raise DataError(
                f"{path}: line {line.number} must have {len(titles)} columns like the first. Received: {len(line.cells)}"
            )
    labels = _labels(path, titles, entries)
    names = _files(path, entries)
    return Listing(names, lambda row: read_file(path.parent / names[row]), labels)


def _lines(path: Path) -> list[_Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [_Line(reader.line_num, row) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); lines 'file,label' in UTF-8 are expected") from None


def _files(path: Path, entries: list[_Line]) -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for line in entries:
        name = os.path.normpath(line.cells[0].strip())
        if Path(name).is_absolute() or PureWindowsPath(name).drive or os.pardir in Path(name).parts:
            raise DataError(f"{path}: line {line.number}: a file inside {path.parent} is expected. Received: {line.cells[0]!r}")
        if name in seen:  # calibration and evaluation could then share it
            raise DataError(f"{path}: line {line.number}: {name} is listed twice, first in line {seen[name]}")
        seen[name] = line.number
        if not (path.parent / name).is_file():
            raise DataError(f"{path}: line {line.number}: {path.parent / name}: no such image")
        names.append(name)
    return names


def _labels(path: Path, titles: list[str], entries: list[_Line]) -> Integers:
    columns = [index for index, title in enumerate(titles) if index and any(word in title.lower() for word in _WORDS)]
    cells = {column: [line.cells[column].strip() for line in entries] for column in columns}
    for texts in cells.values():
        if all(_is_whole(text) for text in texts):
            return np.array([int(text) for text in texts], np.int64)
    wrong = []
    for column, texts in cells.items():
        if all(text and not _NUMBER.fullmatch(text) for text in texts):
            order = {name: number for number, name in enumerate(sorted(set(texts)))}
            return np.array([order[text] for text in texts], np.int64)
        bad = next(index for index, text in enumerate(texts) if not _is_whole(text))
        wrong.append(f"{titles[column]!r} holds {texts[bad][:40]!r} in line {entries[bad].number}")
    raise DataError(
        f"{path}: a column of labels is expected behind the files, 'label' or 'class' in its title, that holds whole numbers "
        f"from 0 or names of classes, not both. Received: columns {', '.join(titles)}{'; ' + ', '.join(wrong) if wrong else ''}"
    )


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
