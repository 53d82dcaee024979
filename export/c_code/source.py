"""The C file: helpers, constants, one function for each layer, and the one that calls them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..integers.network import MOVES, IntegerNetwork
from .body import Constant, Unit
from .elements import write_elementwise, write_move
from .interface import Interface, make_interface
from .kernels import Kernel, Program
from .memory import Memory
from .names import Names, comment
from .rounding import helpers
from .sums import write_layer
from .text import Text
from .types import width
from .values import Value

_WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Code:
    """The C file.

    Attributes:
        head: everything in front of the constants.
        constants: arrays that are read.
        functions: everything behind them.
    """

    head: str
    constants: tuple[Constant, ...]
    functions: str

    def text(self) -> Iterator[str]:
        """Parts of its text."""
        yield self.head
        for constant in self.constants:
            yield from constant.text()
        yield self.functions


def write_source(title: str, network: IntegerNetwork, program: Program, memory: Memory) -> tuple[Interface, Code]:
    """The interface, and the C file, whose constants are no text yet.

    Args:
        title: name of the model.
        network: what is written.
        program: the same as functions.
        memory: where their arrays lie.

    Raises:
        UnsupportedError: an operation that has no form in C.
    """
    names = Names()
    interface = make_interface(title, network, program, names)
    unit = Unit(program, names, _arrays(interface, program, names))
    functions, calls = Text(), []
    for number, kernel in enumerate(program.kernels, 1):
        calls.append(_function(unit, kernel, number, functions))
    written = str(functions)
    run = Text()
    _run(unit, interface, memory, calls, run)
    lines = [
        f"/* {interface.name}: a quantized network in integers, contract {network.contract}. Written by tqt-onnx.",
        " *",
        " * C99 with nothing but <stdint.h>: no floating point, no allocation, no recursion. Every layer is a function with",
        " * fixed bounds; it ends in a shift, rounded to nearest with ties to even, and a saturation. Sums are accumulated in",
        " * int32_t where their bound fits, else in int64_t; none can overflow while inputs are in the range the header gives.",
        f" * With {interface.name.upper()}_SEPARATE_BUFFERS defined, every array between layers is one of its own.",
        " */",
        f'#include "{interface.name}.h"',
        "",
        "/* Positions and products of integers of 16 bits are int. */",
        f"typedef char {interface.name}_needs_int_of_32_bits[sizeof(int) >= 4 ? 1 : -1];",
        "",
        *helpers(written),
    ]
    written += str(run)
    words = set(_WORDS.findall(written))
    constants = [*(_constant(unit, value) for value in _constants(program)), *unit.tables]
    read = tuple(constant for constant in constants if constant.name in words)
    return interface, Code("\n".join(lines) + "\n", read, written)


def _arrays(interface: Interface, program: Program, names: Names) -> dict[str, str]:
    """Identifier of every array, by the value that owns it."""
    found: dict[str, str] = {}
    for argument in interface.arguments:
        owner = program.array(argument.value.name)
        if argument.is_input or (owner not in found and not _is_given(program.values[owner])):
            found[owner] = argument.name
    for kernel in program.kernels:
        for name in (*kernel.reads, *kernel.writes):
            _name(name, program, names, found)
    for name in program.ends:
        _name(program.array(name), program, names, found)
    return found


def _name(name: str, program: Program, names: Names, found: dict[str, str]) -> None:
    if name not in found:
        tensor = program.values[name].tensor
        found[name] = names.make(name, "wide") if tensor is None else names.make(tensor.value, "q")


def _is_given(value: Value) -> bool:
    """Whether it is not computed: an input or a constant."""
    return value.tensor is not None and value.tensor.kind != "computed"


def _constants(program: Program) -> list[Value]:
    """Constants that something reads."""
    read = {name for kernel in program.kernels for name in kernel.reads} | {program.array(name) for name in program.ends}
    return [value for name, value in program.values.items() if name in read and _is_constant(value)]


def _is_constant(value: Value) -> bool:
    return value.tensor is not None and value.tensor.kind == "constant"


def _constant(unit: Unit, value: Value) -> Constant:
    tensor = value.tensor
    assert tensor is not None and tensor.integers is not None
    bits = f", of {tensor.bits} bits" if tensor.bits != width(value.ctype) else ""
    what = f"{comment(tensor.value)}: {tensor.role or 'constant'} {list(value.shape)}{bits}, scale 2^{value.exponent}"
    return Constant(what, unit.arrays[value.name], value.ctype, np.asarray(tensor.integers))


def _function(unit: Unit, kernel: Kernel, number: int, text: Text) -> str:
    """Writes the function of a layer; the call of it."""
    inputs = [name for name in kernel.reads if not _is_constant(unit.program.values[name])]
    arguments = [(name, "const ") for name in inputs] + [(name, "") for name in kernel.writes]
    declared = []
    for name, qualifier in arguments:
        value = unit.program.values[name]
        declared.append(f"{qualifier}{value.ctype} {unit.arrays[name]}[{math.prod(value.shape)}]")
    called = unit.names.make(kernel.title, "f", f"layer_{number}_")
    _describe(unit, kernel, number, text)
    text.wrapped(f"static void {called}(", declared, ")")
    text.line("{")
    inner = Text()
    head = kernel.head
    if head is None:
        write_elementwise(unit, kernel, inner)
    elif head.op in MOVES:
        write_move(unit, kernel, inner)
    else:
        write_layer(unit, kernel, inner)
    words = set(_WORDS.findall(str(inner)))
    unread = [f"(void){unit.arrays[name]};" for name, _ in arguments if unit.arrays[name] not in words]
    text.lines += [f"    {line}" if line else "" for line in (*unread, *inner.lines)]
    text.line("}")
    text.line()
    return f"{called}({', '.join(unit.arrays[name] for name, _ in arguments)});"


def _describe(unit: Unit, kernel: Kernel, number: int, text: Text) -> None:
    """What a function computes, step by step."""
    text.line(f"/* Layer {number}: {comment(kernel.title)}, {list(kernel.shape[kernel.shape[:1] == (1,) :])}")
    for node in kernel.nodes:
        value = unit.program.values[node.output]
        if node.operation is not None:
            origin = f", from {comment(node.operation.source)}" if node.operation.source else ""
            shifts = f", inputs shifted left by {list(node.operation.shifts)}" if any(node.operation.shifts) else ""
            text.line(f" *   {node.operation.op} {comment(node.operation.node)}{origin}: scale 2^{value.exponent}{shifts}")
        elif value.tensor is not None:
            limits = f"{value.integers.low} .. {value.integers.high}"
            text.line(f" *   rounded to {comment(value.tensor.value)}: scale 2^{value.exponent}, shift {node.step.shift}, {limits}")
    text.line(" */")


def _run(unit: Unit, interface: Interface, memory: Memory, calls: list[str], text: Text) -> None:
    """The function that the header declares."""
    separate = f"{interface.name.upper()}_SEPARATE_BUFFERS"
    if memory.places:
        text.line(f"#ifndef {separate}")
        for bits, elements in memory.arenas.items():
            text.line(f"static int{bits}_t arena_{bits}[{elements}];")
        text.line("#endif")
        text.line()
    text.line(interface.prototype)
    text.line("{")
    if memory.places:
        _buffers(unit, memory, separate, text)
    read = {name for kernel in unit.program.kernels for name in kernel.reads}
    copies = _copies(unit, interface)
    for argument in interface.arguments:
        if argument.is_input and argument.value.name not in read and argument.name not in {source for _, source, _ in copies}:
            text.line(f"    (void){argument.name};")
    for call in calls:
        text.line(f"    {call}")
    for target, source, size in copies:
        for line in (f"for (int n = 0; n < {size}; ++n) {{", f"    {target}[n] = {source}[n];", "}"):
            text.line(f"    {line}")
    text.line("}")


def _buffers(unit: Unit, memory: Memory, separate: str, text: Text) -> None:
    text.line(f"#ifdef {separate}")
    for name, place in memory.places.items():
        text.line(f"    static {unit.program.values[name].ctype} {unit.arrays[name]}[{place.elements}];")
    text.line("#else")
    for name, place in memory.places.items():
        ctype, own = unit.program.values[name].ctype, f"int{place.bits}_t"
        start = f"arena_{place.bits} + {place.offset}"
        text.line(f"    {ctype} *const {unit.arrays[name]} = {start if ctype == own else f'({ctype} *)({start})'};")
    text.line("#endif")
    text.line()


def _copies(unit: Unit, interface: Interface) -> list[tuple[str, str, int]]:
    """Outputs whose array is another one's: an input, a constant or an output in front of it."""
    found = []
    for argument in interface.arguments:
        source = unit.arrays[unit.program.array(argument.value.name)]
        if not argument.is_input and source != argument.name:
            found.append((argument.name, source, math.prod(argument.value.shape)))
    return found
