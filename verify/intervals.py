"""Bounds of every fixed-point tensor, from the graph and its integer constants alone: no data (X1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import FunctionRegion, attribute, constant, grid_of, name_of
from ..kernels.fixed_point import requantize
from .fixed_tensor import LIMIT, FixedPoint
from .plan import Plan
from .sums import Sum, layer_sum
from .tables import MOST_ENTRIES, Table, grid_behind, make_table

FARTHEST: Final = 1 << 10
"""Scales beyond 2^FARTHEST and its reciprocal are not even float64 numbers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers of a tensor lie in `[low, high] * 2^exponent`.

    Attributes:
        low: smallest integer.
        high: largest integer.
        exponent: binary logarithm of the scale.
    """

    low: int
    high: int
    exponent: int

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(-self.low, self.high)

    @property
    def is_bounded(self) -> bool:
        """Whether the oracle can compute it; numbers beyond, which squares of squares soon are, are not followed any further."""
        return self.magnitude < LIMIT and abs(self.exponent) <= FARTHEST

    def on(self, exponent: int) -> Interval:
        """The same numbers on a finer grid."""
        shift = self.exponent - exponent
        return Interval(self.low << shift, self.high << shift, exponent)


class Intervals:
    """Intervals of a model's fixed-point and integer tensors, and the sums of its layers.

    Args:
        model: a Q/DQ model.
        plan: its plan.

    Attributes:
        by_name: value name -> interval.
        sums: output name of a layer, an Add, a Sub or a Mul -> bounds of what it adds up or multiplies.
        tables: what leaves a function of one integer -> its entries (L12).
    """

    def __init__(self, model: onnx_ir.Model, plan: Plan) -> None:
        self.by_name: dict[str, Interval] = {}
        self.sums: dict[str, Sum] = {}
        self.tables: dict[str, Table] = {}
        self._constants: dict[str, tuple[npt.NDArray[Any], int]] = {}
        for node in model.graph:
            output = node.outputs[0]
            region = plan.table_behind(node)
            if region is not None:
                self._table(region)
            if output.name and plan.kinds[output.name] in {"fixed", "integer"} and not plan.is_island(node):
                interval = RULES.get(node.op_type, _same)(self, node)
                if interval is not None and interval.is_bounded:
                    self.by_name[output.name] = interval

    def of(self, value: onnx_ir.Value | None) -> Interval | None:
        """Interval of a value, None where it is not known."""
        return None if value is None else self.by_name.get(name_of(value))

    def fixed_constant(self, value: onnx_ir.Value | None) -> FixedPoint | None:
        """The integers of a dequantized constant, else None; made anew each time: together they take eight times what is stored."""
        stored, exponent = self._constants.get("" if value is None else name_of(value), (None, 0))
        return None if stored is None else FixedPoint(stored.astype(np.int64), exponent)

    def _table(self, region: FunctionRegion) -> None:
        """The entries of a function, where the integers it is given are bounded and not too many."""
        x = self.of(region.source)
        if x is not None and x.high - x.low < MOST_ENTRIES:
            self.tables[name_of(region.exit)] = make_table(region, x.low, x.high, x.exponent, grid_behind(region))

    def quantize(self, node: onnx_ir.Node) -> Interval:
        """Rounding and saturation are monotone: the ends of the input's interval bound the output."""
        grid, x = grid_of(node), self.of(node.inputs[0])
        table = self.tables.get(name_of(node.inputs[0]))
        if table is not None:
            return Interval(int(table.integers.min()), int(table.integers.max()), grid.exponent)
        if x is None:
            return Interval(*grid.bounds, grid.exponent)
        ends = np.array([min(max(end, 1 - LIMIT), LIMIT - 1) for end in (x.low, x.high)], np.int64)
        low, high = requantize(ends, x.exponent, grid.exponent, grid.bits, grid.signed).tolist()
        return Interval(low, high, grid.exponent)

    def dequantize(self, node: onnx_ir.Node) -> Interval:
        """Constants are known exactly; a tensor keeps its integers."""
        grid, integers, x = grid_of(node), constant(node.inputs[0]), self.of(node.inputs[0])
        if integers is None:
            return Interval(*(grid.bounds if x is None else (x.low, x.high)), grid.exponent)
        self._constants[name_of(node.outputs[0])] = integers, grid.exponent
        return Interval(*((int(integers.min()), int(integers.max())) if integers.size else (0, 0)), grid.exponent)

    def layer(self, node: onnx_ir.Node) -> Interval | None:
        """Sum of products: the bounds of its partial sums hold for the result too."""
        x, weights = self.of(node.inputs[0]), self.fixed_constant(node.inputs[1])
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        bias = self.fixed_constant(bias_value)
        if x is None or weights is None or (bias_value is not None and bias is None):
            return None
        found = layer_sum(node, (x.low, x.high, x.exponent), weights, bias)
        if found is None:
            return None
        self.sums[name_of(node.outputs[0])] = found
        return Interval(found.low, found.high, found.exponent)

    def add(self, node: onnx_ir.Node) -> Interval | None:
        """Both summands on the finer grid; of a difference the second is negated."""
        a, b = self.of(node.inputs[0]), self.of(node.inputs[1])
        if a is None or b is None:
            return None
        if node.op_type == "Sub":
            b = Interval(-b.high, -b.low, b.exponent)
        exponent = min(a.exponent, b.exponent)
        a, b = a.on(exponent), b.on(exponent)
        result = Interval(a.low + b.low, a.high + b.high, exponent)
        bound = max(result.magnitude, a.magnitude, b.magnitude)
        self.sums[name_of(node.outputs[0])] = Sum((bound,), result.low, result.high, exponent)
        return result

    def multiply(self, node: onnx_ir.Node) -> Interval | None:
        """The ends of a product are products of ends."""
        a, b = self.of(node.inputs[0]), self.of(node.inputs[1])
        if a is None or b is None:
            return None
        corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        result = Interval(min(corners), max(corners), a.exponent + b.exponent)
        self.sums[name_of(node.outputs[0])] = Sum((result.magnitude,), result.low, result.high, result.exponent)
        return result

    def maximum(self, node: onnx_ir.Node) -> Interval | None:
        """Both ends are the largest of the inputs' ends."""
        return self._extreme(node, max)

    def minimum(self, node: onnx_ir.Node) -> Interval | None:
        """Both ends are the smallest of the inputs' ends."""
        return self._extreme(node, min)

    def _extreme(self, node: onnx_ir.Node, choose: Callable[[Iterable[int]], int]) -> Interval | None:
        known = self._on_one_grid(node)
        if known is None:
            return None
        return Interval(choose(i.low for i in known), choose(i.high for i in known), known[0].exponent)

    def _on_one_grid(self, node: onnx_ir.Node) -> list[Interval] | None:
        """The intervals of all inputs on the finest of their grids, None where one is not known."""
        found = [self.of(value) for value in node.inputs]
        known = [interval for interval in found if interval is not None]
        if not known or len(known) < len(found):
            return None
        exponent = min(interval.exponent for interval in known)
        return [interval.on(exponent) for interval in known]

    def relu(self, node: onnx_ir.Node) -> Interval | None:
        """Negative numbers vanish."""
        x = self.of(node.inputs[0])
        return None if x is None else Interval(max(x.low, 0), max(x.high, 0), x.exponent)

    def clip(self, node: onnx_ir.Node) -> Interval | None:
        """Integer bounds limit the integers, float bounds the numbers, on a grid that holds both."""
        x = self.of(node.inputs[0])
        for index, limit in ((1, max), (2, min)):
            bound = constant(node.inputs[index]) if index < len(node.inputs) else None
            if x is None or bound is None or np.isinf(bound.astype(np.float64)).all():
                continue
            x, number = _with_constant(x, bound)
            x = Interval(limit(x.low, number), limit(x.high, number), x.exponent)
        return x

    def concat(self, node: onnx_ir.Node) -> Interval | None:
        """The hull of all inputs."""
        known = self._on_one_grid(node)
        if known is None:
            return None
        return Interval(min(i.low for i in known), max(i.high for i in known), known[0].exponent)

    def pad(self, node: onnx_ir.Node) -> Interval | None:
        """What surrounds the input joins: zeros, or a number, on a grid that holds both. Other modes repeat elements."""
        x = self.of(node.inputs[0])
        if x is None or attribute(node, "mode", "constant") != "constant":
            return x
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        x, number = (x, 0) if fill is None or not fill.any() else _with_constant(x, fill)
        return Interval(min(x.low, number), max(x.high, number), x.exponent)


def _with_constant(x: Interval, constant: npt.NDArray[Any]) -> tuple[Interval, int]:
    """An interval and one constant on a grid that holds both; a constant of integers is on that of the interval."""
    if constant.dtype.kind != "f":
        return x, int(constant.reshape(()))
    numerator, denominator = float(constant.reshape(())).as_integer_ratio()
    x = x.on(min(x.exponent, 1 - denominator.bit_length()))
    return x, (numerator << -x.exponent) // denominator  # exact: the denominator is a power of two


def _same(intervals: Intervals, node: onnx_ir.Node) -> Interval | None:
    """Operators that only select elements."""
    return intervals.of(node.inputs[0])


RULES: Final[Mapping[str, Callable[[Intervals, onnx_ir.Node], Interval | None]]] = {
    "Add": Intervals.add,
    "Clip": Intervals.clip,
    "Concat": Intervals.concat,
    "Conv": Intervals.layer,
    "ConvTranspose": Intervals.layer,
    "DequantizeLinear": Intervals.dequantize,
    "Gemm": Intervals.layer,
    "MatMul": Intervals.layer,
    "Max": Intervals.maximum,
    "Min": Intervals.minimum,
    "Mul": Intervals.multiply,
    "Pad": Intervals.pad,
    "QuantizeLinear": Intervals.quantize,
    "Relu": Intervals.relu,
    "Sub": Intervals.add,
}
