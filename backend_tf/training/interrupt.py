"""Ctrl-C, and the polite way to end a process, between two steps instead of within one."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any, Final

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""What asks for an end: Ctrl-C, and what `kill`, batch systems and containers send before they end a process."""


class Interrupt:
    """Within its block the first of `SIGNALS` is only noted; the second one raises KeyboardInterrupt.

    Signals belong to the main thread: in another one the block changes nothing. Nor does it where something other than Python
    handles a signal, as that could not be put back.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) is not None]
            self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("interrupted: the step is finished and a checkpoint written; once more stops at once")
