"""Images and labels in TFRecord files of `tf.train.Example`, in the layout of TensorFlow's slim (and that of TFDS).

    image/encoded       JPEG or PNG                           (TFDS: image)
    image/class/label   int64, passed on as it is             (TFDS: label)

Labels mean what the files' maker meant: slim's ImageNet counts from 1, 0 being "background"; its flowers and CIFAR-10 count from 0.

The message is described to the protobuf library here, so that TensorFlow need not be loaded; only the fields used are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
)

from ..ir import DataError
from .listing import Listing
from .records import Records, index

Integers = npt.NDArray[np.int64]

_IMAGE: Final = ("image/encoded", "image")
_LABEL: Final = ("image/class/label", "label")
_SHARD: Final = re.compile(r"(?P<set>.+)-\d{5}-of-(?P<count>\d{5})(\..*)?")
_COUNTER: Final = re.compile(r"[-_.]?\d+$")
_SUFFIXES: Final = frozenset({".tfrecord", ".tfrecords", ".record"})

# `tf.train.Example` as on the wire: a map is a repeated pair, a oneof three optional fields. Floats are passed over.
_SCHEMA: Final = """
name: "example.proto" package: "example" syntax: "proto2"
message_type { name: "Bytes" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Int64" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 options { packed: true } } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".example.Bytes" }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".example.Int64" } }
message_type { name: "Pair"
  field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".example.Feature" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".example.Pair" } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".example.Features" } }
"""


def list_records(files: Sequence[Path]) -> Listing:
    """The images of TFRecord files.

    Labels are read with their batch; whether there are any is told by the first record.

    Raises:
        DataError: as `index`, or the first record is no Example with an image.
    """
    records = index(files)

    def load(row: int) -> bytes:
        return _image(records, row, features(records, row))

    first = features(records, 0)
    _image(records, 0, first)
    labelled = _find(first, _LABEL) is not None
    return Listing(RecordNames(records), load, RecordLabels(records) if labelled else None)


def shards(folder: Path) -> list[Path]:
    """The TFRecord files of a folder by name (`NAME-00000-of-00128`, `.tfrecord`, `.tfrecords`, `.record`), sorted; often none.

    Raises:
        DataError: several sets (training and validation, say) side by side, or shards that are missing.
    """
    found = sorted(path for path in folder.iterdir() if _is_record_name(path.name) and path.is_file())
    matches = [_SHARD.fullmatch(path.name) for path in found]
    sets = sorted({match["set"] if match else _COUNTER.sub("", path.stem) for path, match in zip(found, matches, strict=True)})
    pattern = repr(str(folder / f"{sets[0]}*")) if sets else ""
    if len(sets) > 1:
        raise DataError(
            f"{folder}: holds several sets of TFRecord files; a pattern is expected, such as {pattern}. Received: {', '.join(sets)}"
        )
    counts = {int(match["count"]) if match else len(found) for match in matches}
    if counts - {len(found)}:  # an accuracy over half of a set would pass for that of the set
        raise DataError(
            f"{folder}: {' or '.join(str(count) for count in sorted(counts))} files of {sets[0]!r} are expected by their names; "
            f"a pattern ({pattern}) takes those that are there. Received: {len(found)}"
        )
    return found


def features(records: Records, row: int, *, check: bool = True) -> dict[str, Any]:
    """Features of a record by name.

    Raises:
        DataError: unreadable, damaged, or no `tf.train.Example`.
    """
    example = _example_class()()
    data = records.read(row, check=check)
    try:
        example.ParseFromString(data)
    except message.DecodeError:
        path, number = records.place(row)
        raise DataError(f"{path}: record {number} is no tf.train.Example; one with {_IMAGE[0]!r} is expected") from None
    return {pair.key.decode("utf-8", "replace"): pair.value for pair in example.features.feature}


@dataclass(frozen=True, eq=False)
class RecordLabels:
    """Labels that are read when they are asked for."""

    records: Records

    def __getitem__(self, rows: Integers, /) -> Integers:
        """Labels int64 [n] of these rows.

        Raises:
            DataError: a record without exactly one label, or with a negative one.
        """
        return np.array([self._label(row) for row in rows.tolist()], np.int64)

    def _label(self, row: int) -> int:
        found = _find(features(self.records, row, check=False), _LABEL)  # its image has just been read and checked
        values = [] if found is None else list(found.int64_list.value)
        if len(values) != 1 or values[0] < 0:
            path, number = self.records.place(row)
            raise DataError(
                f"{path}: record {number} must hold one label ({' or '.join(_LABEL)}), not negative. Received: {values or 'none'}"
            )
        return int(values[0])


@dataclass(frozen=True, eq=False)
class RecordNames(Sequence[str]):
    """Names of records, made when they are asked for."""

    records: Records

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self.records.name(i) for i in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.records.name(row)


def _image(records: Records, row: int, found: dict[str, Any]) -> bytes:
    feature = _find(found, _IMAGE)
    values = [] if feature is None else list(feature.bytes_list.value)
    if len(values) != 1:
        path, number = records.place(row)
        raise DataError(
            f"{path}: record {number} must hold one encoded image ({' or '.join(_IMAGE)}). "
            f"Received: features {', '.join(sorted(found)[:12]) or 'none'}"
        )
    return bytes(values[0])


def _find(found: dict[str, Any], names: Sequence[str]) -> Any:
    return next((found[name] for name in names if name in found), None)


def _is_record_name(name: str) -> bool:
    return not name.startswith(".") and (Path(name).suffix.lower() in _SUFFIXES or _SHARD.fullmatch(name) is not None)


@cache
def _example_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("example.Example"))
