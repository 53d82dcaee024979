"""Tests with the targets' own readers, which live in an environment of their own: `make test-handoff` builds it.

Without it nothing here is collected, so that the other tests neither need nor skip these.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

READERS = Path(__file__).parent / "readers"

collect_ignore_glob = ["readers/*"] if os.environ.get("TQT_ONNX_HANDOFF") else ["*"]

Run = Callable[[Sequence[Any]], str]


@pytest.fixture(scope="session")
def handoff_python() -> Path:
    """The interpreter of the second environment; an error, not a skip, where the variable leads nowhere."""
    python = Path(os.environ["TQT_ONNX_HANDOFF"]).absolute()
    assert python.is_file(), f"TQT_ONNX_HANDOFF names no interpreter; `make test-handoff` builds one. Received: {python}"
    return python


@pytest.fixture(scope="session")
def run_reader(handoff_python: Path) -> Run:
    """Runs `readers/NAME ARGUMENTS...`, or a script by its full path, in the second environment; returns what it prints.

    Nothing of this environment is visible there: no PYTHONPATH, no import from the working directory.
    """

    def run(arguments: Sequence[Any]) -> str:
        script, *rest = (str(argument) for argument in arguments)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(handoff_python), "-I", str(READERS / script), *rest]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{script} {' '.join(rest)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    return run
