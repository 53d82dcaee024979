"""Progress with the time that is left: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from .console import make_console
from .table import printable

PLAIN_SECONDS: Final = 10.0
"""Seconds between two lines where there is no terminal."""

RECENT_SECONDS: Final = 120.0
"""How far back the rate reaches that the time left is told by: the first step of a training traces for long."""


class Progress(Protocol):
    """What long work is given to say how far it is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` steps (0: not known) are done; `what` is being done, or is what the steps are."""
        ...


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """A `Progress` for the time of the block; each piece of work has a bar of its own.

    Args:
        console: where to show it; by default standard error, so that piped output stays clean.
    """
    console = console or make_console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, speed_estimate_period=RECENT_SECONDS) as bars:
        yield _Bars(bars)


@dataclass
class _Work:
    """Tells when another piece of work begins: the total changes or the count goes back. Its name alone may change as it goes."""

    _done: int = 0
    _total: int | None = None

    def is_new(self, done: int, total: int) -> bool:
        new = total != self._total or done < self._done
        self._done, self._total = done, total
        return new


class _Bars:
    """One bar for each piece of work."""

    def __init__(self, bars: Bars):
        self._bars = bars
        self._work = _Work()
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        known = total or None
        if self._work.is_new(done, total) or self._task is None:
            self._task = self._bars.add_task(printable(what), total=known, completed=done)  # what was done before has no rate
        self._bars.update(self._task, completed=done, total=known, description=printable(what))


@dataclass
class _Lines:
    """A line at the end of each piece of work, and one every `PLAIN_SECONDS` in between."""

    console: Console
    clock: Callable[[], float] = time.monotonic
    _work: _Work = field(default_factory=_Work)
    _began: float = 0.0
    _shown: float = 0.0
    _finished: bool = False
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, done: int, total: int, what: str) -> None:
        now = self.clock()
        if self._work.is_new(done, total):
            self._began = self._shown = now
            self._finished = False
            self._recent.clear()
        left = self._left(now, done, total)
        if total and done >= total:
            if not self._finished:
                self._finished = True
                self._say(f"{what}: {done}/{total} in {duration(now - self._began, 1)}")
        elif now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            self._say(f"{what}: {done}{f'/{total}' if total else ''}{'' if left is None else f', {duration(left)} left'}")

    def _left(self, now: float, done: int, total: int) -> float | None:
        """Seconds left at the recent rate; None while there is none."""
        recent = self._recent
        if not recent or now - recent[-1][0] >= 1:
            recent.append((now, done))
        while len(recent) > 2 and now - recent[1][0] >= RECENT_SECONDS:  # two are kept where a step takes longer than that
            recent.popleft()
        since, first = recent[0]
        return (now - since) / (done - first) * (total - done) if total and done > first else None

    def _say(self, line: str) -> None:
        self.console.print(Text(printable(line)), soft_wrap=True)


def duration(seconds: float, digits: int = 0) -> str:
    """`40 s`, `12 min 5 s`, `3 h 20 min`.

    Args:
        seconds: not negative.
        digits: behind the point, below two minutes.
    """
    if seconds < 120:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
