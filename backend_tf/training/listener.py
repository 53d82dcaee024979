"""Who is told how a training goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .result import Row


class Listener(Protocol):
    """What a training calls, on the process that writes files."""

    def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
        """`step` of `total` steps are done; every few steps with numbers by name (loss, learning rates, thresholds)."""
        ...

    def on_validation(self, row: Row) -> None:
        """A validation is done."""
        ...

    def on_freeze(self, step: int, group: str, log2_t: float) -> None:
        """A threshold has been frozen."""
        ...


class Listeners:
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def on_step(self, step: int, total: int, scalars: Mapping[str, float] | None) -> None:
        """As `Listener.on_step`."""
        for listener in self._listeners:
            listener.on_step(step, total, scalars)

    def on_validation(self, row: Row) -> None:
        """As `Listener.on_validation`."""
        for listener in self._listeners:
            listener.on_validation(row)

    def on_freeze(self, step: int, group: str, log2_t: float) -> None:
        """As `Listener.on_freeze`."""
        for listener in self._listeners:
            listener.on_freeze(step, group, log2_t)
