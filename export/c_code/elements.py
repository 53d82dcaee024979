"""Moves and element-wise functions: loops over elements whose places on both sides are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ..integers.network import Operation
from .body import Body, Unit, position, shifted
from .kernels import Kernel
from .loops import Nest, affine, broadcast_strides, by_axis, joined, strided
from .moves import FILLED, positions
from .rounding import Expression
from .text import Text
from .types import Range, computed, literal

Integers = npt.NDArray[np.int64]

_VARIABLES: Final = "ijklm"


def write_elementwise(unit: Unit, kernel: Kernel, text: Text) -> None:
    """The content of a function in which every element of the output depends on one element of each operand."""
    own = {node.output for node in kernel.nodes}
    names = [name for node in kernel.nodes for name in node.inputs if unit.program.array(name) not in own]
    shapes = list(dict.fromkeys([kernel.shape, *(unit.program.values[name].shape for name in names)]))
    nest = joined(kernel.shape, [broadcast_strides(shape, kernel.shape) for shape in shapes])
    with text.loops(_loops(nest)):
        terms = _terms(unit, kernel, nest)
        _number(text, terms[0])
        index = {shape: position(*term) for shape, term in zip(shapes, terms, strict=True)}
        index[kernel.shape] = "n"
        Body(unit, kernel, text, lambda shape: index[shape], {}).write(None)


def write_move(unit: Unit, kernel: Kernel, text: Text) -> None:
    """The content of a function that begins with one of `MOVES`: a nest of loops for each part of the output."""
    head, tables = kernel.head, dict[str, str]()
    assert head is not None
    for nest, operand in _parts(unit, kernel, head):
        with text.loops(_loops(nest)) if nest.axes else text.block(""):
            terms = _terms(unit, kernel, nest)
            _number(text, terms[0])
            source = _filling(head) if operand is None else _moved(unit, head, operand, position(*terms[1]))
            body = Body(unit, kernel, text, lambda shape: "n" if shape == kernel.shape else "0", tables)
            body.write(source)


def _moved(unit: Unit, head: Operation, operand: int, index: str) -> Expression:
    return shifted(unit.element(head.inputs[operand], index), head.shifts[operand])


def _filling(head: Operation) -> Expression:
    value = head.attributes["value"]
    integers = Range(value, value)
    return Expression(literal(value, computed(integers, f"layer {head.node!r}: what is filled in")), integers)


def _parts(unit: Unit, kernel: Kernel, head: Operation) -> Iterator[tuple[Nest, int | None]]:
    """Loops over positions in the output and in an operand; None where a number is filled in."""
    places = np.arange(math.prod(kernel.shape), dtype=np.int64).reshape(kernel.shape)
    shapes = [unit.program.values[name].shape for name in head.inputs]
    if head.op == "Concat":
        axis, start = head.attributes["axis"] % len(kernel.shape), 0
        for operand, shape in enumerate(shapes):
            part = places[(slice(None),) * axis + (slice(start, start + shape[axis]),)]
            start += shape[axis]
            yield _nest(part, np.arange(part.size).reshape(part.shape)), operand
        return
    source = positions(head, shapes[0])
    inside = source != FILLED
    if not inside.all():
        yield _nest(places, places), None
        if not inside.any():
            return
        box = np.ix_(*(np.flatnonzero(inside.any(axis=tuple(set(range(inside.ndim)) - {axis}))) for axis in range(inside.ndim)))
        places, source = places[box], source[box]
    yield _nest(places, source), 0


def _nest(places: Integers, source: Integers) -> Nest:
    found = strided([places, source]) or affine(np.stack([places.reshape(-1), source.reshape(-1)]))
    return by_axis(source) if found is None else found


def _loops(nest: Nest) -> list[tuple[str, int | str]]:
    return [(name, axis.size) for name, axis in zip(_names(nest), nest.axes, strict=True)]


def _names(nest: Nest) -> list[str]:
    """A single loop over everything counts the elements itself."""
    if len(nest.axes) == 1 and nest.axes[0].strides[0] == 1 and nest.offsets[0] == 0:
        return ["n"]
    return [_VARIABLES[place] if place < len(_VARIABLES) else f"i_{place}" for place in range(len(nest.axes))]


def _terms(unit: Unit, kernel: Kernel, nest: Nest) -> list[tuple[list[tuple[str, int | str]], int]]:
    """For each sequence the arguments of `position`; tables are written where they are needed."""
    found = []
    for sequence, offset in enumerate(nest.offsets):
        terms: list[tuple[str, int | str]] = []
        for name, axis in zip(_names(nest), nest.axes, strict=True):
            stride = axis.strides[sequence]
            terms.append((name, stride if isinstance(stride, int) else unit.table(kernel.title, "index", stride)))
        found.append((terms, offset))
    return found


def _number(text: Text, terms: tuple[list[tuple[str, int | str]], int]) -> None:
    """`n`, the position in the output, unless it is the loop's own variable."""
    if terms[0] != [("n", 1)]:
        text.line(f"const int n = {position(*terms)};")
