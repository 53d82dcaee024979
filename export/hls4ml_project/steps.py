"""What a step asks of hls4ml, in forms that it holds: bounds behind the rounding, kernels without dilations and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...kernels import fixed_point
from ..integers.network import MOVES, SUMS, Operation, Step, Tensor

Integers = npt.NDArray[np.int64]

RECTIFIERS: Final = frozenset({"Relu", "Clip"})

COPIES: Final = MOVES | {"MaxPool"}
"""Operations that give integers that they read."""

FENCED: Final = SUMS | {"Add", "Sub", "Mul"}
"""Operations behind which another one may only follow in a type of its own."""


def split_rectifiers(step: Step) -> tuple[tuple[Operation, ...], int | None, int | None]:
    """The operations of a step in front of the Relus and Clips at its end, and the bounds these set, on the grid of the result."""
    count = len(step.operations)
    while count and step.operations[count - 1].op in RECTIFIERS:
        count -= 1
    low: int | None = None
    high: int | None = None
    for operation in step.operations[count:]:
        finer = operation.exponent - step.operations[-1].exponent
        edges = (0, None) if operation.op == "Relu" else (operation.attributes["low"], operation.attributes["high"])
        least, most = (None if edge is None else edge << finer for edge in edges)
        low = least if low is None else _clip(low, least, most)
        high = most if high is None else _clip(high, least, most)
    return step.operations[:count], low, high


def clipped_bounds(tensor: Tensor, low: int | None, high: int | None, shift: int) -> tuple[int, int]:
    """The bounds of a tensor together with those in front of its rounding.

    Rounding is monotone: a bound in front of it is the rounded bound behind it.
    """
    rounded = [tensor.lower if edge is None else _round(edge, shift) for edge in (low, high)]
    lower = _clip(rounded[0], tensor.lower, tensor.upper)
    upper = tensor.upper if high is None else _clip(rounded[1], tensor.lower, tensor.upper)
    return lower, upper


def constant_bits(integers: Integers) -> int:
    """Width of the narrowest two's complement type that holds them, at least 2."""
    most = max(int(integers.max(initial=0)), -1 - int(integers.min(initial=0)))
    return max(2, most.bit_length() + 1)


def dense_kernel(weights: Integers, attributes: Mapping[str, Any]) -> tuple[Integers, int]:
    """A kernel without dilation, and its groups: none, or one for each channel.

    hls4ml 1.3 computes the output size of a dilated convolution wrongly and reads no groups of several channels. Zeros between the
    taps and between the groups say the same.

    Args:
        weights: [filters, depth, ...].
        attributes: `dilations` and `group`.

    Returns:
        Kernel and number of groups.
    """
    filters, depth, *kernel = weights.shape
    dilations, group = attributes["dilations"], attributes["group"]
    reach = [step * (size - 1) + 1 for step, size in zip(dilations, kernel, strict=True)]
    spread = np.zeros((filters, depth, *reach), np.int64)
    spread[(slice(None), slice(None), *(slice(None, None, step) for step in dilations))] = weights
    if group == 1 or (depth == 1 and filters == group):
        return spread, group
    dense = np.zeros((filters, depth * group, *reach), np.int64)
    for index in range(filters):
        start = index * group // filters * depth
        dense[index, start : start + depth] = spread[index]
    return dense, 1


def spatial_pads(operation: Operation, rank: int) -> list[int] | None:
    """Begins and ends of the axes behind the channels; None where batch or channels are padded, or something is cut off."""
    given = operation.attributes["pads"]
    axes = [axis % rank for axis in operation.attributes.get("axes", range(rank))]
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    begins[axes], ends[axes] = given[: len(axes)], given[len(axes) :]
    if any(begins[:2]) or any(ends[:2]) or min(*begins, *ends) < 0:
        return None
    return [*begins[2:].tolist(), *ends[2:].tolist()]


def _round(edge: int, shift: int) -> int:
    if shift <= 0:
        return edge << -shift
    return int(fixed_point.shift_half_even(np.array(edge, np.int64), shift))


def _clip(edge: int, least: int | None, most: int | None) -> int:
    edge = edge if least is None else max(edge, least)
    return edge if most is None else min(edge, most)
