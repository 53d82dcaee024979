"""A network for one example at a time: every value with its shape and range, every operation and rounding as one node.

A step of the network is its operations and one rounding. Here they are nodes of one list, so that a layer can be written as one
function with everything in it that is done element by element: `c_kernels` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...ir import UnsupportedError
from ..integers.network import IntegerNetwork, Operation, Step, Tensor
from .ranges import range_of
from .shapes import shape_of
from .types import Range, hull, stored, width

_MOST_ELEMENTS: Final = (1 << 31) - 1
"""Positions are `int`, of 32 bits."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of integers, or what an operation computes before it is rounded.

    Attributes:
        name: of the tensor, or the operation's output.
        shape: for one example, the batch included as 1.
        integers: what can occur.
        ctype: of an array that holds it.
        exponent: binary logarithm of the scale.
        tensor: None before rounding.
    """

    name: str
    shape: tuple[int, ...]
    integers: Range
    ctype: str
    exponent: int
    tensor: Tensor | None

    @property
    def elements(self) -> int:
        """Of one example."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of an array that holds it."""
        return self.elements * width(self.ctype) // 8


@dataclass(frozen=True, slots=True)
class Node:
    """An operation, or the rounding that ends a step.

    Attributes:
        step: what it belongs to; of an operation that several steps share, the first.
        operation: None for a rounding.
        inputs: names of values.
        output: name of a value.
    """

    step: Step
    operation: Operation | None
    inputs: tuple[str, ...]
    output: str


@dataclass(slots=True)
class Values:
    """Everything that is computed for the ends of a network.

    Attributes:
        values: by name.
        nodes: in topological order.
    """

    values: dict[str, Value] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()


def read_values(network: IntegerNetwork) -> Values:
    """Nodes and values that the ends of the network depend on.

    Raises:
        UnsupportedError: an open axis beside the batch, a batch that does not stay the first axis, too many elements, or more
            than 64 bits, naming the layer.
    """
    found = Values()
    values = found.values
    for tensor in network.tensors.values():
        if tensor.kind == "from_float":
            raise UnsupportedError(
                f"target c: tensor {tensor.name!r} is rounded from what a float part computes; integers are accepted"
            )
        if tensor.kind != "computed":
            shape = one_example(tensor.shape, f"tensor {tensor.name!r}")
            values[tensor.name] = _of_tensor(tensor, shape)
    nodes: dict[str, Node] = {}
    for step in network.steps:
        for operation in step.operations:
            if operation.output in nodes:
                continue
            read = [values[name] for name in operation.inputs]
            shape = shape_of(operation, [value.shape for value in read])
            _compare(f"layer {operation.node!r}", shape, operation.shape)
            integers = range_of(operation, [(value.shape, value.integers, value.tensor) for value in read])
            values[operation.output] = Value(operation.output, shape, integers, stored(integers), operation.exponent, None)
            nodes[operation.output] = Node(step, operation, operation.inputs, operation.output)
        tensor, source = network.tensors[step.output], values[step.result]
        _compare(f"layer {step.name!r}", source.shape, tensor.shape)
        values[step.output] = _of_tensor(tensor, source.shape)
        nodes[step.output] = Node(step, None, (step.result,), step.output)
    found.nodes = _needed(nodes, network.ends)
    return found


def one_example(shape: tuple[int | None, ...], what: str) -> tuple[int, ...]:
    """A shape with a batch of one.

    Raises:
        UnsupportedError: another axis is open.
    """
    sizes = [1 if length is None and axis == 0 else length for axis, length in enumerate(shape)]
    known = tuple(length for length in sizes if length is not None)
    if len(known) < len(sizes):
        raise UnsupportedError(
            f"target c: {what}: C arrays have fixed sizes; a shape known but for the batch is accepted. Received: {list(shape)}"
        )
    return known


def _of_tensor(tensor: Tensor, shape: tuple[int, ...]) -> Value:
    """A tensor's value; what a constant can be is what it is."""
    integers = Range(tensor.lower, tensor.upper)
    if tensor.integers is not None and tensor.integers.size:
        integers = Range(int(tensor.integers.min()), int(tensor.integers.max()))
    whole_byte = Range(-128, 127) if tensor.signed else Range(0, 255)  # the quantizer's sign, not that of what happens to occur
    ctype = stored(hull([whole_byte, Range(tensor.lower, tensor.upper)]))
    return Value(tensor.name, shape, integers, ctype, tensor.exponent, tensor)


def _compare(what: str, shape: tuple[int, ...], written: tuple[int | None, ...]) -> None:
    """What the layers make of one example must be what the model says of any number of them."""
    expected = one_example(written, what)
    if shape != expected:
        raise UnsupportedError(
            f"target c: {what}: one example gives {list(shape)}, the model says {list(written)}; a function for one example "
            "needs the batch as the first axis of every tensor"
        )
    if not 0 < math.prod(shape) <= _MOST_ELEMENTS:
        raise UnsupportedError(f"target c: {what}: tensors of 1 to 2^31 - 1 elements are accepted. Received: {list(shape)}")


def _needed(nodes: Mapping[str, Node], ends: tuple[str, ...]) -> tuple[Node, ...]:
    """What the ends depend on."""
    wanted, pending = set(ends), list(ends)
    while pending:
        node = nodes.get(pending.pop())
        fresh = [name for name in (node.inputs if node is not None else ()) if name not in wanted]
        wanted.update(fresh)
        pending += fresh
    return tuple(node for name, node in nodes.items() if name in wanted)
