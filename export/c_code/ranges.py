"""What can occur: ranges of everything that is computed, so that nothing in C ever overflows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..integers.network import MOVES, SUMS, Operation, Tensor
from .types import Range, computed, hull

Operand = tuple[tuple[int, ...], Range, Tensor | None]
"""Shape, range, and the tensor where it is one."""


def range_of(operation: Operation, operands: Sequence[Operand]) -> Range:
    """All integers that an operation can compute, partial sums included.

    Raises:
        UnsupportedError: more than 64 bits, naming the layer.
    """
    x = [integers << shift for (_, integers, _), shift in zip(operands, operation.shifts, strict=True)]
    found = _range(operation, x, operands)
    computed(hull([found, *x]), f"layer {operation.node!r} ({operation.op})")
    return found


def _range(operation: Operation, x: Sequence[Range], operands: Sequence[Operand]) -> Range:
    op, a = operation.op, operation.attributes
    if op in SUMS:
        bound = operation.bound if operation.bound is not None else _sum_bound(operation, operands)
        return Range(-bound, bound)
    if op == "Add":
        return Range(x[0].low + x[1].low, x[0].high + x[1].high)
    if op == "Sub":
        return Range(x[0].low - x[1].high, x[0].high - x[1].low)
    if op == "Mul":
        corners = [left * right for left in (x[0].low, x[0].high) for right in (x[1].low, x[1].high)]
        return Range(min(corners), max(corners))
    if op in {"Max", "Min"}:
        choose = max if op == "Max" else min
        return Range(choose(item.low for item in x), choose(item.high for item in x))
    if op == "Relu":
        return Range(max(x[0].low, 0), max(x[0].high, 0))
    if op == "Clip":
        low, high = x[0].low, x[0].high
        if a["low"] is not None:
            low, high = max(low, a["low"]), max(high, a["low"])
        return Range(low, high) if a["high"] is None else Range(min(low, a["high"]), min(high, a["high"]))
    if op == "Table":
        return Range(min(a["entries"]), max(a["entries"]))
    if op == "Pad" and a["mode"] == "constant":
        return hull([x[0], Range(a["value"], a["value"])])
    assert op in MOVES | {"MaxPool"}, op
    return hull(x)


def _sum_bound(operation: Operation, operands: Sequence[Operand]) -> int:
    """Largest magnitude of a partial sum: that of the products, however many meet, and of the bias."""
    (left_shape, left, _), (shape, right, _) = operands[:2]
    terms: int
    if operation.op == "ConvTranspose":
        terms = shape[0] // operation.attributes["group"] * math.prod(shape[2:])
    elif operation.op == "Conv":
        terms = math.prod(shape[1:])
    else:
        terms = left_shape[0] if operation.attributes.get("transA") else left_shape[-1]
    bias = operands[2][1].magnitude if len(operands) > 2 else 0
    return terms * left.magnitude * right.magnitude + bias
