"""Lines of C, indented by blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from .types import literal

WIDTH: Final = 120

_LINES: Final = 1 << 13
"""Of an array, written at once."""


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


def array(name: str, ctype: str, integers: npt.NDArray[np.int64]) -> Iterator[str]:
    """Text of a constant array, flat, in C order, with what ends its last line; in parts, since weights can be many."""
    flat = integers.reshape(-1)
    ends = (int(flat.min()), int(flat.max()))
    longest = max(len(literal(end, ctype)) for end in ends)  # of either sign the outermost number is the longest
    per_line = max(1, (WIDTH - 4) // (longest + 2))
    yield f"static const {ctype} {name}[{flat.size}] = {{\n"
    for start in range(0, flat.size, _LINES * per_line):
        yield _rows(flat[start : start + _LINES * per_line], ctype, longest, per_line)
    yield "};\n"


def _rows(integers: npt.NDArray[np.int64], ctype: str, longest: int, per_line: int) -> str:
    """Lines of an array: every different number is written once, then copied to its places."""
    integers = np.asarray(integers, np.int64)
    low, high = int(integers.min()), int(integers.max())
    if high - low < integers.size:
        numbers, places = np.arange(low, high + 1), integers - low
    else:
        numbers, places = np.unique(integers, return_inverse=True)
    texts = np.array([literal(number, ctype).rjust(longest) + ", " for number in numbers.tolist()], np.bytes_)
    whole = texts[places].tobytes().decode("ascii")
    length = per_line * (longest + 2)
    return "".join(f"    {whole[start : start + length - 1].rstrip()}\n" for start in range(0, len(whole), length))
