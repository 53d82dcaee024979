"""The certificate: which layers every engine computes exactly in float32, whatever the data (X1, X2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir

from ..ir import COMPUTE, MAX_EXPONENT, MIN_EXPONENT, grid_of, name_of
from .batches import Feeds
from .fixed_tensor import FixedPoint
from .intervals import Intervals
from .oracle import Oracle
from .oracle_ops import OPS, Operand
from .plan import Plan, make_plan
from .sums import Sum
from .tables import Table

FLOAT32_EXACT: Final = 1 << 24
"""Every integer up to here is a float32 number; beyond, every second one is missing."""

CERTIFIED: Final = COMPUTE | {"Add", "Sub", "Mul"}
"""Operators whose results can grow beyond what float32 holds; all others select, round or saturate."""

TABLE: Final = "Table"
"""`op_type` of the certificate of a function of one integer."""

INT32: Final = 1 << 31
"""From here on an int32 accumulator wraps."""


@dataclass(frozen=True, slots=True)
class LayerCertificate:
    """What is known of one layer, of one Add, Sub or Mul, or of one table, without looking at data.

    Attributes:
        node: name of the node.
        op_type: its operator.
        output: name of the float value it computes.
        channel_bounds: per output channel, the largest magnitude of any partial sum, in units of the sum's scale.
        bound: the largest of them (of a Mul, the largest product); None where nothing is known.
        accumulator_bits: width of a two's complement accumulator that holds every partial sum; None likewise.
        certified: whether float32 is exact here, the sum and its requantization, by proof: on every machine, whatever the data.
        reason: why not, else an empty string.
        margin: of a table (L12), the smallest distance of an entry to a boundary between two integers, in steps of its output.
        float_error: of a table, the largest error that a float32 evaluation of an entry can have, in the same unit.
        undecided: of a table, the inputs whose entry lies within that error of a boundary.
        entries: of a table, the smallest and the largest integer that it is given.
        exhausted: of a table with undecided inputs, the engines that gave every entry when all were run: all engines of the
            comparison, on the machine it was made on. Promised in that comparison, but not certified.
    """

    node: str
    op_type: str
    output: str
    channel_bounds: tuple[int, ...]
    bound: int | None
    accumulator_bits: int | None
    certified: bool
    reason: str
    margin: float | None = None
    float_error: float | None = None
    undecided: tuple[int, ...] = ()
    entries: tuple[int, int] | None = None
    exhausted: tuple[str, ...] = ()

    @property
    def promised(self) -> bool:
        """Whether no engine may differ in a comparison: certified, or exhausted in it."""
        return self.certified or bool(self.exhausted)


def certify(model: onnx_ir.Model, plan: Plan | None = None, intervals: Intervals | None = None) -> list[LayerCertificate]:
    """Certificates of every Conv, Gemm, MatMul, Add, Sub and Mul in fixed point and of every table, in topological order.

    Args:
        model: a Q/DQ model.
        plan: its plan, where there is one already.
        intervals: its intervals, likewise.

    Raises:
        UnsupportedError: a scale is not a power of two, or a zero point not 0.
    """
    plan = plan or make_plan(model)
    intervals = intervals or Intervals(model, plan)
    found = []
    for node in model.graph:
        output, region = name_of(node.outputs[0]), plan.table_behind(node)
        if region is not None:
            found.append(_of_table(node, intervals.tables.get(output)))
        elif node.op_type in CERTIFIED and plan.kinds[output] == "fixed":
            found.append(_certificate(node, intervals.sums.get(output)))
    return found


def _of_table(node: onnx_ir.Node, table: Table | None) -> LayerCertificate:
    """A table is safe where no float32 evaluation reaches another integer than the entry (L12)."""
    output = name_of(node.outputs[0])
    name = node.name or output
    if table is None:
        reason = "the integers it is a function of are too many, or not known"
        return LayerCertificate(name, TABLE, output, (), None, None, False, reason)
    reason = ""
    if table.undecided:
        shown = ", ".join(map(str, table.undecided[:4])) + (", ..." if len(table.undecided) > 4 else "")
        reason = f"float32 arithmetic may round the entries of {shown} to the integer beside: they lie on a boundary or next to it"
    margin, error = float(table.distances.min()), float(table.errors.max())
    entries = int(table.inputs[0]), int(table.inputs[-1])
    return LayerCertificate(name, TABLE, output, (), None, None, not reason, reason, margin, error, table.undecided, entries)


def _adds_in_int32(node: onnx_ir.Node) -> bool:
    """Whether integer kernels exist for this layer: an int32 bias, or inputs and weights of at most 8 bits."""
    if node.op_type not in COMPUTE:
        return False
    above = [None if value is None else value.producer() for value in node.inputs]
    bits = [
        grid_of(dequantize).bits if dequantize is not None and dequantize.op_type == "DequantizeLinear" else 0
        for dequantize in above
    ]
    return 32 in bits[2:] or all(0 < b <= 8 for b in bits[:2])


def _grids_behind(value: onnx_ir.Value) -> set[int]:
    """Exponents of what a sum is rounded to: integer kernels multiply by the ratio of the scales, a float32 number too."""
    found: set[int] = set()
    pending, seen = [value], {value}
    while pending:
        for node, _ in pending.pop().uses():
            if node.op_type == "QuantizeLinear":
                found.add(grid_of(node).exponent)
            elif node.op_type not in CERTIFIED:
                fresh = [output for output in node.outputs if output not in seen]
                pending += fresh
                seen.update(fresh)
    return found


def _certificate(node: onnx_ir.Node, found: Sum | None) -> LayerCertificate:
    output = name_of(node.outputs[0])
    name = node.name or output
    if found is None:
        reason = "its weights are not constant, its input is not bounded, or its bias is not one number per output channel"
        return LayerCertificate(name, node.op_type, output, (), None, None, False, reason)
    reason = ""
    if found.bound > FLOAT32_EXACT:
        channel = found.bounds.index(found.bound)
        what = "products" if node.op_type == "Mul" else f"partial sums of channel {channel}"
        reason = f"{what} can reach {found.bound}, beyond 2^24 = {FLOAT32_EXACT}"
        if found.bound >= INT32 and _adds_in_int32(node):
            reason += "; they do not fit int32 either: engines with integer kernels may wrap around"
    elif not MIN_EXPONENT <= found.exponent <= MAX_EXPONENT:
        what = "products" if node.op_type == "Mul" else "sums"
        reason = f"its {what} have the scale 2^{found.exponent}, outside 2^{MIN_EXPONENT} .. 2^{MAX_EXPONENT} (Q5)"
    else:
        ratios = [found.exponent - exponent for exponent in sorted(_grids_behind(node.outputs[0]))]
        odd = [ratio for ratio in ratios if not MIN_EXPONENT <= ratio <= MAX_EXPONENT]
        if odd:
            reason = f"it is requantized by 2^{odd[0]}, outside 2^{MIN_EXPONENT} .. 2^{MAX_EXPONENT}: no factor for integer kernels"
    bits = found.bound.bit_length() + 1
    return LayerCertificate(name, node.op_type, output, found.bounds, found.bound, bits, not reason, reason)


def observed_bounds(model: onnx_ir.Model, feeds: Feeds) -> dict[str, int]:
    """Largest partial sum that the given data can cause: each layer on `|x|` and `|w|` (X1, observed).

    Returns:
        Name of a layer's output value -> bound in units of its sum, in topological order.
    """
    bounds: dict[str, int] = {}

    def observe(node: onnx_ir.Node, inputs: Sequence[Operand | None], _output: Operand) -> None:
        if node.op_type in CERTIFIED:
            absolute = [FixedPoint(np.abs(x.integers), x.exponent) if isinstance(x, FixedPoint) else x for x in inputs]
            total = OPS["Add" if node.op_type == "Sub" else node.op_type](node, absolute)
            assert isinstance(total, FixedPoint)
            name = name_of(node.outputs[0])
            bounds[name] = max(bounds.get(name, 0), total.magnitude)

    Oracle(model).run(feeds, keep=(), observe=observe)
    return bounds
