"""Checkpoints: finding the one that is meant, and reading arrays out of it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import ModelError
from ..quiet import quiet

_STATE: Final = "checkpoint"
_PART: Final = re.compile(r"\.(index|meta|data-\d+-of-(\d+))$")
OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def checkpoint_at(path: Path) -> Path:
    """The prefix that a user's path means: a prefix itself, one of its files, or a folder with a `checkpoint` file.

    Raises:
        ModelError: no checkpoint there.
    """
    if _exists(path):
        return path
    if path.is_dir():
        found = newest_checkpoint(path)
        if found is None:
            raise ModelError(f"{path}: holds no checkpoint; a folder with a 'checkpoint' file or a single .index file is expected")
        return found
    plain = path.with_name(_PART.sub("", path.name))
    if path.name == _STATE and path.is_file():
        found = newest_checkpoint(path.parent)
        if found is not None:
            return found
    if plain == path or not _exists(plain):
        raise ModelError(
            f"{path}: no such checkpoint; its prefix (a.ckpt for a.ckpt.index), one of its files or its folder is expected. "
            f"Received: {'no file' if not path.exists() else 'a file'} of that name and no {plain.name}.index"
        )
    return plain


def newest_checkpoint(folder: Path) -> Path | None:
    """What the `checkpoint` file in a folder names, else the folder's only checkpoint, else None.

    Such a file holds the path its writer used, perhaps on another machine; only the folder itself is looked into.

    Raises:
        ModelError: the file names a checkpoint that is not in the folder.
    """
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index") if path.is_file())
    if not (folder / _STATE).is_file():
        return prefixes[0] if len(prefixes) == 1 else None
    with quiet():
        state = tf.train.get_checkpoint_state(str(folder))
    if state is None or not state.model_checkpoint_path:
        raise ModelError(f"{folder / _STATE}: cannot be read; the text file that TensorFlow writes beside checkpoints is expected")
    written = state.model_checkpoint_path.replace("\\", "/")
    name = PurePosixPath(written).name
    if not _exists(folder / name):
        there = ", ".join(prefix.name for prefix in prefixes) or "none"
        raise ModelError(
            f"{folder / _STATE}: names a checkpoint {name!r} that is not in its folder; give the checkpoint. Received: {there}"
        )
    return folder / name


def _exists(prefix: Path) -> bool:
    """Of format 2 (`prefix.index`), or the single file of format 1."""
    if prefix.with_name(f"{prefix.name}.index").is_file():
        return True
    return prefix.is_file() and prefix.name != _STATE and not _PART.search(prefix.name)


class Checkpoint:
    """Arrays by name, read when asked for."""

    def __init__(self, prefix: Path) -> None:
        """Opens it.

        Raises:
            ModelError: not a checkpoint, truncated, or one of its shards is missing.
        """
        self.prefix = prefix
        _check_shards(prefix)
        try:
            with quiet():
                self._reader: Any = tf.compat.v1.train.NewCheckpointReader(str(prefix))
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


def _check_shards(prefix: Path) -> None:
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        if not prefix.is_file():
            raise ModelError(f"{prefix}: missing {index.name}; a complete checkpoint is expected")
        return
    there = {path.name for path in prefix.parent.iterdir() if path.name.startswith(f"{prefix.name}.data-")}
    counts = {int(match[2]) for name in there if (match := _PART.search(name)) and match[2]} or {1}
    expected = [[f"{prefix.name}.data-{shard:05}-of-{count:05}" for shard in range(count)] for count in sorted(counts)]
    if not any(there.issuperset(names) for names in expected):
        missing = next(name for names in expected for name in names if name not in there)
        raise ModelError(
            f"{prefix}: missing shard {missing}; a complete checkpoint is expected. Received: {sorted(there) or 'none'}"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
