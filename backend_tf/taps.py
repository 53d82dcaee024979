"""What verification compares of a regenerated model, by name and in the ONNX layout: integers and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..ir import DataError, integer_name
from .layout import Laid, restore, to_onnx_order
from .program import Program

Arrays = Mapping[str, npt.NDArray[Any]]
Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True, slots=True)
class Tapped:
    """What one run leaves behind.

    Attributes:
        quantized: the integers of every quantizer.
        carried: the integers of the values that carry a quantizer's scale without having one.
        outputs: the graph's outputs, in the ONNX layout.
    """

    quantized: dict[str, Laid]
    carried: dict[str, Laid]
    outputs: Tensors


Run = Callable[[Tensors, frozenset[str]], Tapped]


class Taps:
    """Runs a program with all its quantizers tapped.

    Every run is eager: a traced graph is rewritten by TensorFlow's optimizer (`1 / x` becomes an approximate reciprocal,
    constants are joined), so that the entries of a table could differ from one run to the next (L12, X1).

    Args:
        program: the graph.
        run: from feeds and names of wide steps to what is tapped.
    """

    def __init__(self, program: Program, run: Run) -> None:
        self._program = program
        self._run = run
        self._weights = {integer_name(name): weight for name, weight in program.weights.items()}
        self._perms: dict[str, tuple[int, ...]] = {}

    def run(self, feeds: Arrays, batch_size: int, wide: frozenset[str]) -> dict[str, npt.NDArray[np.int32]]:
        """The integers of every quantizer for all rows of the feeds.

        Raises:
            DataError: feeds of other names, shapes or dtypes, or without rows.
        """
        arrays = self._checked(feeds)
        total = len(next(iter(arrays.values())))
        fixed = any(shape[0] is not None for shape, _ in self._program.inputs.values())
        parts: dict[str, list[npt.NDArray[np.int32]]] = {}
        for start in range(0, total, total if fixed else batch_size):
            batch = {name: tf.constant(array[start : start + batch_size]) for name, array in arrays.items()}
            for name, tensor in self._tapped(wide, batch)[0].items():
                if start == 0 or name not in self._weights:
                    parts.setdefault(name, []).append(self._onnx(name, tensor.numpy()))
        return {name: np.concatenate(pieces) if len(pieces) > 1 else pieces[0] for name, pieces in parts.items()}

    def everything(self, feeds: Arrays, wide: frozenset[str]) -> dict[str, npt.NDArray[Any]]:
        """Integers of quantizers and of what carries their scales, and the outputs; all rows at once.

        Nothing is put together from batches: a carried value or an output need not have the batch as its first axis.

        Raises:
            DataError: feeds of other names, shapes or dtypes, or without rows.
        """
        batch = {name: tf.constant(array) for name, array in self._checked(feeds).items()}
        quantized, carried, outputs = self._tapped(wide, batch)
        integers = {name: self._onnx(name, tensor.numpy()) for name, tensor in (quantized | carried).items()}
        return integers | {name: tensor.numpy() for name, tensor in outputs.items()}

    def _onnx(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        weight = self._weights.get(name)
        return to_onnx_order(array, self._perms[name]) if weight is None else restore(array, weight.form)

    def _tapped(self, wide: frozenset[str], feeds: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        found = self._run(feeds, wide)
        self._perms.update({name: laid.perm for name, laid in (found.quantized | found.carried).items()})
        quantized, carried = ({name: laid.tensor for name, laid in taps.items()} for taps in (found.quantized, found.carried))
        return quantized, carried, found.outputs

    def _checked(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        expected = self._program.inputs
        if set(feeds) != set(expected):
            raise DataError(f"integers: inputs {list(expected)} are expected. Received: {list(feeds)}")
        arrays = {name: np.asarray(feeds[name]) for name in expected}
        for name, (shape, dtype) in expected.items():
            array = arrays[name]
            if array.dtype != dtype or not tf.TensorShape(shape).is_compatible_with(array.shape):
                raise DataError(
                    f"integers: input {name!r}: {dtype} of shape {shape} is expected. Received: {array.dtype}, {array.shape}"
                )
        rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(rows.values())) != 1 or 0 in rows.values():
            raise DataError(f"integers: the same number of rows, at least one, is expected of every input. Received: {rows}")
        return arrays
