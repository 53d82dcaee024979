"""Which nodes are one function in C: a layer with everything behind it that is done element by element.

A function begins with what looks at other elements (a sum of products, a pool, a move) or with the first element-wise node, and
takes in every element-wise node behind it that visits the same elements and reads nothing that is computed later. What only it
reads is a local variable there: the 16-bit accumulators of contract `layer16` and the two sides of a leaky relu need no memory.
A move that leaves every element where it is has no function at all: it is another name of the same array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..integers.network import MOVES, Operation
from .moves import positions
from .values import Node, Value, Values

_HEADS: Final = MOVES | {"Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool"}

_FREE: Final = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Moves that never put an element elsewhere; others are looked at."""


@dataclass(slots=True)
class Kernel:
    """One function.

    Attributes:
        shape: of everything it computes.
        nodes: in order; only the first may look at other elements.
        reads: arrays it reads, constants included, in order.
        writes: arrays it writes, in order.
    """

    shape: tuple[int, ...]
    nodes: list[Node]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def head(self) -> Operation | None:
        """What looks at other elements, if anything does."""
        first = self.nodes[0].operation
        return first if first is not None and first.op in _HEADS else None

    @property
    def title(self) -> str:
        """Name of the step that does the work."""
        return self.nodes[0].step.name


@dataclass(slots=True)
class Program:
    """Functions in the order in which they are called.

    Attributes:
        values: all values, by name.
        kernels: the functions.
        same: value -> the value whose array it is another name of.
        ends: of the network, in order.
    """

    values: Mapping[str, Value]
    kernels: list[Kernel]
    same: dict[str, str]
    ends: tuple[str, ...]
    _home: dict[str, int] = field(default_factory=dict)

    def array(self, name: str) -> str:
        """The value that owns the array."""
        return self.same.get(name, name)


def make_program(values: Values, ends: tuple[str, ...]) -> Program:
    """Puts nodes together."""
    program = Program(values.values, [], {}, ends)
    for node in values.nodes:
        original = _is_same(node, program)
        if original is not None:
            program.same[node.output] = program.array(original)
            continue
        place = _place(node, program)
        if place is None:
            program.kernels.append(Kernel(program.values[node.output].shape, [node]))
            place = len(program.kernels) - 1
        else:
            program.kernels[place].nodes.append(node)
        program._home[node.output] = place
    _connect(program)
    return program


def _is_same(node: Node, program: Program) -> str | None:
    """The value of which a node only makes another name."""
    output, source = program.values[node.output], program.values[node.inputs[0]]
    owner, operation = program.values[program.array(source.name)], node.operation
    if owner.tensor is None:
        return None
    if operation is None:
        keeps = node.step.shift == 0 and source.integers in output.integers
        return source.name if keeps and owner.ctype == output.ctype else None
    if operation.op not in MOVES - {"Concat"} or operation.shifts != (0,):
        return None
    if operation.op in _FREE:
        return source.name
    if output.integers != source.integers or np.prod(output.shape) != np.prod(source.shape):
        return None
    moved = positions(operation, source.shape).reshape(-1)
    return source.name if (moved == np.arange(moved.size)).all() else None


def _place(node: Node, program: Program) -> int | None:
    """The function that can take a node in: the last one that computes something it reads.

    What that one computes has as many elements as what the node computes, so the same number means the same element.
    """
    if node.operation is not None and node.operation.op in _HEADS:
        return None
    homes = [program._home.get(program.array(name), -1) for name in node.inputs]
    place, shape = max(homes), program.values[node.output].shape
    if place < 0 or program.kernels[place].shape != shape:
        return None
    outer = [name for name, home in zip(node.inputs, homes, strict=True) if home != place]
    head = program.kernels[place].head
    if (
        head is not None
        and head.op in MOVES
        and any(program.values[name].shape != shape and np.prod(program.values[name].shape) > 1 for name in outer)
    ):
        return None  # its loops are not those of the axes
    return place


def _connect(program: Program) -> None:
    """What functions hand to each other."""
    readers: dict[str, set[int]] = {}
    for place, kernel in enumerate(program.kernels):
        for node in kernel.nodes:
            for name in node.inputs:
                readers.setdefault(program.array(name), set()).add(place)
    kept = {program.array(name) for name in program.ends}
    for place, kernel in enumerate(program.kernels):
        own = {node.output for node in kernel.nodes}
        read = [program.array(name) for node in kernel.nodes for name in node.inputs]
        kernel.reads = tuple(dict.fromkeys(name for name in read if name not in own))
        kernel.writes = tuple(
            node.output for node in kernel.nodes if node.output in kept or readers.get(node.output, {place}) != {place}
        )
