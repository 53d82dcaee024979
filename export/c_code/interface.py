"""What the generated file offers: arguments of its function, names, and the header that declares them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..integers.network import IntegerNetwork
from .kernels import Program
from .names import Names, comment, identifier
from .text import Text
from .types import literal
from .values import Value

_TAKEN: Final = frozenset({"stddef", "stdint", "stdio"})
"""A header of this name could be found in place of the one of the C library."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An array that the caller gives.

    Attributes:
        port: name of the input or output of the model, or of the value that leaves the integer part.
        value: its integers.
        name: of the argument.
        macro: what its macros begin with.
        is_input: whether it is read.
    """

    port: str
    value: Value
    name: str
    macro: str
    is_input: bool

    @property
    def rows(self) -> int:
        """Examples that it holds."""
        return self.value.shape[0] if self.value.shape else 1

    @property
    def declaration(self) -> str:
        """As an argument of a function."""
        return f"{'const ' if self.is_input else ''}{self.value.ctype} {self.name}[{self.macro}_SIZE]"


@dataclass(frozen=True, slots=True)
class Interface:
    """Names that the outside sees.

    Attributes:
        name: what files, functions and macros are called after.
        arguments: inputs in the model's order, then ends.
        rows: examples in one run: what the model fixes its batch to, else 1.
    """

    name: str
    arguments: tuple[Argument, ...]
    rows: int

    @property
    def run(self) -> str:
        """What a call takes, in words."""
        return "one example" if self.rows == 1 else f"one run of {self.rows} examples"

    @property
    def prototype(self) -> str:
        """Of the function that runs the network, in as many lines as it has arguments."""
        separator = ",\n" + " " * len(f"void {self.name}_run(")
        return f"void {self.name}_run({separator.join(argument.declaration for argument in self.arguments)})"


def make_interface(title: str, network: IntegerNetwork, program: Program, names: Names) -> Interface:
    """Arguments and their names."""
    name = identifier(title, "network")
    if name.lower() in _TAKEN:
        name += "_network"
    found = []
    outputs = {port.tensor: port.name for port in reversed(network.outputs)}
    inputs = [(port.name, port.tensor) for port in network.inputs if port.tensor is not None]
    ends = [(outputs.get(end) or program.values[end].name, end) for end in program.ends]
    for is_input, ports in ((True, inputs), (False, ends)):
        for port, tensor in ports:
            value = program.values[tensor]
            real = port if is_input or tensor in outputs or value.tensor is None else value.tensor.value
            made = names.make(real, "q")
            found.append(Argument(real, value, made, f"{name}_{made.removesuffix('_q')}".upper(), is_input))
    return Interface(name, tuple(found), max((argument.rows for argument in found if argument.is_input), default=1))


def header(interface: Interface, arena_bytes: int, contract: str) -> str:
    """The header file."""
    text, guard = Text(), f"{interface.name}_H".upper()
    for line in (
        f"/* {interface.name}: a quantized network in integers, contract {contract}. Written by tqt-onnx.",
        " *",
        " * Arrays are flat, in C order. A real number is its integer times 2^EXPONENT. From a real number x the host makes",
        " *     integer = min(max(round(x / 2^EXPONENT), LOWEST), HIGHEST),",
        " * to the nearest integer, ties to the even one (rintf in its default mode); other integers must not be given.",
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ):
        text.line(line)
    for argument in interface.arguments:
        value = argument.value
        kind = "input" if argument.is_input else "output"
        shape = list(value.shape[1:]) if value.shape[:1] == (1,) else list(value.shape)
        text.line(f"/* {kind} {comment(argument.port)}: {shape}, {value.ctype}, scale 2^{value.exponent} */")
        text.line(f"#define {argument.macro}_SIZE {math.prod(value.shape)}")
        text.line(f"#define {argument.macro}_EXPONENT ({value.exponent})")
        text.line(f"#define {argument.macro}_LOWEST ({literal(value.integers.low)})")
        text.line(f"#define {argument.macro}_HIGHEST {literal(value.integers.high)}")
        text.line()
    for line in (
        "/* Memory between layers, static and shared by all calls: only one call may run at a time. */",
        f"#define {interface.name.upper()}_ARENA_BYTES {arena_bytes}",
        "",
        f"/* Runs the network on {interface.run}. Arguments must not overlap. */",
        f"{interface.prototype};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ):
        text.line(line)
    return str(text)
