"""Lines of C, indented by blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from .types import literal

WIDTH: Final = 120


class Text:
    """Lines, each put in at the depth of the blocks around it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def line(self, text: str = "") -> None:
        """One line, or an empty one."""
        self.lines.append(f"{'    ' * self._depth}{text}" if text else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head {` ... `}`; without a head, a scope of its own."""
        self.line(f"{head} {{".lstrip())
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    @contextmanager
    def loops(self, sizes: Iterable[tuple[str, int | str]]) -> Iterator[None]:
        """A nest of loops `for (int name = 0; name < size; ++name)`, the first one outermost."""
        opened = list(sizes)
        for name, size in opened:
            self.line(f"for (int {name} = 0; {name} < {size}; ++{name}) {{")
            self._depth += 1
        yield
        for _ in opened:
            self._depth -= 1
            self.line("}")

    def wrapped(self, head: str, items: Iterable[str], tail: str) -> None:
        """A list, separated by commas, in as many lines as it takes."""
        lines, room = [head], WIDTH - 4 * self._depth
        for item in items:
            if lines == [head] or len(lines[-1]) + len(item) + 2 <= room:
                lines[-1] += item if lines == [head] and lines[-1] == head else f" {item}"
            else:
                lines.append(f"    {item}")
            lines[-1] += ","
        lines[-1] = lines[-1].removesuffix(",") + tail
        for text in lines:
            self.line(text)


def array(name: str, ctype: str, integers: npt.NDArray[np.int64]) -> list[str]:
    """Lines of a constant array, flat, in C order."""
    numbers = [literal(int(number), ctype) for number in integers.reshape(-1)]
    longest = max(map(len, numbers))
    per_line = max(1, (WIDTH - 4) // (longest + 2))
    rows = [
        "    " + ", ".join(number.rjust(longest) for number in numbers[start : start + per_line]) + ","
        for start in range(0, len(numbers), per_line)
    ]
    return [f"static const {ctype} {name}[{len(numbers)}] = {{", *rows, "};"]
