"""The folder that `export` writes: it takes its name when everything is in it, and replaces only what an export wrote."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..ir import UsageError

MANIFEST: Final = "export.json"


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses a folder that is in the way, before any work is done.

    Raises:
        UsageError: it exists and `force` is not given; or it holds something that `export` did not write; or it cannot be written.
    """
    try:
        _check_place(folder, force=force)
        with tempfile.NamedTemporaryFile(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


def _check_place(folder: Path, *, force: bool) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: exists and is no folder; the name of a folder to write is expected")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: its folder {folder.absolute().parent} does not exist")
    here = Path.cwd()
    if folder.resolve() in (here, *here.parents):
        raise UsageError(f"{folder}: is the current folder, or holds it; the name of a folder to write is expected")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"{folder}: exists; give another name, or --force to replace it")
        if not _is_ours(folder):
            raise UsageError(f"{folder}: holds something that no export wrote, so it is not replaced; give another name")


def check_inputs(folder: Path, *inputs: object) -> None:
    """Refuses a folder that holds what is read: it would be gone with the folder that is replaced.

    Raises:
        UsageError: naming the input; what is no path is passed over.
    """
    for item in inputs:
        if isinstance(item, (str, os.PathLike)) and Path(item).resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{folder}: holds the input {os.fspath(item)}; the name of another folder is expected")


def _is_ours(folder: Path) -> bool:
    """Whether an export wrote the folder, and nothing was put beside its files since."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {entry["path"] for entry in manifest["files"]} | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    there = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in there} <= listed


@contextmanager
def atomic_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well and vanishes when it does not.

    Raises:
        UsageError: as `check_folder`.
    """
    check_folder(folder, force=force)
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".part"))
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        try:
            yield temporary
            check_folder(folder, force=force)  # somebody may have written there meanwhile
            _take_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _take_place(temporary: Path, folder: Path) -> None:
    """Renames `temporary` to `folder`; what was there is put aside first, and put back where that fails."""
    aside = temporary.with_suffix(".old")
    try:
        if folder.is_dir():
            folder.rename(aside)
        temporary.rename(folder)
    finally:
        if aside.is_dir() and not folder.is_dir():
            aside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
