"""The folder of a training, checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..ir import UsageError


def training_folder(path: str | os.PathLike[str]) -> Path:
    """A folder for a training: one that need not be there yet, is empty, or holds a training.

    Raises:
        UsageError: it holds something else, or cannot be made or written.
    """
    from ..frontend_tf.quiet import quiet

    with quiet():
        from ..backend_tf.training import check_folder
    folder = writable_folder(path)
    check_folder(folder)
    return folder


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """A folder that need not be there yet; nothing is made or left in it.

    Raises:
        UsageError: it cannot be made or written.
    """
    folder = Path(path)
    there = next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), Path())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: a folder that can be written is expected. Received: {there}: {error.strerror}") from None
    return folder
