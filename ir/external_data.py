"""Tensors whose data lie in another file: read only inside the model's own folder, and only as much as is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx

from .errors import ModelError, UnsupportedError

LARGEST: Final = 2**31 - 1
"""Bytes of the largest model in one piece: what protobuf serializes, for the checker and for saving."""


def take_in(tensor: onnx.TensorProto, file: Path) -> None:
    """Replaces a reference to a file by what is there.

    Raises:
        ModelError: what is named is no file inside the model's folder, or not of exactly the size that is needed.
        UnsupportedError: more than 2 GB.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = file.parent.resolve()
    where = f"{file}: tensor {tensor.name!r} has its data in {location!r}"
    try:
        target = (folder / location).resolve()
        inside = bool(location) and target.is_relative_to(folder) and target.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, holds a zero byte, or a circle of links
        inside = False
    if not inside:
        raise ModelError(f"{where}, which is no file inside {file.parent}")
    needed = _size(tensor, where)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError:
        raise ModelError(f"{where}: offset and length must be whole numbers") from None
    size = target.stat().st_size
    if length != needed or offset < 0 or offset + needed > size:
        raise ModelError(f"{where}: {needed} bytes are expected there. Received: {length} bytes from {offset} of {size}")
    try:
        with target.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(needed)
    except OSError as error:
        raise ModelError(f"{where}, which cannot be read: {error.strerror or error}") from None
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _size(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes of a tensor, from its shape and type."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{where}: a known element type is expected. Received: {tensor.data_type}") from None
    bits = 4 if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else dtype.itemsize * 8
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(f"{where}: a shape without negative numbers is expected. Received: {list(tensor.dims)}")
        count *= dim
    size = (count * bits + 7) // 8
    if size > LARGEST:
        raise UnsupportedError(f"{where}: at most {LARGEST} bytes are expected. Received: {size}")
    return size
