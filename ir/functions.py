"""Parts of a graph that compute a function of one number, element by element: what an 8-bit integer makes a table of (L12).

    x ---> Add(3) -> Relu6 -> Mul(1/6) ---> Mul -> y          one region, from x to y: hard-swish as exporters write it
      `----------------------------------'

A region reads one tensor and scalar constants, and one of its values leaves it. It holds at least one operator that is neither
linear nor a rectifier: what only scales, adds and rectifies has fixed-point forms of its own. Regions are as large as they
can be; a value inside that something else reads too is an end (the regions around it end or begin there), and a rectifier
right at the beginning stays outside, at home behind the sum in front of it (L2), unless it is what keeps a division or a
logarithm from zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from .graph import ROLE_KEY, attribute, constant

CURVES: frozenset[str] = frozenset(
    {
        *("Abs", "Ceil", "Celu", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Log", "Mish", "Neg"),
        *("Reciprocal", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Tanh"),
    }
)
"""Operators of one number that have no other fixed-point form than a table."""

_BENDS: frozenset[str] = frozenset({"Relu", "Clip", "LeakyRelu", "Max", "Min"})
"""Operators that select: part of a region, no reason for one."""

_SUMS_AND_PRODUCTS: frozenset[str] = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})
"""Operators of two numbers: linear where one of them is constant, but for a power and a division *of* a constant."""

_LARGEST_DIVISOR = 1000

_ELEMENTWISE = CURVES | _BENDS | _SUMS_AND_PRODUCTS

_Operand = int | npt.NDArray[np.float64] | None
_Step = tuple[str, dict[str, Any], tuple[_Operand, ...]]
"""`kernels.functions.Step`, which is another room's."""


@dataclass(frozen=True, eq=False)
class FunctionRegion:
    """A part of the graph that computes a function of one number.

    Attributes:
        source: the tensor that it is a function of.
        nodes: in graph order; the last one computes what leaves it.
    """

    source: onnx_ir.Value
    nodes: tuple[onnx_ir.Node, ...]

    @property
    def exit(self) -> onnx_ir.Value:
        """The one value that leaves it."""
        return self.nodes[-1].outputs[0]

    @property
    def operators(self) -> tuple[str, ...]:
        """Its operators, in order."""
        return tuple(node.op_type for node in self.nodes)

    def steps(self) -> tuple[_Step, ...]:
        """What it computes, without the graph, as `kernels.functions.run` takes it.

        A factor that is a rounded `1 / n` is the division by n that it stands for.
        """
        place = {self.source: 0} | {node.outputs[0]: index for index, node in enumerate(self.nodes, 1)}

        def operand(value: onnx_ir.Value | None) -> _Operand:
            array = constant(value)
            return None if value is None else place[value] if array is None else array.astype(np.float64).reshape(())

        def step(node: onnx_ir.Node) -> _Step:
            operands = tuple(map(operand, node.inputs))
            for data, factor in (operands, operands[::-1]) if node.op_type == "Mul" else ():
                divisor = None if factor is None or isinstance(factor, int) else _divisor(float(factor))
                if divisor is not None:
                    return "Div", {}, (data, np.asarray(divisor, np.float64))
            return node.op_type, {name: attribute(node, name, None) for name in node.attributes}, operands

        return tuple(map(step, self.nodes))


def _divisor(factor: float) -> float | None:
    """`n` where the factor is the float32 number next to `1 / n`: hard-swish means a sixth, and 9 / 6 lies on a tie."""
    if not 0.0 < abs(factor) < 1.0:
        return None
    whole = float(round(1.0 / factor))
    is_next = abs(whole) <= _LARGEST_DIVISOR and np.float32(1.0 / whole) == np.float32(factor)
    return whole if is_next and 1.0 / whole != factor else None


def function_regions(graph: onnx_ir.Graph) -> list[FunctionRegion]:
    """The regions of a topologically sorted graph, in the order of what they compute.

    One walk down finds of which tensor every value is a function, one walk up where its readers lead. Values that lead to
    several places are ends, which may make others ends: walked again until none is new, as often as a region has such values.
    """
    nodes = [node for node in graph if _is_elementwise(node)]
    ends: set[onnx_ir.Value] = set()
    while True:
        sources = _sources(nodes, ends)
        owners, new = _owners(nodes, sources, ends)
        if not new:
            break
        ends |= new
    members: dict[onnx_ir.Node, list[onnx_ir.Node]] = {}
    for node in nodes:
        if node in owners:
            members.setdefault(owners[node], []).append(node)
    found = (_region(sources[last], group) for last, group in members.items())
    position = {node: index for index, node in enumerate(nodes)}
    return sorted((region for region in found if region), key=lambda region: position[region.nodes[-1]])


def _is_elementwise(node: onnx_ir.Node) -> bool:
    """Whether the node may be part of a region: arithmetic of shapes is in none, and what carries a role lowering put there."""
    dtype = node.outputs[0].dtype
    is_real = dtype is None or dtype.is_floating_point()
    return is_real and node.domain == "" and node.op_type in _ELEMENTWISE and ROLE_KEY not in node.metadata_props


def _sources(nodes: list[onnx_ir.Node], ends: Set[onnx_ir.Value]) -> dict[onnx_ir.Node, onnx_ir.Value]:
    """Node -> the tensor of which its output is a function; nodes that read several are missing."""
    source_of: dict[onnx_ir.Value, onnx_ir.Value] = {}
    sources = {}
    for node in nodes:
        read = _data_inputs(node)
        if node.op_type == "Pow" and (node.inputs[0] not in read or len(read) > 1):
            continue  # only powers with a constant exponent
        found = {source_of.get(value, value) for value in read}
        if len(found) != 1 or not all(_is_scalar(value, read[0], node) for value in node.inputs if value not in read):
            continue
        sources[node] = found.pop()
        if node.outputs[0] not in ends:
            source_of[node.outputs[0]] = sources[node]
    return sources


def _owners(
    nodes: list[onnx_ir.Node], sources: Mapping[onnx_ir.Node, onnx_ir.Value], ends: Set[onnx_ir.Value]
) -> tuple[dict[onnx_ir.Node, onnx_ir.Node], set[onnx_ir.Value]]:
    """Node -> the node that computes what leaves its region; and values that lead to several places, not known as ends yet."""
    owners: dict[onnx_ir.Node, onnx_ir.Node] = {}
    new = set()
    for node in reversed(nodes):
        if node not in sources:
            continue
        value = node.outputs[0]
        readers = [reader for reader, _ in value.uses()]
        inside = all(sources.get(reader) is sources[node] for reader in readers)
        found = {owners[reader] for reader in readers} if inside else set()
        if value not in ends and not value.is_graph_output() and len(found) == 1:
            owners[node] = found.pop()
            continue
        owners[node] = node
        if value not in ends:
            new.add(value)
    return owners, new


def _region(source: onnx_ir.Value, nodes: list[onnx_ir.Node]) -> FunctionRegion | None:
    """The region, or None where everything in it has a fixed-point form of its own."""
    while (
        _is_bend(nodes[0])
        and sum(source in node.inputs for node in nodes) == 1
        and len(nodes) > 1
        and not (_keeps_from_zero(nodes[0]) and any(map(_has_a_pole, nodes)))
    ):
        source, nodes = nodes[0].outputs[0], nodes[1:]
    return FunctionRegion(source, tuple(nodes)) if any(_bends_for_good(node) for node in nodes) else None


def _is_bend(node: onnx_ir.Node) -> bool:
    """Whether the node is a relu, or a Clip: what follows a sum in front of its rounding (L2)."""
    return node.op_type in {"Relu", "Clip"}


def _keeps_from_zero(node: onnx_ir.Node) -> bool:
    """Whether the bounds of a Clip leave zero out; rounded to the 8 bits of its input, they may be zero themselves."""
    bounds = [constant(value) for value in node.inputs[1:]]
    low, high = (None if bound is None else float(bound.item()) for bound in (*bounds, None, None)[:2])
    return node.op_type == "Clip" and ((low is not None and low > 0) or (high is not None and high < 0))


def _has_a_pole(node: onnx_ir.Node) -> bool:
    """Whether the operator has no finite value at zero, or may have none."""
    if node.op_type == "Pow":
        exponent = constant(node.inputs[1])
        return exponent is not None and float(exponent.item()) < 0
    return node.op_type in {"Log", "Reciprocal"} or (node.op_type == "Div" and constant(node.inputs[1]) is None)


def _bends_for_good(node: onnx_ir.Node) -> bool:
    """Whether the operator is neither linear nor a selection."""
    if node.op_type in _SUMS_AND_PRODUCTS:
        several = len(_data_inputs(node)) > 1 and node.op_type not in {"Add", "Sub"}
        return several or node.op_type == "Pow" or (node.op_type == "Div" and constant(node.inputs[0]) is not None)
    return node.op_type in CURVES


def _data_inputs(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The inputs that are no constants, one entry per operand."""
    return [value for value in node.inputs if value is not None and constant(value) is None]


def _is_scalar(value: onnx_ir.Value | None, data: onnx_ir.Value, node: onnx_ir.Node) -> bool:
    """Whether an operand is left out, or a constant of one number by which `data` does not get more dimensions.

    An exponent may be an integer: the power has the type of its base.
    """
    array = constant(value)
    if array is None:
        return value is None
    rank = 0 if data.shape is None else len(data.shape)
    return array.size == 1 and array.ndim <= rank and array.dtype.kind in ("fiu" if node.op_type == "Pow" else "f")
