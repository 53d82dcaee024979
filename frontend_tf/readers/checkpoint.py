"""Checkpoints: finding the one that is meant, and reading arrays out of it.

A prefix is a text, not a path: `saver.save(session, "folder/")` writes `folder/.index`, whose prefix is `folder/`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import ModelError
from ..quiet import quiet

logger = logging.getLogger(__name__)

_STATE: Final = "checkpoint"
_PART: Final = re.compile(r"\.(index|meta|data-\d+-of-(\d+))$")
OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def part(prefix: str, suffix: str) -> Path:
    """One file of a checkpoint: its prefix and `.index`, `.meta` or the like."""
    return Path(prefix + suffix)


def checkpoint_at(path: Path) -> str:
    """The prefix that a user's path means: a prefix itself, one of its files, or a folder with a `checkpoint` file.

    Raises:
        ModelError: no checkpoint there.
    """
    if _exists(str(path)):
        return str(path)
    if path.is_dir():
        found = newest_checkpoint(path)
        if found is None:
            raise ModelError(f"{path}: holds no checkpoint; a folder with a 'checkpoint' file or a single .index file is expected")
        return found
    plain = _PART.sub("", str(path))
    if path.name == _STATE and path.is_file():
        found = newest_checkpoint(path.parent)
        if found is not None:
            return found
    if plain == str(path) or not _exists(plain):
        raise ModelError(
            f"{path}: no such checkpoint; its prefix (a.ckpt for a.ckpt.index), one of its files or its folder is expected. "
            f"Received: {'no file' if not path.exists() else 'a file'} of that name and no {part(plain, '.index').name}"
        )
    return plain


def newest_checkpoint(folder: Path) -> str | None:
    """What the `checkpoint` file in a folder names, else the folder's only checkpoint, else None.

    Such a file holds the path its writer used, perhaps on another machine; only the folder itself is looked into, and its
    only checkpoint is taken for the one that is named, renamed since.

    Raises:
        ModelError: the file names a checkpoint that is not in the folder, and there is not just one.
    """
    prefixes = sorted(str(path).removesuffix(".index") for path in folder.iterdir() if path.name.endswith(".index"))
    only = prefixes[0] if len(prefixes) == 1 else None
    if not (folder / _STATE).is_file():
        return only
    with quiet():
        state = tf.train.get_checkpoint_state(str(folder))
    if state is None or not state.model_checkpoint_path:
        raise ModelError(f"{folder / _STATE}: cannot be read; the text file that TensorFlow writes beside checkpoints is expected")
    name = PurePosixPath(state.model_checkpoint_path.replace("\\", "/")).name
    if _exists(str(folder / name)):
        return str(folder / name)
    if only is not None:
        logger.warning("%s: names %r, which is not there; the only checkpoint of its folder is taken", folder / _STATE, name)
        return only
    there = ", ".join(part(prefix, ".index").name.removesuffix(".index") or ".index" for prefix in prefixes) or "none"
    raise ModelError(
        f"{folder / _STATE}: names a checkpoint {name!r} that is not in its folder; give the checkpoint. Received: {there}"
    )


def _exists(prefix: str) -> bool:
    """Of format 2 (`prefix.index`), or the single file of format 1."""
    if part(prefix, ".index").is_file():
        return True
    return Path(prefix).is_file() and Path(prefix).name != _STATE and not _PART.search(prefix)


class Checkpoint:
    """Arrays by name, read when asked for."""

    def __init__(self, prefix: str) -> None:
        """Opens it.

        Raises:
            ModelError: not a checkpoint, truncated, or one of its shards is missing.
        """
        self.prefix = prefix
        _check_shards(prefix)
        try:
            with quiet():
                self._reader: Any = tf.compat.v1.train.NewCheckpointReader(prefix)
                self._shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()
        except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
            raise ModelError(f"{prefix}: is not a complete checkpoint. Received: {_line(error)}") from None

    def __contains__(self, key: str) -> bool:
        return key in self._shapes

    @property
    def is_object_based(self) -> bool:
        """Whether TensorFlow 2 wrote it from objects: weights by attribute paths, without a graph."""
        return OBJECT_GRAPH in self._shapes

    def array(self, key: str) -> npt.NDArray[Any]:
        """One array.

        Raises:
            ModelError: its bytes are not there or do not match their checksum.
        """
        try:
            with quiet():
                value = self._reader.get_tensor(key)
        except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
            raise ModelError(f"{self.prefix}: variable {key!r} cannot be read. Received: {_line(error)}") from None
        return np.asarray(value, object if isinstance(value, bytes) else None)


def _check_shards(prefix: str) -> None:
    index = part(prefix, ".index")
    if not index.is_file():
        if not Path(prefix).is_file():
            raise ModelError(f"{prefix}: missing {index.name}; a complete checkpoint is expected")
        return
    start = index.name.removesuffix(".index") + ".data-"
    there = {path.name for path in index.parent.iterdir() if path.name.startswith(start)}
    counts = {int(match[2]) for name in there if (match := _PART.search(name)) and match[2]} or {1}
    expected = [[f"{start}{shard:05}-of-{count:05}" for shard in range(count)] for count in sorted(counts)]
    if not any(there.issuperset(names) for names in expected):
        missing = next(name for names in expected for name in names if name not in there)
        raise ModelError(
            f"{prefix}: missing shard {missing}; a complete checkpoint is expected. Received: {sorted(there) or 'none'}"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
