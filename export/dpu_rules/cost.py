"""What `--fix` costs: the outputs of the changed model against those of the model as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir

from ...ir import integer_bounds
from ..base import Feeds, Source

_EXAMPLES: Final = 4
"""Random inputs: few, as large networks take half a second for each, and the ratio is a hint all the same."""

_SEED: Final = 0


def output_sqnr(source: Source, model: onnx_ir.Model) -> dict[str, float]:
    """Signal to quantization noise ratio, in decibels, of every tensor that leaves the integer part.

    Args:
        source: the model as it was; its numbers are the signal.
        model: the changed Q/DQ model.

    Returns:
        Name of the real tensor -> decibels; infinity where nothing differs, minus infinity where all was 0 and something differs.
    """
    names = [name for name in source.network.ends if name in {value.name for node in model.graph for value in node.outputs}]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for feeds in examples_of(source):
        expected, received = source.run(source.model, feeds, names), source.run(model, feeds, names)
        for name in names:
            signal[name] += float(np.sum(expected[name] ** 2))
            noise[name] += float(np.sum((received[name] - expected[name]) ** 2))
    return {source.network.tensors[name].value: _decibels(signal[name], noise[name]) for name in names}


def examples_of(source: Source) -> Iterator[Feeds]:
    """The user's examples, or seeded normal numbers that fill the input's range."""
    if source.examples is not None:
        yield from source.examples()
        return
    rng = np.random.default_rng(_SEED)
    feeds = {}
    for port in source.network.inputs:
        grid = None if port.tensor is None else source.network.tensors[port.tensor]
        lowest, highest = (-1, 1) if grid is None else integer_bounds(grid.bits, grid.signed)
        unit = 1.0 if grid is None else math.ldexp(1.0, grid.exponent)
        shape = (_EXAMPLES, *(1 if size is None else size for size in port.shape[1:]))
        numbers = rng.normal(0, highest / 3 * unit, shape)
        feeds[port.name] = (np.abs(numbers) if lowest == 0 else numbers).astype(np.float32)
    yield feeds


def basis(source: Source) -> str:
    """What the ratio was measured on."""
    return f"{_EXAMPLES} random inputs (no --data)" if source.examples is None else f"{source.count} examples"


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
