"""Tensor by tensor, integer by integer: `==` and nothing else. Floats behind islands have their own function (X6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import DataError
from .fixed_tensor import FixedPoint
from .oracle_ops import Operand

ABSOLUTE_TOLERANCE: Final = 1e-6
RELATIVE_TOLERANCE: Final = 1e-4
"""Float tails: float32 in the engine against float64 here; exponentials of logits up to 128 lose about 2^-17."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor on which an engine and the oracle disagree.

    Attributes:
        engine: name of the engine.
        tensor: name of the integer tensor, or of the graph output.
        count: how many numbers differ.
        total: how many were compared.
        first_index: index of the first that differs, over all images compared.
        expected: the oracle's integer there.
        received: the engine's number there, in units of the tensor's scale: an int unless it is off the grid.
    """

    engine: str
    tensor: str
    count: int
    total: int
    first_index: tuple[int, ...]
    expected: int
    received: int | float


@dataclass(frozen=True, slots=True)
class FloatComparison:
    """A float tensor behind an island.

    Attributes:
        engine: name of the engine.
        tensor: its name.
        total: how many numbers were compared.
        largest: the largest `|received - expected| / (absolute + relative * |expected|)`: within tolerance up to 1.
        largest_error: the largest `|received - expected|`.
        promised: False where a layer without certificate influences the tensor.
    """

    engine: str
    tensor: str
    total: int
    largest: float
    largest_error: float
    promised: bool = True

    @property
    def ok(self) -> bool:
        """Whether every number is within tolerance."""
        return self.largest <= 1.0


def compare(
    oracle_tensors: Mapping[str, Operand], engine_tensors: Mapping[str, npt.NDArray[Any]], engine: str, *, offset: int = 0
) -> list[Difference]:
    """Differences of all tensors that both have and that are fixed point, in the oracle's (topological) order.

    An integer array is compared as it is. A float array (a graph output) is first put on the tensor's grid, exactly.

    Args:
        oracle_tensors: what `Oracle.run` returns.
        engine_tensors: name -> array.
        engine: name for the report.
        offset: number of images compared before, added to the first index.

    Raises:
        DataError: a tensor has another shape than in the oracle.
    """
    differences = []
    for name, expected in oracle_tensors.items():
        if name not in engine_tensors or not isinstance(expected, FixedPoint):
            continue
        received = engine_tensors[name]
        _check_shape(engine, name, expected.integers, received)
        if received.dtype.kind == "f":
            received = np.ldexp(received.astype(np.float64), -expected.exponent)
        wrong = np.asarray(received != expected.integers)
        if wrong.any():
            flat = int(wrong.argmax())
            index = tuple(int(i) for i in np.unravel_index(flat, wrong.shape))
            number = received.reshape(-1)[flat].item()
            differences.append(
                Difference(
                    engine=engine,
                    tensor=name,
                    count=int(wrong.sum()),
                    total=wrong.size,
                    first_index=(index[0] + offset, *index[1:]) if index else index,
                    expected=int(expected.integers.reshape(-1)[flat]),
                    received=int(number) if math.isfinite(number) and number == int(number) else number,
                )
            )
    return differences


def compare_floats(
    oracle_tensors: Mapping[str, Operand], engine_tensors: Mapping[str, npt.NDArray[Any]], engine: str
) -> list[FloatComparison]:
    """Float tensors behind islands (a softmax), with tolerance; everything fixed point is left to `compare`.

    Raises:
        DataError: a tensor has another shape than in the oracle.
    """
    result = []
    for name, expected in oracle_tensors.items():
        if name in engine_tensors and not isinstance(expected, FixedPoint):
            received = engine_tensors[name].astype(np.float64)
            _check_shape(engine, name, expected, received)
            error = np.abs(received - expected)
            error = np.where(received == expected, 0.0, np.where(np.isnan(error), np.inf, error))  # equal infinities agree
            error = np.where(np.isnan(received) & np.isnan(expected), 0.0, error)
            scaled = error / (ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.nan_to_num(np.abs(expected), posinf=0.0))
            result.append(FloatComparison(engine, name, error.size, float(scaled.max(initial=0)), float(error.max(initial=0))))
    return result


def integer_constants(model: onnx_ir.Model) -> dict[str, npt.NDArray[Any]]:
    """Initializers of integer type by name: weights, biases, zero points, shapes."""
    found = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype.is_integer():
            array = np.asarray(value.const_value.numpy())
            found[name] = array if array.dtype.kind in "iu" else array.astype(np.int8)  # 4-bit types are not NumPy's own
    return found


def compare_constants(
    oracle_constants: Mapping[str, npt.NDArray[Any]], engine_constants: Mapping[str, npt.NDArray[Any]], engine: str
) -> list[Difference]:
    """Differences of all integer constants that both have, whatever the data: a flipped weight bit is found and named.

    Raises:
        DataError: a constant has another shape than in the oracle's model.
    """
    tensors: dict[str, Operand] = {}
    for name, array in oracle_constants.items():
        if name in engine_constants:
            tensors[name] = FixedPoint(array.astype(np.int64), 0)
    return compare(tensors, engine_constants, engine)


def merged(before: Difference, after: Difference) -> Difference:
    """Two batches' differences of one tensor as one: the first index stays."""
    return replace(before, count=before.count + after.count, total=before.total + after.total)


def _check_shape(engine: str, name: str, expected: npt.NDArray[Any], received: npt.NDArray[Any]) -> None:
    if expected.shape != received.shape:
        raise DataError(f"engine {engine!r}, tensor {name!r}: the shape {expected.shape} is expected. Received: {received.shape}")
