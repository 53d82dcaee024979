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
from collections.abc import Iterable
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
    stem = f"epilogue-{_key(compiler)}"
    library = _kept(folder, stem)
    if library is not None:
        try:
            return tf.load_op_library(str(library))
        except (OSError, tf.errors.OpError) as error:  # it may have been linked with what is no longer there
            logger.info("%s cannot be loaded and is built anew: %s", library, error)
            library.unlink(missing_ok=True)
    return tf.load_op_library(str(_build(compiler, folder, stem)))


def _kept(folder: Path, stem: str) -> Path | None:
    """The library that was built before, if it is whole: what was cut off would not be refused but crash the process."""
    for library in sorted(folder.glob(f"{stem}-*.so")):
        if library.stem == f"{stem}-{_digest([library.read_bytes()])}":
            return library
        logger.info("%s is damaged and is built anew", library)
        library.unlink(missing_ok=True)
    return None


def _compiler() -> list[str]:
    """The command of the C++ compiler: that of `CXX`, or the first known one on the path."""
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise UnavailableError(f"CXX cannot be read ({error}): {os.environ['CXX']}") from None
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise UnavailableError(f"no C++ compiler ({shlex.join(named) or ', '.join(COMPILERS)}) was found")


def _private_folder() -> Path:
    """The folder in the user's cache that holds what is loaded as code: nobody else may write there."""
    if sys.platform == "win32":
        raise UnavailableError("they are not built on Windows")
    folder = _user_cache() / "tqt-onnx" / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UnavailableError(f"{folder} must be a folder of this user that nobody else may write to")
    return folder


def _user_cache() -> Path:
    """`XDG_CACHE_HOME` where that is absolute, as its specification asks for; else the custom of the system."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise UnavailableError("there is no home folder; an absolute XDG_CACHE_HOME can name another place for them")
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _key(compiler: list[str]) -> str:
    """What the library depends on: source, TensorFlow, compiler, and what the compiler makes of this processor."""
    asked = [*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    macros = subprocess.run(asked, capture_output=True, check=True, timeout=_SECONDS).stdout
    named = [*FLAGS, *_tensorflow_flags(), tf.version.GIT_VERSION]
    return _digest([SOURCE.read_bytes(), macros, *(part.encode() for part in named)])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


def _tensorflow_flags() -> list[str]:
    return [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]


def _build(compiler: list[str], folder: Path, stem: str) -> Path:
    """Compiles beside the final name, which ends in a digest of the library, and renames.

    So processes that build at once do not see each other's halves, and what a crash of the machine left is told from a library.
    """
    logger.info("building native operators with %s, once (in %s)", shlex.join(compiler), folder)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".so")
    os.close(handle)
    half = Path(name)
    try:
        command = [*compiler, *FLAGS, "-o", name, str(SOURCE), *_tensorflow_flags()]
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS, text=True, errors="replace")
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [f"status {done.returncode}"]
            raise UnavailableError(f"{shlex.join(compiler)} failed: {errors[0]}")
        half.chmod(0o700)
        with half.open("rb+") as written:
            os.fsync(written.fileno())
        return half.replace(folder / f"{stem}-{_digest([half.read_bytes()])}.so")
    finally:
        half.unlink(missing_ok=True)
