"""One table for all purposes: ruled on a terminal, plain aligned columns elsewhere, so that it can be piped and compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_NUMBER: Final = re.compile(r"[+-]?[0-9][0-9,.]*%?")

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class PlainTable:
    """A renderable; `table` makes it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.is_terminal:
            yield self._ruled()
        else:
            for line in self._lines():  # segments of our own: Text would be cut at the console's width
                yield Segment(line)
                yield Segment.line()

    def _ruled(self) -> Table:
        ruled = Table(title=Text(self.title) if self.title else None, box=box.SIMPLE_HEAD, title_justify="left")
        for name, numeric in zip(self.columns, self.numeric, strict=True):
            ruled.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in self.rows:
            ruled.add_row(*(Text(cell) for cell in row))  # as Text: a tensor called "a[b]" is no markup
        return ruled

    def _lines(self) -> Iterable[str]:
        if self.title:
            yield self.title
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        for row in (self.columns, tuple("-" * width for width in widths), *self.rows):
            cells = zip(row, widths, self.numeric, strict=True)
            yield "  ".join(cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in cells).rstrip()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> PlainTable:
    """A table; columns that hold only numbers are set to the right.

    Args:
        title: line above it, or the empty string.
        columns: headings.
        rows: cells, one for each heading: text, integers, floats (four significant digits), yes/no, None for nothing.

    Raises:
        ValueError: a row of another length than the headings.
    """
    kept = [tuple(row) for row in rows]
    for row in kept:
        if len(row) != len(columns):
            raise ValueError(f"rows of {len(columns)} cells are expected. Received: {len(row)}")
    numeric = tuple(bool(kept) and all(_is_number(row[i]) for row in kept) for i in range(len(columns)))
    texts = tuple(tuple(text(cell) for cell in row) for row in kept)
    return PlainTable(printable(title), tuple(printable(name) for name in columns), texts, numeric)


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


def _is_number(cell: Cell) -> bool:
    """Whether a cell is set to the right: numbers, nothing, and numbers that come as text (`+0.25`, `46.00%`)."""
    if isinstance(cell, str):
        return _NUMBER.fullmatch(cell) is not None
    return not isinstance(cell, bool)


def printable(name: str) -> str:
    """Text from a file, with everything a terminal would act upon made visible."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name)
