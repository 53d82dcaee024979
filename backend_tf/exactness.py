"""Which layers float32 does not compute exactly: the static bound of X1, sign-aware, from the integer weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir import COMPUTE, PASS_THROUGH, Quantizer, QuantizerGraph
from ..kernels.fixed_point import quantize
from .program import Program, Step

EXACT = 1 << 24
"""Integers up to here, and sums of them that stay below, are exact in float32."""


def wide_steps(program: Program, graph: QuantizerGraph, weights: Mapping[str, npt.NDArray[np.float32]]) -> frozenset[str]:
    """Names of the compute layers that must run in float64 to be exact (X2).

    Args:
        program: the graph.
        graph: decided quantizers.
        weights: by name, in the ONNX layout.
    """
    quantizers = graph.by_value()
    ranges: dict[str, tuple[int, int]] = {}
    wide = set()
    for step in program.steps:
        if step.op in COMPUTE and _bound(step, quantizers, ranges, weights) > EXACT:
            wide.add(step.name)
        _carry(step, quantizers, ranges)
    return frozenset(wide)


def _carry(step: Step, quantizers: Mapping[str, Quantizer], ranges: dict[str, tuple[int, int]]) -> None:
    """The range of the integers behind the step's output: its quantizer's, or what a moving operator passes on (L7)."""
    output = step.outputs[0]
    quantizer = quantizers.get(output)
    if quantizer is not None:
        ranges[output] = (quantizer.lower, quantizer.upper)
    elif step.op in PASS_THROUGH | {"Concat"}:
        sources = step.inputs if step.op == "Concat" else step.inputs[:1]
        found = [ranges[name] for name in sources if name in ranges]
        if len(found) == len(sources):
            ranges[output] = (min(low for low, _ in found), max(high for _, high in found))


def _bound(
    step: Step,
    quantizers: Mapping[str, Quantizer],
    ranges: Mapping[str, tuple[int, int]],
    weights: Mapping[str, npt.NDArray[np.float32]],
) -> int:
    """Largest magnitude any partial sum of the layer can reach, in units of its scale; 0 where the layer is float."""
    data, weight = step.input(0), step.input(1)
    if data not in ranges or weight not in quantizers or weight not in weights:
        return 0
    integers = _integers(weights[weight], quantizers[weight])
    axes = tuple(range(1, integers.ndim)) if step.op == "Conv" else (0,)
    positive = np.maximum(integers, 0).sum(axes)
    negative = np.maximum(-integers, 0).sum(axes)
    low, high = ranges[data]
    bound = np.maximum(high * positive - low * negative, high * negative - low * positive)
    bias = step.input(2) if step.given(2) else ""
    if bias in quantizers and bias in weights:
        bound = bound + np.abs(_integers(weights[bias], quantizers[bias]))
    return int(bound.max(initial=0))


def _integers(array: npt.NDArray[np.float32], quantizer: Quantizer) -> npt.NDArray[Any]:
    return quantize(array, quantizer.decided_exponent, quantizer.bits, quantizer.signed, quantizer.upper)
