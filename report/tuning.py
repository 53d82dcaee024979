# ruff: noqa: D102 - each property is described where it is computed
"""How near a quantized network is to its float one, and what tuning did to its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

from .table import PlainTable, table

SHOWN: Final = 10
"""Layers in the table; JSON has all."""


class Nearness(Protocol):
    """Float and quantized network on the same examples."""

    @property
    def images(self) -> int: ...
    @property
    def top1(self) -> float | None: ...
    @property
    def sqnr(self) -> float: ...


class TunedLayer(Protocol):
    """A layer before and after."""

    @property
    def layer(self) -> str: ...
    @property
    def error_before(self) -> float: ...
    @property
    def error_after(self) -> float: ...
    @property
    def variance(self) -> float: ...
    @property
    def log2_before(self) -> float: ...
    @property
    def log2_after(self) -> float: ...


def nearness_line(found: Nearness) -> str:
    """`answers as the float network on 48 of 50 examples, outputs 21.2 dB above the noise`."""
    agreeing = None if found.top1 is None else round(found.top1 * found.images)
    same = f"answers as the float network on {agreeing} of {found.images} examples, "
    loud = "nothing differs" if math.isinf(found.sqnr) and found.sqnr > 0 else f"outputs {found.sqnr:.1f} dB above the noise"
    return same + loud if found.top1 is not None else f"on {found.images} examples {loud}"


def tuned_table(layers: Sequence[TunedLayer]) -> PlainTable:
    """The layers whose error behind their activation shrank most, in parts of the signal's variance."""

    def gain(layer: TunedLayer) -> float:
        return layer.error_before - layer.error_after

    most = sorted(layers, key=lambda layer: -gain(layer) / (layer.variance or 1))[:SHOWN]
    rows = [
        (
            layer.layer,
            layer.error_before / (layer.variance or 1),
            layer.error_after / (layer.variance or 1),
            f"2^{math.ceil(layer.log2_before)}",
            f"2^{math.ceil(layer.log2_after)}",
        )
        for layer in most
    ]
    title = f"Tuned layers, largest gains first ({len(most)} of {len(layers)}); error in parts of the output's variance"
    return table(title, ("weights", "error before", "error after", "threshold before", "after"), rows, elide=("weights",))
