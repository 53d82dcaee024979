"""Channels last: where each axis of a tensor lies in the file.

The network computes on [N, C, H, W], hls4ml on [N, H, W, C]. A tensor is held with its axes in some order; a Transpose of the
network changes nothing but that order, and a Transpose is written only where an operator needs another one:

    x [N,H,W,C] -> Transpose -> [N,C,H,W] -> Conv -> ... -> Flatten -> Gemm
    x            =>            Conv (channels last)  -> ... -> Reshape -> MatMul with rows in the order that the Reshape gives
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .file import GraphFile, Shape

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the network as it lies in the file.

    Attributes:
        name: of the value in the file.
        shape: as the network has it, batch 1.
        order: axis `i` in the file is axis `order[i]` of the network; the batch stays in front.
        origin: shape and order of what was flattened to this, where that moves elements; else None.
    """

    name: str
    shape: Shape
    order: Order
    origin: tuple[Shape, Order] | None = None

    @property
    def stored(self) -> Shape:
        """Shape in the file."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def rows(self) -> npt.NDArray[np.int64] | None:
        """Of a flattened tensor: element `i` in the file is element `rows[i]` of the network; None if they agree."""
        if self.origin is None:
            return None
        shape, order = self.origin
        return np.arange(np.prod(shape)).reshape(shape).transpose(order).ravel()

    def like(self, name: str) -> Held:
        """Where a value lies that is computed from this one element by element."""
        return replace(self, name=name)


def plain(rank: int) -> Order:
    """The network's own order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """[N, C, ...] as [N, ..., C]."""
    return (0, *range(2, rank), 1)


def permuted(held: Held, perm: Sequence[int]) -> Held:
    """A Transpose of the network; nothing is written."""
    places = list(perm)
    return Held(held.name, tuple(held.shape[axis] for axis in perm), tuple(places.index(axis) for axis in held.order))


def brought(file: GraphFile, layer: str, held: Held, order: Order) -> Held:
    """The tensor in an order, through a Transpose where elements move."""
    if held.origin is not None:
        held = _unrolled(file, layer, held)
    if held.order == order:
        return held
    there = Held("", held.shape, order)
    if _moving(held.order, held.shape) == _moving(order, held.shape):
        return replace(there, name=_reshaped(file, f"{layer}_view", held.name, there.stored))
    return replace(there, name=_transposed(file, layer, held, there))


def reshaped(file: GraphFile, layer: str, held: Held, shape: Shape) -> Held:
    """A Reshape, Flatten, Squeeze or Unsqueeze of the network.

    A flat result keeps its elements in the order they lie in, for the layer that reads it to follow.
    """
    if held.origin is not None and shape == held.shape:
        return held
    if held.origin is None and len(shape) == 2 and not _is_plain(held):
        return Held(_reshaped(file, layer, held.name, shape), shape, plain(2), (held.shape, held.order))
    if held.origin is not None or not _is_plain(held):
        held = brought(file, layer, held, plain(len(held.shape)))
    return Held(held.name if held.stored == shape else _reshaped(file, layer, held.name, shape), shape, plain(len(shape)))


def _transposed(file: GraphFile, layer: str, held: Held, there: Held) -> str:
    """A Transpose; over three axes where the first one has one element, since hls4ml leaves such a one out behind an input."""
    perm, start = [held.order.index(axis) for axis in there.order], held.stored
    if start[1] != 1:
        return file.node("Transpose", f"{layer}_transpose", [held.name], there.stored, perm=perm)
    short = [axis - (axis > 1) for axis in perm if axis != 1]
    flat = _reshaped(file, f"{layer}_squeezed", held.name, (start[0], *start[2:]))
    sizes = (start[0], *start[2:])
    moved = file.node("Transpose", f"{layer}_transpose", [flat], tuple(sizes[axis] for axis in short), perm=short)
    return _reshaped(file, f"{layer}_unsqueezed", moved, there.stored)


def _unrolled(file: GraphFile, layer: str, held: Held) -> Held:
    """A flattened tensor with its elements in the network's order."""
    assert held.origin is not None
    shape, order = held.origin
    before = Held("", shape, order)
    before = replace(before, name=_reshaped(file, f"{layer}_folded", held.name, before.stored))
    moved = brought(file, layer, before, plain(len(shape)))
    return Held(_reshaped(file, f"{layer}_flat", moved.name, held.shape), held.shape, plain(2))


def _reshaped(file: GraphFile, layer: str, value: str, shape: Shape) -> str:
    return file.node("Reshape", layer, [value, file.constant(f"{layer}_shape", np.array(shape, np.int64))], shape)


def _is_plain(held: Held) -> bool:
    return _moving(held.order, held.shape) == _moving(plain(len(held.shape)), held.shape)


def _moving(order: Order, shape: Shape) -> Order:
    """Axes of more than one element, in the order they lie in: what decides where the elements are."""
    return tuple(axis for axis in order if shape[axis] > 1)
