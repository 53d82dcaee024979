"""TFRecord files as slim's scripts write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def example(image: bytes | None, label: int | Sequence[int] | None, /, **more: Any) -> bytes:
    """A record as slim's scripts write it."""
    import tensorflow as tf

    def feature(value: Any) -> Any:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value] * 3))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value] if isinstance(value, int) else list(value)))

    found: dict[str, Any] = {"image/object/bbox/xmin": 0.5, "image/format": b"PNG", "image/height": 4, "image/filename": b"f.png"}
    found |= {} if image is None else {"image/encoded": image}
    found |= {} if label is None else {"image/class/label": label}
    entries = {name: feature(value) for name, value in (found | more).items()}
    content: bytes = tf.train.Example(features=tf.train.Features(feature=entries)).SerializeToString()
    return content


def write(path: Path, records: Sequence[bytes], options: str | None = None) -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return path
