"""What a function does with one element: element-wise operations and roundings, one local variable after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ...ir import UnsupportedError
from ..integers.network import Operation
from .kernels import Kernel, Program
from .names import Names
from .rounding import Expression, bare, rounded, saturated
from .text import Text, array
from .types import Range, computed, hull, literal, stored
from .values import Node

Index = Callable[[tuple[int, ...]], str]
"""The position, as an expression, of the element of an operand of a given shape."""

_NAMES: Final = {
    **{"Add": "sum", "Sub": "difference", "Mul": "product", "Max": "largest", "Min": "smallest", "Relu": "rectified"},
    **{"Clip": "clipped", "Table": "entry"},
}
"""What local variables are called."""

_SIGNS: Final = {"Add": "+", "Sub": "-", "Mul": "*"}

_MOST_ENTRIES: Final = 1 << 16

_BYTES: Final = (Range(-128, 127), Range(0, 255))
"""A table has an entry for every integer of 8 bits: whatever an array holds, no other memory is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant array, whose text is made when it is written: of all weights it would fill the memory.

    Attributes:
        comment: the line above it, or nothing.
        name: its identifier.
        ctype: of its elements.
        integers: the elements.
    """

    comment: str
    name: str
    ctype: str
    integers: npt.NDArray[np.int64]

    def text(self) -> Iterator[str]:
        """Parts of its text."""
        yield f"/* {self.comment} */\n" if self.comment else ""
        yield from array(self.name, self.ctype, self.integers)
        yield "\n"


@dataclass(slots=True)
class Unit:
    """The file that is written.

    Attributes:
        program: what it computes.
        names: of everything in it.
        arrays: value that owns an array -> its identifier.
        tables: arrays that are no tensors: functions, positions.
    """

    program: Program
    names: Names
    arrays: dict[str, str]
    tables: list[Constant] = field(default_factory=list)

    def table(self, name: str, suffix: str, integers: Sequence[int]) -> str:
        """Adds a constant array; its identifier."""
        made = self.names.make(name, suffix)
        self.tables.append(Constant("", made, stored(Range(min(integers), max(integers))), np.array(integers, np.int64)))
        return made

    def element(self, name: str, index: str) -> Expression:
        """An element of the array that holds a value."""
        owner = self.program.array(name)
        return Expression(f"{self.arrays[owner]}[{index}]", self.program.values[owner].integers)


@dataclass(slots=True)
class Body:
    """Of one element of a function; a function may have several, each in a nest of loops of its own.

    Attributes:
        unit: the file.
        kernel: the function.
        text: where it is written to.
        index: where the operands of an element lie.
        tables: identifiers of tables written already, by operation.
    """

    unit: Unit
    kernel: Kernel
    text: Text
    index: Index
    tables: dict[str, str]
    _known: dict[str, Expression] = field(default_factory=dict)
    _locals: dict[str, int] = field(default_factory=dict)
    _named: list[str] = field(default_factory=list)
    _first: int = 0

    def __post_init__(self) -> None:
        self._first = len(self.text.lines)

    def write(self, head: Expression | None) -> None:
        """All nodes.

        Args:
            head: what the function's first operation gives, where that looks at other elements.
        """
        nodes = list(self.kernel.nodes)
        if head is not None:
            self._keep(nodes.pop(0).output, head)
        for node in nodes:
            values = [self.value(name) for name in node.inputs]
            if node.operation is None:
                tensor = self.unit.program.values[node.output].tensor
                assert tensor is not None
                found = rounded(values[0], node.step.shift, tensor.lower, tensor.upper)
                self._keep(node.output, self.local("rounded", found))
            else:
                self._keep(node.output, self._computed(node, node.operation, values))
        lines = self.text.lines[self._first :]
        for name in self._named:
            if not _is_read(name, lines):
                self.text.line(f"(void){name};")  # a shift leaves nothing of it, or another number is always larger

    def value(self, name: str) -> Expression:
        """What is known of a value here."""
        known = self._known.get(self.unit.program.array(name))
        return known or self.unit.element(name, self.index(self.unit.program.values[name].shape))

    def local(self, stem: str, value: Expression) -> Expression:
        """A variable that holds a value, unless it is one already."""
        if value.text.isidentifier():
            return value
        name = self.fresh(stem)
        self.text.line(f"const {value.ctype} {name} = {bare(value.text)};")
        return Expression(name, value.integers)

    def fresh(self, stem: str) -> str:
        """A name for a local variable."""
        count = self._locals[stem] = self._locals.get(stem, 0) + 1
        self._named.append(stem if count == 1 else f"{stem}_{count}")
        return self._named[-1]

    def _keep(self, name: str, value: Expression) -> None:
        """Remembers a value, and stores it where others read it."""
        self._known[name] = value
        if name in self.kernel.writes:
            output = self.unit.program.values[name]
            self.text.line(f"{self.unit.arrays[name]}[{self.index(output.shape)}] = ({output.ctype}){value.text};")

    def _computed(self, node: Node, operation: Operation, values: list[Expression]) -> Expression:
        """An element-wise operation."""
        result = self.unit.program.values[node.output].integers
        x = [shifted(value, shift) for value, shift in zip(values, operation.shifts, strict=True)]
        op, stem = operation.op, _NAMES[operation.op]
        if op in {"Add", "Sub", "Mul"}:
            wide = computed(hull([result, *(item.integers for item in x)]), "a sum") == "int64_t"
            return self.local(stem, Expression(f"({'(int64_t)' * wide}{x[0].text} {_SIGNS[op]} {x[1].text})", result))
        if op in {"Max", "Min"}:
            found = x[0]
            for other in x[1:]:
                found = self._chosen(found, other, op)
            return found
        if op == "Relu":
            return self._chosen(x[0], Expression("0", Range(0, 0)), "Max", stem)
        if op == "Clip":
            low, high = operation.attributes["low"], operation.attributes["high"]
            first = result.low if low is None else max(min(low, result.high), result.low)
            last = result.high if high is None else min(max(high, result.low), result.high)
            return self.local(stem, saturated(x[0], first, last))
        return self.local(stem, self._entry(operation, x[0], result))

    def _chosen(self, left: Expression, right: Expression, op: str, stem: str = "") -> Expression:
        """The larger or the smaller of two."""
        if (op == "Max" and left.integers.low >= right.integers.high) or (op == "Min" and left.integers.high <= right.integers.low):
            return left
        choose = max if op == "Max" else min
        both = (left.integers, right.integers)
        integers = Range(choose(item.low for item in both), choose(item.high for item in both))
        a, b = (self.local("left", left), right if right.text == "0" else self.local("right", right))
        sign = ">" if op == "Max" else "<"
        return self.local(stem or _NAMES[op], Expression(f"({a.text} {sign} {b.text} ? {a.text} : {b.text})", integers))

    def _entry(self, operation: Operation, x: Expression, result: Range) -> Expression:
        """An entry of a table, which has one for everything that fits the array it is looked up with."""
        first, entries = operation.attributes["first"], operation.attributes["entries"]
        reach = next((byte for byte in _BYTES if x.integers in byte), x.integers)
        if reach.high - reach.low >= _MOST_ENTRIES:
            raise UnsupportedError(
                f"target c: layer {operation.node!r}: a table of at most {_MOST_ENTRIES} entries is accepted. "
                f"Received: integers from {reach.low} to {reach.high}"
            )
        if operation.output not in self.tables:
            whole = [entries[min(max(place - first, 0), len(entries) - 1)] for place in range(reach.low, reach.high + 1)]
            self.tables[operation.output] = self.unit.table(operation.node, "table", whole)
        place = x.text if reach.low == 0 else f"{x.text} {'+' if reach.low < 0 else '-'} {abs(reach.low)}"
        return Expression(f"{self.tables[operation.output]}[{place}]", result)


def _is_read(name: str, lines: Sequence[str]) -> bool:
    """Whether a variable is more than declared and added to."""
    written = re.compile(rf"\s*(?:(?:const )?int\d+_t )?{name} \+?= ")
    read = re.compile(rf"\b{name}\b")
    return any(read.search(line, found.end() if (found := written.match(line)) else 0) for line in lines)


def shifted(value: Expression, shift: int) -> Expression:
    """A left shift, as a product."""
    if shift == 0:
        return value
    wide = value.integers << shift
    factor = literal(1 << shift, computed(hull([wide, Range(0, 1 << shift)]), "a left shift"))
    return Expression(f"({value.text} * {factor})", wide)


def position(terms: Sequence[tuple[str, int | str]], offset: int = 0) -> str:
    """`variable * stride + ...`; a stride that is a text is the name of a table."""
    parts = [
        name if stride == 1 else f"{stride}[{name}]" if isinstance(stride, str) else f"{name} * {stride}"
        for name, stride in terms
        if stride != 0
    ]
    if offset > 0 or not parts:
        parts.append(str(offset))
    return " + ".join(parts) + (f" - {-offset}" if offset < 0 else "")
