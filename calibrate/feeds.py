"""The calibration data on its way in: checked, and cut into batches of bounded size (C5, Q6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import DataError, name_of, static_shape

Feed = Mapping[str, npt.NDArray[Any]]
Batches = Callable[[], Iterable[Feed]]


def checked_feeds(inputs: list[onnx_ir.Value], batches: Batches, rows: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The feeds of one pass over the data, each of at most `rows` images where the batch dimension is dynamic.

    Args:
        inputs: graph inputs.
        batches: gives a fresh iterator of `{input name: array}`.
        rows: upper bound of the leading dimension.

    Raises:
        DataError: no data, a wrong input name, rank, dimension or dtype, a NaN or an infinity.
    """
    names = [name_of(value) for value in inputs]
    count = 0
    for index, feed in enumerate(batches()):
        if not isinstance(feed, Mapping) or set(feed) != set(names):
            found = ", ".join(map(repr, feed)) if isinstance(feed, Mapping) else type(feed).__name__
            raise DataError(f"calibration batch {index}: the inputs {', '.join(map(repr, names))} are expected. Received: {found}")
        arrays = {name_of(value): _checked(value, feed[name_of(value)], index) for value in inputs}
        for part in _split(inputs, arrays, rows, index):
            count += 1
            yield part
    if count == 0:
        raise DataError("the calibration data are empty; at least one batch is expected")


def _checked(value: onnx_ir.Value, array: Any, index: int) -> npt.NDArray[Any]:
    where = f"calibration batch {index}, input {value.name!r}"
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: a NumPy array is expected. Received: {type(array).__name__}")
    if value.dtype is not None and array.dtype != value.dtype.numpy():
        raise DataError(f"{where}: dtype {value.dtype.numpy()} is expected. Received: {array.dtype}")
    shape = static_shape(value)
    if shape is not None and (
        array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True))
    ):
        wanted = ",".join("N" if dim is None else str(dim) for dim in shape)
        raise DataError(f"{where}: shape [{wanted}] is expected. Received: {list(array.shape)}")
    if array.size == 0:
        raise DataError(f"{where}: at least one element is expected. Received: shape {list(array.shape)}")
    if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):  # Q6
        raise DataError(f"{where}: finite numbers are expected. Received: NaN or infinity")
    return array


def _split(
    inputs: list[onnx_ir.Value], arrays: dict[str, npt.NDArray[Any]], rows: int, index: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Slices along the leading dimension; feeds are left whole where that dimension of some input is fixed."""
    if not all((shape := static_shape(value)) and shape[0] is None for value in inputs):
        yield arrays
        return
    lengths = {array.shape[0] for array in arrays.values()}
    if len(lengths) != 1:
        found = ", ".join(f"{name!r}: {array.shape[0]}" for name, array in arrays.items())
        raise DataError(f"calibration batch {index}: all inputs need the same number of images. Received: {found}")
    for start in range(0, lengths.pop(), rows):
        yield {name: array[start : start + rows] for name, array in arrays.items()}
