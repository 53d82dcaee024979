"""Keeps the chatter of TensorFlow, Keras and tf2onnx away from the user; all of it goes to our debug log."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Final

logger = logging.getLogger(__name__)

_CHATTERS: Final = ("tf2onnx", "tensorflow", "absl", "h5py")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def quiet() -> Iterator[list[logging.LogRecord]]:
    """Silences the libraries inside the block.

    File descriptor 2 is redirected, because TensorFlow's C++ side writes there before its own log level is read. That is
    a property of the whole process: other threads' stderr is held back too while the block runs.

    Yields:
        The log records the libraries produced so far.
    """
    collector, native = _Collector(), ""
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            printed = stack.enter_context(redirect_stdout(io.StringIO()))
            for name in _CHATTERS:
                stack.enter_context(_diverted(logging.getLogger(name), collector))
            captured = stack.enter_context(_stderr_to_file())
            try:
                yield collector.records
            finally:
                native = captured() + printed.getvalue()
    finally:
        if logger.isEnabledFor(logging.DEBUG):
            for record in collector.records:
                logger.debug("%s: %s %s", record.name, record.msg, record.args or "")
            for line in native.splitlines():
                logger.debug("%s", line)


@contextmanager
def _diverted(library: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    handlers, propagate = library.handlers[:], library.propagate
    library.handlers[:] = [handler]
    library.propagate = False
    try:
        yield
    finally:
        # A library that installs handlers while it is imported (absl) keeps them.
        library.handlers[:] = handlers + [one for one in library.handlers if one is not handler and one not in handlers]
        library.propagate = propagate


@contextmanager
def _stderr_to_file() -> Iterator[Callable[[], str]]:
    """Sends file descriptor 2 to a temporary file; yields a function that reads what has arrived."""
    sys.stderr.flush()
    try:
        original = os.dup(2)
    except OSError:  # a process without stderr
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as file:

        def captured() -> str:
            sys.stderr.flush()
            file.seek(0)
            return file.read().decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
