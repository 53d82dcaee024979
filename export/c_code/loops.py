"""Loops that visit positions: a move as a nest of loops with one stride for each, where it is one; else with tables.

A sequence of positions is affine where it is `offset + sum stride_k * digit_k`, the digits being those of the running number in
some mixed radix. The innermost digit is as long as the sequence keeps its first step; the rest follows by taking its first
elements. Transposes, slices, repetitions and blocks are affine; a Gather in any order, and borders of a tensor's own elements,
are affine or tables axis by axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_FIRST_LOOK: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop.

    Attributes:
        size: its number of turns, at least 2.
        strides: for each sequence, what a turn adds to its position; a table of one entry for each turn where it is no multiple.
    """

    size: int
    strides: tuple[int | tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops, the outermost first.

    Attributes:
        axes: the loops.
        offsets: for each sequence, its first position.
    """

    axes: tuple[Axis, ...]
    offsets: tuple[int, ...]


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Distances between neighbours of each axis, in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_strides(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor along the axes of what it is broadcast to; 0 where it is repeated."""
    return (0,) * (len(whole) - len(shape)) + tuple(
        0 if length == 1 else step for length, step in zip(shape, strides_of(shape), strict=True)
    )


def joined(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> Nest:
    """Loops over a shape, in which neighbouring axes are one wherever every operand allows it.

    Args:
        shape: what is visited.
        strides: of each operand, one for each axis.
    """
    axes: list[Axis] = []
    for axis, size in enumerate(shape):
        steps = tuple(operand[axis] for operand in strides)
        if size == 1:
            continue
        if axes and axes[-1].strides == tuple(step * size for step in steps):
            axes[-1] = Axis(axes[-1].size * size, steps)
        else:
            axes.append(Axis(size, steps))
    return Nest(tuple(axes), (0,) * len(strides))


def strided(arrays: list[Integers]) -> Nest | None:
    """Loops over the axes of arrays of positions of one shape, each a sum of strides, or None.

    It is what `affine` gives of them when they are flat; most moves are of this form, which is seen much sooner.
    """
    strides = []
    for array in arrays:
        first, total = int(array.flat[0]), np.asarray(array.flat[0])
        steps = []
        for axis, size in enumerate(array.shape):
            second = (0,) * axis + (min(size - 1, 1),) + (0,) * (array.ndim - axis - 1)
            steps.append(int(array[second]) - first)
            total = total[..., None] + steps[-1] * np.arange(size)
        if not (total == array).all():
            return None
        strides.append(tuple(steps))
    return replace(joined(arrays[0].shape, strides), offsets=tuple(int(array.flat[0]) for array in arrays))


def affine(sequences: Integers) -> Nest | None:
    """Loops that give all sequences `[count, length]` at once, or None."""
    offsets = tuple(int(first) for first in sequences[:, 0])
    axes: list[Axis] = []
    while (length := sequences.shape[1]) > 1:
        step = sequences[:, 1] - sequences[:, 0]
        reach = _straight(sequences, step)
        for size in (size for size in range(reach, 1, -1) if length % size == 0):
            rows = sequences.reshape(len(sequences), -1, size)
            if (rows - rows[:, :, :1] == step[:, None, None] * np.arange(size)).all():
                axes.append(Axis(size, tuple(int(number) for number in step)))
                sequences = rows[:, :, 0]
                break
        else:
            return None
    return Nest(tuple(reversed(axes)), offsets)


def _straight(sequences: Integers, step: Integers) -> int:
    """How many positions keep the first step; they are often few, so that few are looked at first."""
    length, part = int(sequences.shape[1]), _FIRST_LOOK
    while True:
        keeps = (np.diff(sequences[:, :part]) == step[:, None]).all(axis=0)
        if not keeps.all():
            return int(np.argmin(keeps)) + 1
        if part >= length:
            return length
        part *= 2


def by_axis(source: Integers) -> Nest:
    """Loops over the axes of an array of positions, its own running number being the first sequence, with tables where needed."""
    shape = source.shape
    first = int(source.flat[0])
    lines = [np.moveaxis(source, axis, 0).reshape(size, -1)[:, 0] - first for axis, size in enumerate(shape)]
    total = np.full(shape, first)
    for axis, line in enumerate(lines):
        total = total + line.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    if not (total == source).all():  # no sum of one table for each axis: one table for all
        return Nest((Axis(source.size, (1, tuple(int(number) for number in source.reshape(-1)))),), (0, 0))
    axes = []
    for size, own, line in zip(shape, strides_of(shape), lines, strict=True):
        if size > 1:
            regular = (line == line[1] * np.arange(size)).all()
            axes.append(Axis(size, (own, int(line[1]) if regular else tuple(int(number) for number in line))))
    return Nest(tuple(axes), (0, first))
