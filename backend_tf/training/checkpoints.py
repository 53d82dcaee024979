"""Checkpoints of a whole training: written so that after a `kill -9` at any moment the one before can be used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from ...ir import DataError, UsageError, atomic_path
from ..model import RegeneratedModel
from .state import TrainingState

logger = logging.getLogger(__name__)

FORMAT: Final = 1
SECONDS: Final = 60.0
"""Time between two checkpoints where no number of steps is given."""

UNREADABLE: Final = (tf.errors.OpError, AssertionError, ValueError, LookupError, RuntimeError)
"""What TensorFlow raises for a checkpoint that is damaged."""

_FOLDER: Final = "checkpoints"
_PREFIX: Final = "step"
_LATEST: Final = "latest.json"
_HASH: Final = re.compile("[0-9a-f]{64}")

OWN: Final = frozenset({_FOLDER, "log.csv", "thresholds.csv", "validation.csv", "frozen.csv", "tensorboard"})
"""What lies in the folder of a training: checkpoints, and the files of `TrainingLog`."""


class Checkpoints:
    """The checkpoints in one folder.

    TensorFlow writes the files of a checkpoint, they are flushed to the disk, and last of all the small file that names the
    newest is replaced; the one before stays. Nothing of a checkpoint is run: it holds tensors and one JSON text.

    Args:
        state: what is saved.
        folder: of the training; checkpoints lie in a folder of their own inside.
        identity: what makes a training this one and no other, by the name a message has for it; JSON.
        every: steps between two, or None for one every `SECONDS`.
        writes: whether this process writes.
    """

    def __init__(
        self, state: TrainingState, folder: Path, identity: Mapping[str, Any], every: int | None, writes: bool = True
    ) -> None:
        self._state, self._every, self._writes = state, every, writes
        self._folder = folder / _FOLDER
        self._identity = tf.Variable(json.dumps({"format": FORMAT, **identity}), trainable=False)
        checkpoint = tf.train.Checkpoint(identity=self._identity, **state.tracked())
        self._checkpoint = checkpoint
        if writes:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{folder}: a folder that can be written is expected: {error.strerror}") from error
        self._written: list[str] = []
        self._record = ""
        self._at = time.monotonic()

    def restore(self) -> bool:
        """Goes on from the newest checkpoint that can be read.

        Returns:
            Whether there was one.

        Raises:
            UsageError: it belongs to another model, schedule, seed, mode or data.
            DataError: there are checkpoints, but none can be read.
        """
        known = self._known()
        for path in map(str, known):
            try:
                reader = tf.train.load_checkpoint(path)
                identity = json.loads(reader.get_tensor("identity/.ATTRIBUTES/VARIABLE_VALUE").decode())
            except UNREADABLE as error:
                logger.warning("%s cannot be read, the one before is tried: %s", path, str(error).splitlines()[0])
                continue
            self._check(identity, path)
            try:
                self._checkpoint.read(path).assert_consumed()
            except UNREADABLE as error:
                logger.warning("%s is damaged, the one before is tried: %s", path, str(error).splitlines()[0])
                continue
            self._state.unpack()
            self._written, self._record = [Path(path).name], self._state.facts.to_json()
            return True
        if known:
            raise DataError(
                f"{self._folder}: none of the checkpoints can be read. Received: {', '.join(path.name for path in known)}"
            )
        return False

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        step = self._state.facts.step
        return time.monotonic() - self._at >= SECONDS if self._every is None else step % self._every == 0

    def save(self) -> None:
        """Writes a checkpoint of the present step, unless there is one; on a disk that is full the one before has to do."""
        name, record = f"{_PREFIX}-{self._state.facts.step}", self._state.facts.to_json()
        self._at = time.monotonic()
        if not self._writes or (self._written[:1] == [name] and self._record == record):
            return
        names = [name, *(before for before in self._written[:1] if before != name)]
        try:
            self._write(names)
        except (tf.errors.OpError, OSError, UsageError) as error:
            self._remove_all_but(self._written)
            kept = f"the one of {self._written[0]} stays" if self._written else "there is none yet"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            logger.warning("%s: no checkpoint could be written, %s: %s", self._folder / name, kept, reason)
            return
        self._written, self._record = names, record
        self._remove_all_but(names)

    def _write(self, names: list[str]) -> None:
        """Writes the first of these, and the file that names them."""
        self._state.pack()
        self._checkpoint.write(str(self._folder / names[0]))
        for file in self._folder.glob(f"{names[0]}.*"):
            _flush(file)
        with atomic_path(self._folder / _LATEST, force=True) as path:
            path.write_text(json.dumps(names), encoding="utf-8")
            _flush(path)
        _flush(self._folder)

    def _known(self) -> list[Path]:
        """Checkpoints that were written to the end, the newest first."""
        path = self._folder / _LATEST
        if not path.is_file():
            return []
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
            return [self._folder / name for name in names if name == Path(name).name]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: a JSON list of checkpoints is expected. Received: {error}") from error

    def _remove_all_but(self, names: list[str]) -> None:
        """Removes older checkpoints and what a killed process left half written."""
        for path in (*self._folder.glob(f"{_PREFIX}-*"), *self._folder.glob(f".{_LATEST}.*.part")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.split(".")[0] not in names:
                path.unlink(missing_ok=True)

    def _check(self, found: Mapping[str, Any], path: str) -> None:
        own = json.loads(self._identity.numpy().decode())
        for what, value in own.items():
            if found.get(what) != value:
                raise UsageError(
                    f"{path}: the checkpoint belongs to another {what}; go on with what it was begun with, begin anew (--restart), "
                    "or give another folder. "
                    f"Received: {_difference(found.get(what), value)}"
                )


def forget_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a training from its folder, where there are any, so that it begins anew; nothing else."""
    inside = folder / _FOLDER
    for path in [*inside.iterdir()] if inside.is_dir() else []:
        if _is_ours(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or something else is in it
        inside.rmdir()


def check_folder(folder: Path) -> None:
    """Refuses to mix a training's files with others.

    Raises:
        UsageError: the folder holds something, but no training.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    inside = [path.name for path in (folder / _FOLDER).iterdir()] if (folder / _FOLDER).is_dir() else []
    if set(names) <= OWN and all(map(_is_ours, inside)):
        return
    if _LATEST not in inside or not any(name.startswith(f"{_PREFIX}-") for name in inside):
        raise UsageError(
            f"{folder}: a folder that is new, empty, or holds a training already is expected. Received: one with {names[0]}"
        )


def _is_ours(name: str) -> bool:
    """Whether a file in the folder of checkpoints has a name that `Checkpoints` gives."""
    return name == _LATEST or name.startswith((f"{_PREFIX}-", f".{_LATEST}."))


def model_fingerprint(model: RegeneratedModel) -> str:
    """A hash of the graph, its quantizers, and all variables as they are."""
    config = model.get_config()
    digest = hashlib.sha256(json.dumps([config[key] for key in ("graph", "quantizers", "batch_norms")]).encode())
    for variable in model.variables:
        digest.update(f"{variable.name} {variable.shape}".encode() + np.ascontiguousarray(variable.value.numpy()).tobytes())
    return digest.hexdigest()


def _difference(found: object, expected: object) -> str:
    """What differs, short: of two records their differing entries."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
        return ", ".join(f"{name} {_shortly(expected.get(name))} instead of {_shortly(found.get(name))}" for name in names)
    return f"{_shortly(expected)} instead of {_shortly(found)}"


def _shortly(value: object) -> str:
    """A word, a number, the beginning of a hash, or a record of them."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shortly(entry)}" for name, entry in value.items())
    if isinstance(value, str):
        return value[:12] if _HASH.fullmatch(value) else value
    return "none" if value is None else str(value)


def _flush(path: Path) -> None:
    """Makes the system write a file, or the entries of a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
