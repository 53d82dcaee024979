"""Sums, products, maxima, bounds and tables: operators on integers one by one, and the maxima of windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..integers.network import Operation
from .graph import F64, I32, S8, U8, Builder, Carried, narrowest, widest


def shifted(builder: Builder, x: Carried, places: int, what: str) -> Carried:
    """`x * 2^places`, on the grid of a result."""
    if places == 0:
        return x
    low, high = x.low << places, x.high << places
    dtype = widest(min(low, x.low), max(high, x.high), what)
    name = f"{x.name}__times_2_{places}"
    if x.integers is not None:
        return Carried(name, x.shape, low, high, integers=x.integers << places)
    like = Carried(name, x.shape, low, high)
    return builder.made("Mul", [builder.read(x, dtype), builder.number(1 << places, dtype)], like, dtype)


def arithmetic(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Add, Sub, Mul of two tensors."""
    x, y = operands
    if operation.op == "Mul":
        corners = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
        low, high = min(corners), max(corners)
    elif operation.op == "Add":
        low, high = x.low + y.low, x.high + y.high
    else:
        low, high = x.low - y.high, x.high - y.low
    dtype = widest(min(low, x.low, y.low), max(high, x.high, y.high), f"{operation.op} {operation.node!r}")
    like = Carried(operation.output, operation.shape, low, high)
    return builder.made(operation.op, [builder.read(x, dtype), builder.read(y, dtype)], like, dtype)


def extremum(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Max, Min of any number of tensors."""
    choose: Callable[..., int] = max if operation.op == "Max" else min
    dtype = narrowest(min(x.low for x in operands), max(x.high for x in operands), f"{operation.op} {operation.node!r}")
    low, high = choose(x.low for x in operands), choose(x.high for x in operands)
    like = Carried(operation.output, operation.shape, low, high)
    return builder.made(operation.op, [builder.read(x, dtype) for x in operands], like, dtype)


def bounded(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Relu and Clip; bounds that no integer of the tensor reaches are left out."""
    (x,) = operands
    low, high = (0, None) if operation.op == "Relu" else (operation.attributes["low"], operation.attributes["high"])
    low = None if low is None or low <= x.low else low
    high = None if high is None or high >= x.high else high
    ends = [end for end in (low, high) if end is not None]
    dtype = narrowest(min([x.low, *ends]), max([x.high, *ends]), f"{operation.op} {operation.node!r}")
    least = x.low if low is None else max(x.low, low)
    most = x.high if high is None else min(x.high, high)
    like = Carried(operation.output, operation.shape, min(least, most), max(least, most), x.value, x.integers)
    if not ends:
        return like
    bounds = [None if end is None else builder.number(end, dtype) for end in (low, high)]
    return builder.made("Clip", [builder.read(x, dtype), *bounds], like, dtype)


def max_pool(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Maxima of windows; padding never wins. Its kernels are of 8 bits and of floats."""
    (x,) = operands
    dtype = narrowest(x.low, x.high, f"MaxPool {operation.node!r}")
    attributes = {name: operation.attributes[name] for name in ("kernel_shape", "strides", "dilations", "pads")}
    like = Carried(operation.output, operation.shape, x.low, x.high)
    if dtype in {U8, S8}:
        return builder.made("MaxPool", [builder.read(x, dtype)], like, dtype, **attributes)
    found = builder.made("MaxPool", [builder.read(x, F64)], like, F64, **attributes)
    value = builder.read(found, dtype)
    return Carried(like.name, like.shape, like.low, like.high, value)


def table(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """A function of one integer (L12): its entries, at the place of the integer."""
    (x,) = operands
    entries = np.array(operation.attributes["entries"], np.int64)
    low, high = int(entries.min()), int(entries.max())
    dtype = narrowest(low, high, f"table {operation.node!r}")
    place = builder.node(
        "Sub", [builder.read(x, I32), builder.number(operation.attributes["first"], I32)], f"{operation.output}__place"
    )
    stored = builder.constant(f"{operation.output}__entries", entries.astype(dtype.numpy()))
    return builder.made("Gather", [stored, place], Carried(operation.output, operation.shape, low, high), dtype, axis=0)


ELEMENTWISE: Final = {
    "Add": arithmetic,
    "Sub": arithmetic,
    "Mul": arithmetic,
    "Max": extremum,
    "Min": extremum,
    "Relu": bounded,
    "Clip": bounded,
    "MaxPool": max_pool,
    "Table": table,
}
"""Operation -> what writes it, given its operands on the grid of the result."""
