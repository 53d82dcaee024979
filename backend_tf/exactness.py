"""Which layers and products float32 does not compute exactly: the static bound of X1, sign-aware, from the integer weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir import COMPUTE, Quantizer, QuantizerGraph, channel_totals, contributions
from ..kernels.fixed_point import quantize, quantize_as
from .carry import carried_from
from .program import Program, Step

EXACT = 1 << 24
"""Integers up to here, and sums of them that stay below, are exact in float32."""


def wide_steps(program: Program, graph: QuantizerGraph, weights: Mapping[str, npt.NDArray[np.float32]]) -> frozenset[str]:
    """Names of the compute layers and products that must run in float64 to be exact (X2).

    Args:
        program: the graph.
        graph: decided quantizers.
        weights: by name, in the ONNX layout.
    """
    quantizers = graph.by_value()
    ranges: dict[str, tuple[int, int]] = {}
    wide = set()
    for step in program.steps:
        if step.op in COMPUTE and (bound := _bound(step, quantizers, ranges, weights)):
            wide.update([step.name] if bound > EXACT else [])
            ranges[step.outputs[0]] = (-bound, bound)  # of a sum that nothing rounds: an average pool's (L6)
        if step.op == "Mul" and _product_bound(step, quantizers, ranges) > EXACT:
            wide.add(step.name)
        _carry(step, program, quantizers, ranges)
    return frozenset(wide)


def _carry(step: Step, program: Program, quantizers: Mapping[str, Quantizer], ranges: dict[str, tuple[int, int]]) -> None:
    """The range of the integers behind the step's output, where known: its quantizer's, or what moving and rectifying keep (L7)."""
    output = step.outputs[0]
    quantizer = quantizers.get(output)
    if quantizer is not None:
        ranges[output] = (quantizer.lower, quantizer.upper)
        return
    sources = step.inputs[:1] if step.op == "Clip" else carried_from(step)
    found = [ranges[name] for name in sources if name in ranges]
    if found and len(found) == len(sources) and _stays_inside(step, program):
        ranges[output] = (min(low for low, _ in found), max(high for _, high in found))


def _stays_inside(step: Step, program: Program) -> bool:
    """Whether nothing leaves the operator that is not between zero and what went in (every range holds zero)."""
    if step.op == "Pad":
        if step.get("mode", "constant") != "constant" or not step.given(2):
            return True
        return not program.constants.get(step.input(2), np.ones(1)).any()
    if step.op == "Clip":
        low, high = (program.constants.get(step.input(index)) if step.given(index) else np.zeros(1) for index in (1, 2))
        return low is not None and high is not None and bool((low <= 0).all() and (high >= 0).all())
    return True


def _bound(
    step: Step,
    quantizers: Mapping[str, Quantizer],
    ranges: Mapping[str, tuple[int, int]],
    weights: Mapping[str, npt.NDArray[np.float32]],
) -> int:
    """Largest magnitude any partial sum of the layer can reach, in units of its scale; 0 where the layer is float.

    An input whose range is not known may be anything: more than float32 holds.
    """
    data, weight = step.input(0), step.input(1)
    if weight not in quantizers or weight not in weights:
        return 0
    if data not in ranges:
        return EXACT + 1
    quantizer, (low, high) = quantizers[weight], ranges[data]
    integers = quantize_as(weights[weight], quantizer.decided_exponent, quantizer.bits, quantizer.signed, np.int32)
    reaches = ((high, -low), (-low, high))  # upwards, downwards
    bound = np.maximum(*(channel_totals(step.op, step.attributes, contributions(integers, *reach)) for reach in reaches))
    bias = step.input(2) if step.given(2) else ""
    if bias in quantizers and bias in weights:
        bound = bound + np.abs(_integers(weights[bias], quantizers[bias]))
    return int(bound.max(initial=0))


def _product_bound(step: Step, quantizers: Mapping[str, Quantizer], ranges: Mapping[str, tuple[int, int]]) -> int:
    """Largest magnitude of a product of two quantized values (L3), in units of its scale; 0 where it is float."""
    bound = 1
    for index in range(len(step.inputs)):
        name = step.input(index)
        if name not in ranges and name not in quantizers:
            return 0
        low, high = ranges[name] if name in ranges else (quantizers[name].lower, quantizers[name].upper)
        bound *= max(-low, high)
    return bound


def _integers(array: npt.NDArray[np.float32], quantizer: Quantizer) -> npt.NDArray[Any]:
    return quantize(array, quantizer.decided_exponent, quantizer.bits, quantizer.signed, quantizer.upper)
