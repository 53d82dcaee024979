"""One table for all purposes: ruled on a terminal, plain aligned columns elsewhere, so that it can be piped and compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

WIDTH: Final = 100
"""Columns that a table with shortened names takes where there is no terminal to ask."""

SHORTEST: Final = 24
"""Names are not cut below this."""

_GAP: Final = "..."
_SEPARATOR: Final = 2  # blanks between two columns; rich takes as much
_NUMBER: Final = re.compile(r"[+-]?[0-9][0-9,.]*[KMGT%]?")

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class PlainTable:
    """A renderable; `table` makes it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    elide: frozenset[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.is_terminal:
            yield self._ruled(self._fitted(options.max_width - _SEPARATOR))
        else:
            for line in self._lines(self._fitted(WIDTH)):  # segments of our own: Text would be cut at the console's width
                yield Segment(line)
                yield Segment.line()

    def _fitted(self, limit: int) -> tuple[tuple[str, ...], ...]:
        """The rows with names cut in the middle until a line fits, as far as names that differ still differ."""
        widths = self._widths(self.rows)
        excess = sum(widths) + _SEPARATOR * (len(widths) - 1) - limit
        cut: dict[int, dict[str, str]] = {}
        for index in sorted((i for i, name in enumerate(self.columns) if name in self.elide), key=lambda i: -widths[i]):
            if excess > 0:
                names = {row[index] for row in self.rows}
                cut[index] = told_apart(names, max(widths[index] - excess, SHORTEST, len(self.columns[index])))
                excess -= widths[index] - max(len(self.columns[index]), *map(len, cut[index].values()), 0)
        return tuple(tuple(cut[i][cell] if i in cut else cell for i, cell in enumerate(row)) for row in self.rows)

    def _widths(self, rows: Iterable[tuple[str, ...]]) -> list[int]:
        lines = [self.columns, *rows]
        return [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

    def _ruled(self, rows: Iterable[tuple[str, ...]]) -> Table:
        ruled = Table(title=Text(self.title) if self.title else None, box=box.SIMPLE_HEAD, title_justify="left")
        for name, numeric in zip(self.columns, self.numeric, strict=True):
            ruled.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in rows:
            ruled.add_row(*(Text(cell) for cell in row))  # as Text: a tensor called "a[b]" is no markup
        return ruled

    def _lines(self, rows: tuple[tuple[str, ...], ...]) -> Iterable[str]:
        if self.title:
            yield self.title
        widths = self._widths(rows)
        for row in (self.columns, tuple("-" * width for width in widths), *rows):
            cells = zip(row, widths, self.numeric, strict=True)
            yield "  ".join(cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in cells).rstrip()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, elide: Collection[str] = ()) -> PlainTable:
    """A table; columns that hold only numbers are set to the right.

    Args:
        title: line above it, or the empty string.
        columns: headings.
        rows: cells, one for each heading: text, integers, floats (four significant digits), yes/no, None for nothing.
        elide: columns of names that may be cut in the middle to make a line fit. What names a fault is better left whole.

    Raises:
        ValueError: a row of another length than the headings.
    """
    kept = [tuple(row) for row in rows]
    for row in kept:
        if len(row) != len(columns):
            raise ValueError(f"rows of {len(columns)} cells are expected. Received: {len(row)}")
    numeric = tuple(bool(kept) and all(_is_number(row[i]) for row in kept) for i in range(len(columns)))
    texts = tuple(tuple(text(cell) for cell in row) for row in kept)
    return PlainTable(printable(title), tuple(printable(name) for name in columns), texts, numeric, frozenset(elide))


def text(cell: Cell) -> str:
    """A cell as it is shown."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return printable(cell)


def told_apart(names: Collection[str], width: int) -> dict[str, str]:
    """Names cut to `width`, or as little wider as it takes for those that differ to differ still."""
    for wanted in range(width, max(map(len, names), default=0)):
        for quarters in (1, 2, 3):
            found = {name: elided(name, wanted, quarters) for name in names}
            if len(set(found.values())) == len(found):
                return found
    return {name: name for name in names}


def elided(name: str, width: int, quarters: int = 1) -> str:
    """A name cut in the middle to at most `width` characters; the end of a TensorFlow name tells more than its beginning.

    Args:
        name: of any length.
        width: at least 8.
        quarters: how many quarters of what is shown are of its beginning.
    """
    if len(name) <= width:
        return name
    head = (width - len(_GAP)) * quarters // 4
    return f"{name[:head]}{_GAP}{name[len(name) - (width - len(_GAP) - head) :]}"


def count(number: int | None) -> str | None:
    """A count of at most four characters and a unit: `9,216`, `468K`, `13.6M`."""
    if number is None or number < 10_000:
        return None if number is None else f"{number:,}"
    value, unit = float(number), ""
    for unit in "KMGT":  # noqa: B007 - the last one stays for what is larger still
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.0f}{unit}" if value >= 99.95 else f"{value:.1f}{unit}"


def _is_number(cell: Cell) -> bool:
    """Whether a cell is set to the right: numbers, nothing, and numbers that come as text (`+0.25`, `46.00%`)."""
    if isinstance(cell, str):
        return _NUMBER.fullmatch(cell) is not None
    return not isinstance(cell, bool)


def printable(name: str) -> str:
    """Text from a file, with everything a terminal would act upon made visible."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name)
