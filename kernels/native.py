"""The optional native operators: built once with the user's own compiler, kept in a private folder of the user's cache.

Without a compiler, on a GPU, or with `TQT_ONNX_NATIVE=0` there are none, and TensorFlow's own operators compute the same numbers.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

logger = logging.getLogger(__name__)

SWITCH = "TQT_ONNX_NATIVE"
"""Environment variable: `0` does without native operators."""

SOURCE = Path(__file__).with_name("epilogue.cc")
COMPILERS = ("c++", "g++", "clang++")

FLAGS = ("-shared", "-fPIC", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-w")
"""No -ffast-math and no fused multiply-adds: rounding must be that of the specification (Q1). The last three change no number."""

_SECONDS = 600
"""What a compiler may take at most."""


class UnavailableError(Exception):
    """Why there are no native operators."""


@functools.cache
def operators() -> Any | None:
    """The module of native operators, built if need be; None where there are none: one line of the log says why."""
    try:
        return _loaded()
    except (UnavailableError, OSError, subprocess.SubprocessError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning("no native operators, training takes TensorFlow's own (same numbers, slower): %s", reason[0])
        return None


def _loaded() -> Any:
    if os.environ.get(SWITCH, "") == "0":
        raise UnavailableError(f"{SWITCH}=0")
    if tf.config.list_physical_devices("GPU"):
        raise UnavailableError("there is a GPU, and they are for the CPU alone")
    compiler = _compiler()
    folder = _private_folder()
    library = folder / f"epilogue-{_key(compiler)}.so"
    if not library.exists():
        _build(compiler, library)
    return tf.load_op_library(str(library))


def _compiler() -> list[str]:
    """The command of the C++ compiler: that of `CXX`, or the first known one on the path."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise UnavailableError(f"no C++ compiler ({shlex.join(named) or ', '.join(COMPILERS)}) was found")


def _private_folder() -> Path:
    """The folder in the user's cache that holds what is loaded as code: nobody else may write there."""
    if sys.platform == "win32":
        raise UnavailableError("they are not built on Windows")
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or home) / "tqt-onnx" / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UnavailableError(f"{folder} must be a folder of this user that nobody else may write to")
    return folder


def _key(compiler: list[str]) -> str:
    """What the library depends on: source, TensorFlow, compiler, and what the compiler makes of this processor."""
    asked = [*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    macros = subprocess.run(asked, capture_output=True, check=True, timeout=_SECONDS).stdout
    parts = [SOURCE.read_bytes(), macros, *(part.encode() for part in (*FLAGS, *_tensorflow_flags(), tf.version.GIT_VERSION))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


def _tensorflow_flags() -> list[str]:
    return [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]


def _build(compiler: list[str], library: Path) -> None:
    """Compiles beside the final name and renames: processes that build at once do not see each other's halves."""
    logger.info("building native operators with %s, once (%s)", shlex.join(compiler), library)
    handle, name = tempfile.mkstemp(dir=library.parent, suffix=".so")
    os.close(handle)
    half = Path(name)
    try:
        command = [*compiler, *FLAGS, "-o", name, str(SOURCE), *_tensorflow_flags()]
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS, text=True, errors="replace")
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [f"status {done.returncode}"]
            raise UnavailableError(f"{shlex.join(compiler)} failed: {errors[0]}")
        half.chmod(0o700)
        half.replace(library)
    finally:
        half.unlink(missing_ok=True)
