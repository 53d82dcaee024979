"""Bounds of a layer's partial sums (X1).

With `x` in `[l, h]` a product `w x` contributes at most `max(0, w l, w h)` upwards and `max(0, -w l, -w h)` downwards, so
in whatever order an engine adds, every partial sum of a channel lies in `[-N, P]`, `P` and `N` being the sums of these.
For an unsigned input that is `p * sum(w+)` and `p * sum(w-)`. The bias, added first or last, widens it by `|b|`.
Padding contributes zeros, which the bounds contain. The taps of a transposed convolution that never meet are bounded phase by
phase (`ir.channel_totals`); the largest of the phases stands for the channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from ..ir import attribute, channel_totals, contributions
from .fixed_tensor import FixedPoint, check_magnitude, magnitude


@dataclass(frozen=True, slots=True)
class Sum:
    """What the partial sums of a layer can reach, in units of `2^exponent`.

    Attributes:
        bounds: per output channel, the largest magnitude of any partial sum (one entry for an Add or a Mul).
        low: smallest possible result of any channel.
        high: largest possible result of any channel.
        exponent: binary logarithm of the unit.
    """

    bounds: tuple[int, ...]
    low: int
    high: int
    exponent: int

    @property
    def bound(self) -> int:
        """Largest bound of all channels."""
        return max(self.bounds, default=0)


def layer_sum(node: onnx_ir.Node, x: tuple[int, int, int], weights: FixedPoint, bias: FixedPoint | None) -> Sum | None:
    """Bounds of a compute layer with constant weights.

    Args:
        node: the layer.
        x: smallest and largest integer of its input, and the exponent.
        weights: integer weights.
        bias: integer bias, one per channel or one for all, or None.

    Returns:
        None where the bias is neither: a Gemm takes one of any shape.

    Raises:
        UnsupportedError: the bounds themselves do not fit int64.
    """
    low, high, exponent = x
    integers = weights.integers
    check_magnitude(max(-low, high) * magnitude(integers) * max(integers.size, 1), f"{node.op_type} {node.name!r}")
    attributes = {name: attribute(node, name, None) for name in node.attributes}
    unit = exponent + weights.exponent
    tops, bottoms = (
        channel_totals(node.op_type, attributes, contributions(integers, *reach)).tolist()
        for reach in ((max(high, 0), max(-low, 0)), (max(-low, 0), max(high, 0)))
    )
    if bias is None:
        return _sum(tops, bottoms, [0] * len(tops), unit)
    if not _is_per_channel(node, bias, len(tops)):
        return None
    finer = min(unit, bias.exponent)
    shift = unit - finer
    offsets = [int(b) << (bias.exponent - finer) for b in np.broadcast_to(bias.integers.ravel(), len(tops))]
    return _sum([top << shift for top in tops], [bottom << shift for bottom in bottoms], offsets, finer)


def _is_per_channel(node: onnx_ir.Node, bias: FixedPoint, channels: int) -> bool:
    """Whether the bias is one number per output channel, or one for all: a Gemm's column `[M, 1]` is one per image."""
    shape = bias.integers.shape
    if node.op_type in ("Conv", "ConvTranspose"):
        return shape == (channels,)
    return shape[-1:] in {(), (1,), (channels,)} and all(length == 1 for length in shape[:-1])


def _sum(tops: list[int], bottoms: list[int], offsets: list[int], exponent: int) -> Sum:
    triples = list(zip(tops, bottoms, offsets, strict=True))
    return Sum(
        bounds=tuple(abs(b) + max(top, bottom) for top, bottom, b in triples),
        low=min((b - bottom for _, bottom, b in triples), default=0),
        high=max((b + top for top, _, b in triples), default=0),
        exponent=exponent,
    )
