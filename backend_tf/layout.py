"""Layouts: a tensor that knows which permutation of the ONNX value it holds (R2).

`Laid(tensor, perm)` stands for the ONNX value `v` with `tensor == v.transpose(perm)`. An ONNX Transpose then costs nothing: only
the permutation changes. Convolutions ask for NHWC, reshapes for the ONNX order, and data moves only where the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

NHWC = (0, 2, 3, 1)
"""Permutation that takes an NCHW value to the layout TensorFlow computes in."""

Form = Literal["plain", "conv", "depthwise"]
"""How a weight is stored: as in ONNX, as HWIO, or as H,W,C,M."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A tensor and the permutation of the ONNX value that it is.

    Attributes:
        tensor: the data.
        perm: axis `i` of the tensor is axis `perm[i]` of the ONNX value.
    """

    tensor: tf.Tensor
    perm: tuple[int, ...]

    @classmethod
    def plain(cls, tensor: tf.Tensor) -> Laid:
        """A tensor in the ONNX order."""
        return cls(tensor, tuple(range(tensor.shape.rank)))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.perm)

    def axis(self, onnx_axis: int) -> int:
        """Axis of the tensor that is this axis of the ONNX value; negative axes count from the end."""
        return self.perm.index(onnx_axis % self.rank)

    def like(self, tensor: tf.Tensor) -> Laid:
        """Another tensor in the same layout."""
        return Laid(tensor, self.perm)

    def to(self, perm: Sequence[int]) -> tf.Tensor:
        """The tensor in layout `perm`; only a reshape where nothing but axes of length one would move."""
        order = [self.perm.index(axis) for axis in perm]
        if order == list(range(self.rank)):
            return self.tensor
        shape = self.tensor.shape.as_list()
        moving = [axis for axis in order if shape[axis] != 1]
        if moving == sorted(moving) and sum(shape[axis] is None for axis in order) <= 1:
            return tf.reshape(self.tensor, [-1 if shape[axis] is None else shape[axis] for axis in order])
        return tf.transpose(self.tensor, order)

    @property
    def onnx(self) -> tf.Tensor:
        """The tensor in the ONNX order."""
        return self.to(range(self.rank))

    def transposed(self, perm: Sequence[int]) -> Laid:
        """The layout after an ONNX Transpose: no data moves."""
        return Laid(self.tensor, tuple(list(perm).index(axis) for axis in self.perm))

    def expanded(self, rank: int) -> Laid:
        """The same value with leading axes of length one, as broadcasting sees it."""
        missing = rank - self.rank
        if missing == 0:
            return self
        shape = [1] * missing + [-1 if length is None else length for length in self.tensor.shape.as_list()]
        return Laid(tf.reshape(self.tensor, shape), (*range(missing), *(axis + missing for axis in self.perm)))


def to_onnx_order(array: npt.NDArray[Any], perm: Sequence[int]) -> npt.NDArray[Any]:
    """A NumPy array of layout `perm` in the ONNX order."""
    return array.transpose(np.argsort(perm))


def store_shape(shape: Sequence[int], form: Form, groups: int) -> tuple[int, ...]:
    """Shape of a weight in its stored form, from its shape in ONNX."""
    if form == "conv":
        return (*shape[2:], shape[1], shape[0])
    if form == "depthwise":
        return (*shape[2:], groups, shape[0] // groups)
    return tuple(shape)


def store(array: npt.NDArray[Any], form: Form, groups: int) -> npt.NDArray[Any]:
    """A weight from ONNX order `[out, in/groups, H, W]` into its stored form."""
    if form == "conv":
        return array.transpose(2, 3, 1, 0)
    if form == "depthwise":
        return array.reshape(groups, -1, *array.shape[2:]).transpose(2, 3, 0, 1)
    return array


def restore(array: npt.NDArray[Any], form: Form) -> npt.NDArray[Any]:
    """The inverse of `store`."""
    if form == "conv":
        return array.transpose(3, 2, 0, 1)
    if form == "depthwise":
        return array.transpose(2, 3, 0, 1).reshape(-1, 1, *array.shape[:2])
    return array
