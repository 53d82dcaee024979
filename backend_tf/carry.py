"""Values that no quantizer rounds but that lie on one's grid: what is behind operators that only move elements (L7)."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir import PASS_THROUGH, Quantizer
from .program import Program, Step

PUT_TOGETHER = frozenset({"Concat", "Max", "Min"})
"""Operators whose operands are on one grid, and their result too (L5)."""

CARRYING = PASS_THROUGH | PUT_TOGETHER | {"Relu"}
"""A Relu without a quantizer of its own is one of a value that cannot be negative: it moves everything."""


def carried_from(step: Step) -> tuple[str, ...]:
    """Names of the values whose grid a step without quantizer hands on; none where it computes."""
    if step.op not in CARRYING:
        return ()
    names = step.inputs if step.op in PUT_TOGETHER else step.inputs[:1]
    return tuple(name for name in names if name is not None)


def carried_pairs(program: Program, quantizers: Mapping[str, Quantizer]) -> dict[str, Quantizer]:
    """Values that have a carry pair in the Q/DQ model -> the quantizer whose scale they are on.

    An Identity hands the scale on but has no pair, as in the Q/DQ model.

    Args:
        program: the graph.
        quantizers: by value name.
    """
    on_grid = dict(quantizers)
    waiting = set()  # what an Identity without a quantizer hands on to the rectifier of its sum
    pairs = {}
    for step in program.steps:
        output = step.outputs[0]
        carriers = [on_grid.get(name) for name in (step.inputs[:1] if step.op == "Clip" else carried_from(step)) if name]
        carrier = next(filter(None, carriers), None)
        if output in quantizers or carrier is None:
            continue
        if step.op == "Clip" and (output in program.functions or step.inputs[0] in waiting):
            continue  # part of a function, or of a sum that is rounded behind it (L2)
        if step.op == "Identity":
            waiting.add(output)
        if step.op in ("Max", "Min") and any(other is None or other.group != carrier.group for other in carriers):
            continue  # it selects from what is not quantized: part of a function, or of a float island
        on_grid[output] = carrier
        if step.op != "Identity":
            pairs[output] = carrier
    return pairs


def rounded_clips(program: Program, quantizers: Mapping[str, Quantizer]) -> dict[str, Quantizer]:
    """The values that their carry pair does round: the bounds of a Clip need not lie on the grid of what it limits (L7)."""
    clips = {step.outputs[0] for step in program.steps if step.op == "Clip"}
    return {name: carrier for name, carrier in carried_pairs(program, quantizers).items() if name in clips}
