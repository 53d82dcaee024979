"""Per-channel factors and terms one behind the other are one factor and one term.

    a = Mul(x, g)
    b = Add(a, h)            is            y = s * x + t,     s = k * g,  t = k * h        float64 [channels]
    y = Mul(b, k)

Passes fold such a chain in one go, so that a weight is rounded once however many small operators stood behind it (B1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir

from ..ir import constant, only_consumer
from .layers import Layer, affine_of, channel_axis_of_output, fold_into, layer_behind
from .rewriting import Float64, drop, is_op, operand_pair

Step = tuple[int, Float64, Float64]
"""Which operand is data, scale and shift per channel."""


@dataclass(frozen=True)
class Chain:
    """`scale * x + shift`, written as several nodes.

    Attributes:
        nodes: in order; each but the last is read by the next one only.
        scale: float64 [channels].
        shift: float64 [channels].
    """

    nodes: tuple[onnx_ir.Node, ...]
    scale: Float64
    shift: Float64

    @property
    def scale_like(self) -> onnx_ir.Value | None:
        """The constant that gives a new weight its name: of the last factor."""
        found = [node for node in self.nodes if not is_op(node, "Add", "Sub")]
        return _parameter(found[-1], 1) if found else None

    @property
    def shift_like(self) -> onnx_ir.Value | None:
        """The constant that gives a new bias its name: of the first term."""
        found = [node for node in self.nodes if not is_op(node, "Mul", "Div")]
        return _parameter(found[0], 2) if found else None

    def collapse(self) -> onnx_ir.Node:
        """The last node reads what the first one read, and the others go; it is for the caller to replace. Returns it."""
        first, last = self.nodes[0], self.nodes[-1]
        if first is not last:
            last.replace_input_with(data_position(last), first.inputs[data_position(first)])
            for node in reversed(self.nodes[:-1]):
                drop(node)
        return last


def data_position(node: onnx_ir.Node) -> int:
    """Which operand of a step is not constant."""
    pair = None if is_op(node, "BatchNormalization") else operand_pair(node)
    return 0 if pair is None else pair[0]


def _parameter(node: onnx_ir.Node, index: int) -> onnx_ir.Value | None:
    """The constant operand; of a batch norm gamma (1) or beta (2)."""
    if is_op(node, "BatchNormalization"):
        return node.inputs[index]
    return next((value for value in node.inputs if constant(value) is not None), None)


def chain_from(first: onnx_ir.Node, step: Callable[[onnx_ir.Node], Step | None]) -> Chain | None:
    """The longest chain that begins with `first`.

    Args:
        first: its first node.
        step: reads a node as scale and shift, or answers None where the chain ends.
    """
    found = step(first)
    if found is None:
        return None
    nodes, (_, scale, shift) = [first], found
    while (reader := only_consumer(nodes[-1].outputs[0])) is not None:
        found = step(reader)
        if found is None or reader.inputs[found[0]] is not nodes[-1].outputs[0]:
            break
        nodes.append(reader)
        scale, shift = found[1] * scale, found[1] * shift + found[2]
    return Chain(tuple(nodes), scale, shift)


def fold_chain(graph: onnx_ir.Graph, layer: Layer, chain: Chain) -> onnx_ir.Node:
    """Folds a chain, whose first node is the layer's only reader, into the layer (B1); returns the layer's node."""
    scales = any(not is_op(node, "Add", "Sub") for node in chain.nodes) or bool((chain.scale != 1).any())
    adds = any(not is_op(node, "Mul", "Div") for node in chain.nodes)
    like = chain.shift_like
    return fold_into(graph, layer, chain.collapse(), chain.scale if scales else None, chain.shift if adds else None, like)


def small_step(rank: int, axis: int, channels: int) -> Callable[[onnx_ir.Node], Step | None]:
    """Reads Add, Sub, Mul and Div with one number per channel."""
    return lambda node: affine_of(node, rank, axis, channels)


@dataclass(frozen=True)
class Place:
    """A layer, and where the output channels are in what it computes."""

    layer: Layer
    rank: int
    axis: int


def place_behind(value: onnx_ir.Value | None) -> Place | None:
    """The layer that produces `value`, and where its channels are; None where the rank of its output is not known."""
    layer = layer_behind(value)
    place = None if layer is None else channel_axis_of_output(layer)
    return None if layer is None or place is None else Place(layer, *place)
