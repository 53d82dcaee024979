"""Event files that TensorBoard reads, written by TensorFlow itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from ...ir import atomic_path

_FLUSH_MILLISECONDS: Final = 10_000
_QUEUE: Final = 10_000  # events until a write in between: a step may log hundreds of thresholds


class EventFiles:
    """Scalars and texts by step, in a folder of event files; a sitting that logs anything adds one.

    Args:
        folder: for TensorBoard's `--logdir`; made when needed.
        after: what earlier sittings logged for later steps is cut; None begins anew.
    """

    def __init__(self, folder: Path, after: int | None) -> None:
        self._folder = folder
        self._writer: Any = None
        for path in sorted(folder.glob("events.out.tfevents.*")) if folder.is_dir() else ():
            if after is None:
                path.unlink()
            else:
                _cut(path, after)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._write("scalars", tag, tf.constant(value, tf.float32), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """A note."""
        self._write("text", tag, tf.constant(text), step)

    def flush(self) -> None:
        """Puts everything on the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, plugin: str, tag: str, value: tf.Tensor, step: int) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder), max_queue=_QUEUE, flush_millis=_FLUSH_MILLISECONDS)
        # tf.summary.scalar needs the tensorboard package; what it writes is this.
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = plugin
        with self._writer.as_default():
            tf.summary.write(tag, value, step=step, metadata=metadata)


def _cut(path: Path, after: int) -> None:
    """Keeps the events up to this step; what was cut off when the training was killed goes too."""
    kept: list[bytes] = []
    whole = True
    try:
        for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
            if tf.compat.v1.Event.FromString(record).step <= after:
                kept.append(record)
            else:
                whole = False
    except tf.errors.DataLossError:
        whole = False
    if whole:
        return
    with atomic_path(path, force=True) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in kept:
            writer.write(record)
