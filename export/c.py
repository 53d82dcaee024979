"""Target `c`: one self-contained C99 file with integer arrays and plain loops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import Source
from .c_code.interface import Interface, header
from .c_code.kernels import make_program
from .c_code.memory import Memory, plan_memory
from .c_code.selftest import write_selftest
from .c_code.source import Code, write_source
from .c_code.values import read_values
from .integers.network import IntegerNetwork


@dataclass(frozen=True)
class CExporter:
    """Integer arrays and a reference implementation with shifts, for firmware and for synthesis of hardware from C."""

    name: ClassVar[str] = "c"
    summary: ClassVar[str] = "one C99 file and its header: integer arrays and plain loops; no float, no allocation"
    reader: ClassVar[str] = "any C99 compiler; HLS"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        source.network.require_integers("c")
        translate(source.name, source.network)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        made = translate(source.name, source.network)
        name = made.interface.name
        with (folder / f"{name}.c").open("w", encoding="ascii") as file:
            file.writelines(made.code.text())
        (folder / f"{name}.h").write_text(made.header, encoding="ascii")
        notes = [
            f"{name}_run takes {made.interface.run}: {', '.join(argument.name for argument in made.interface.arguments)}",
            f"{made.memory.bytes} bytes of static memory between layers ({made.memory.bytes_without_reuse} without reuse): "
            "only one call may run at a time",
            f"{made.constant_bytes} bytes of constants",
        ]
        tails = ", ".join(f"{part.node} ({part.op})" for part in source.network.float_parts)
        if tails:
            notes.append(f"left to the host, in floating point: {tails}; outputs are the integers in front of it")
        if name != source.name:
            notes.append(f"files and functions are called {name}: {source.name!r} is no name in C")
        tested = write_selftest(made.interface, source)
        if tested is not None:
            (folder / f"{name}_test.c").write_text(tested[0], encoding="ascii")
            notes.append(f"{name}_test.c compares {tested[1]}: cc -std=c99 {name}.c {name}_test.c && ./a.out")
        return tuple(notes)


@dataclass(frozen=True, slots=True)
class Translation:
    """A network in C.

    Attributes:
        interface: its arguments and names.
        memory: of arrays between layers.
        constant_bytes: of weights, biases and the like, without tables.
        code: the C file, whose constants become text when it is written.
        header: its header.
    """

    interface: Interface
    memory: Memory
    constant_bytes: int
    code: Code
    header: str


def translate(name: str, network: IntegerNetwork) -> Translation:
    """Everything that is written, but for the text of constants.

    Raises:
        UnsupportedError: naming the layer that has no form in C.
    """
    program = make_program(read_values(network), network.ends)
    memory = plan_memory(program)
    interface, code = write_source(name, network, program, memory)
    constants = [program.values[value] for value in {read for kernel in program.kernels for read in kernel.reads}]
    size = sum(value.bytes for value in constants if value.tensor is not None and value.tensor.kind == "constant")
    return Translation(interface, memory, size, code, header(interface, memory.bytes, network.contract))
