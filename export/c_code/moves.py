"""Where the elements of a moved tensor come from: every move is done once, by NumPy, on the positions of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import MOST_ELEMENTS, UnsupportedError
from ..integers.network import Operation

Positions = npt.NDArray[np.int64]

FILLED: Final = -1
"""Stands for a number that Pad fills in."""


def positions(operation: Operation, shape: tuple[int, ...]) -> Positions:
    """Flat positions in the input, of the shape of the output.

    Args:
        operation: one of `MOVES` with one input.
        shape: of its input, batch included.

    Raises:
        UnsupportedError: a form that is not known, or more elements than memory holds.
    """
    what = f"target c: layer {operation.node!r}: {operation.op}"
    move = _MOVES.get(operation.op)
    if move is None:
        raise UnsupportedError(f"{what} has no form in C; operators with integers as inputs and outputs are accepted")
    grown = math.prod(_repeats(operation, len(shape)))
    if math.prod(shape) * grown > MOST_ELEMENTS:
        raise UnsupportedError(f"{what}: at most {MOST_ELEMENTS:,} elements are accepted. Received: {math.prod(shape) * grown:,}")
    flat = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    try:
        return move(flat, operation.attributes)
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise UnsupportedError(f"{what} of a tensor of shape {list(shape)} for a single example: {error}") from None


def _repeats(operation: Operation, rank: int) -> list[int]:
    factors = operation.attributes.get("repeats") or operation.attributes.get("scales") or [1] * rank
    return [int(factor) for factor in factors]


def _reshape(x: Positions, a: Mapping[str, Any]) -> Positions:
    return x.reshape([x.shape[axis] if n == 0 and not a.get("allowzero") else n for axis, n in enumerate(a["shape"])])


def _flatten(x: Positions, a: Mapping[str, Any]) -> Positions:
    return x.reshape(math.prod(x.shape[: a["axis"]]), -1)


def _squeeze(x: Positions, a: Mapping[str, Any]) -> Positions:
    return np.squeeze(x, tuple(a["axes"])) if "axes" in a else np.squeeze(x)


def _unsqueeze(x: Positions, a: Mapping[str, Any]) -> Positions:
    return np.expand_dims(x, tuple(a["axes"]))


def _transpose(x: Positions, a: Mapping[str, Any]) -> Positions:
    return x.transpose(a.get("perm") or tuple(reversed(range(x.ndim))))


def _slice(x: Positions, a: Mapping[str, Any]) -> Positions:
    axes = a.get("axes", range(len(a["starts"])))
    steps = a.get("steps", [1] * len(a["starts"]))
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, a["starts"], a["ends"], steps, strict=True):
        first = max(start, -x.shape[axis]) if step < 0 else start  # in front of the axis is its first element
        index[axis] = slice(first, end, step)
    return x[tuple(index)]


def _gather(x: Positions, a: Mapping[str, Any]) -> Positions:
    return np.asarray(np.take(x, np.asarray(a["indices"], np.int64), a["axis"]))


def _tile(x: Positions, a: Mapping[str, Any]) -> Positions:
    return np.tile(x, a["repeats"])


def _resize(x: Positions, a: Mapping[str, Any]) -> Positions:
    """Every element a whole number of times; the oracle computes no other form in integers."""
    scales = a["scales"]
    if len(scales) != x.ndim or any(scale != int(scale) or scale < 1 for scale in scales):
        raise ValueError(f"whole factors are expected. Received: {scales}")
    for axis, scale in enumerate(scales):
        x = np.repeat(x, int(scale), axis)
    return x


def _pad(x: Positions, a: Mapping[str, Any]) -> Positions:
    """Negative amounts crop."""
    axes = [axis % x.ndim for axis in a.get("axes", range(x.ndim))]
    amounts = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        amounts[axis] = (a["pads"][place], a["pads"][place + len(axes)])
    cropped = x[tuple(slice(-min(front, 0), n + min(back, 0)) for (front, back), n in zip(amounts, x.shape, strict=True))]
    widths = [(max(front, 0), max(back, 0)) for front, back in amounts]
    if math.prod(n + sum(pair) for n, pair in zip(cropped.shape, widths, strict=True)) > MOST_ELEMENTS:
        raise ValueError(f"more than {MOST_ELEMENTS:,} elements")
    if a["mode"] == "constant":
        return np.pad(cropped, widths, constant_values=FILLED)
    return _BORDERS[a["mode"]](cropped, widths)


_BORDERS: Final[dict[str, Callable[[Positions, list[tuple[int, int]]], Positions]]] = {
    "edge": lambda x, widths: np.pad(x, widths, mode="edge"),
    "reflect": lambda x, widths: np.pad(x, widths, mode="reflect"),
    "wrap": lambda x, widths: np.pad(x, widths, mode="wrap"),
}


def _space_to_depth(x: Positions, a: Mapping[str, Any]) -> Positions:
    b = a["blocksize"]
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _depth_to_space(x: Positions, a: Mapping[str, Any]) -> Positions:
    """The inverse; in mode CRD the channel counts slower than the place in the block."""
    b, (n, c, h, w) = a["blocksize"], x.shape
    if a["mode"] == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


_MOVES: Final[dict[str, Callable[[Positions, Mapping[str, Any]], Positions]]] = {
    "DepthToSpace": _depth_to_space,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda x, _: x,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
