"""Work beside the main thread, a bounded number of items at a time: memory stays that of a few batches (C5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from .engine import cores

T = TypeVar("T")
U = TypeVar("U")


def ahead(threads: Executor, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`map` in threads, in order, at most `cores` items ahead of the reader."""
    busy: deque[Future[U]] = deque()
    for item in items:
        if len(busy) == cores():
            yield busy.popleft().result()
        busy.append(threads.submit(function, item))
    while busy:
        yield busy.popleft().result()


def in_turns(threads: Executor, function: Callable[[T, int], None], items: Iterable[T]) -> None:
    """Calls `function(item, worker)` for all items; a worker's number is never in use twice at one time."""
    workers = cores()
    busy: deque[Future[None]] = deque()
    for index, item in enumerate(items):
        if len(busy) == workers:  # worker `index % workers` must be free: its statistics are not shared
            busy.popleft().result()
        busy.append(threads.submit(function, item, index % workers))
    for future in busy:
        future.result()
