"""The console that everything is printed to."""

from __future__ import annotations

from typing import IO, Final

from rich.console import Console, RenderableType

__all__ = ["RenderableType", "make_console"]

PLAIN_WIDTH: Final = 10_000


def make_console(stream: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji, no guessing of colours for numbers.

    Args:
        stream: where to print; by default standard output.
        stderr: standard error in its place.

    Returns:
        a console as wide as the terminal, or, where there is none, so wide that no line is ever broken.
    """
    console = Console(file=stream, stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
