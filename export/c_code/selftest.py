"""A program that compares the generated function with golden outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ..base import Source
from .interface import Interface
from .text import Text, array

_MOST_RUNS: Final = 4
_MOST_NUMBERS: Final = 1 << 18
"""Of input and output together, so that the file stays small enough for a compiler on a small machine."""


def write_selftest(interface: Interface, source: Source) -> tuple[str, str] | None:
    """The file, and how much it compares, in words; None where there are no examples."""
    golden = list(_golden(interface, source))
    if not golden:
        return None
    text, one = Text(), "example" if interface.rows == 1 else "run"
    several = "examples" if interface.rows == 1 else f"runs of {interface.rows} examples"
    for line in (
        f"/* {interface.name}: golden inputs and outputs. Prints ok, or the first difference of each output. */",
        "#include <stdio.h>",
        "",
        f'#include "{interface.name}.h"',
        "",
        f"enum {{ {one.upper()}S = {len(golden)} }};",
        "",
    ):
        text.line(line)
    for number, argument in enumerate(interface.arguments):
        integers = np.concatenate([run[number] for run in golden])
        text.lines += "".join(array(f"{argument.name}_golden", argument.value.ctype, integers)).splitlines()
        text.line()
    outputs = [argument for argument in interface.arguments if not argument.is_input]
    for argument in outputs:
        text.line(f"static {argument.value.ctype} {argument.name}[{argument.macro}_SIZE];")
    text.line()
    text.line("int main(void)")
    text.line("{")
    text.line("    int differences = 0;")
    text.line(f"    for (int {one} = 0; {one} < {one.upper()}S; ++{one}) {{")
    given = [
        f"{argument.name}_golden + {one} * {argument.macro}_SIZE" if argument.is_input else argument.name
        for argument in interface.arguments
    ]
    text.line(f"        {interface.name}_run({', '.join(given)});")
    for argument in outputs:
        text.line(f"        for (int n = 0; n < {argument.macro}_SIZE; ++n) {{")
        text.line(f"            const long wanted = {argument.name}_golden[{one} * {argument.macro}_SIZE + n];")
        text.line(f"            if ({argument.name}[n] != wanted) {{")
        shown = f'"{one} %d, {argument.name}[%d]: %ld, expected %ld\\n"'
        text.line(f"                printf({shown}, {one}, n, (long){argument.name}[n], wanted);")
        text.line("                ++differences;")
        text.line("                break;")
        text.line("            }")
        text.line("        }")
    text.line("    }")
    text.line("    if (differences == 0) {")
    text.line(f'        printf("ok: %d {several}\\n", {one.upper()}S);')
    text.line("    }")
    text.line("    return differences != 0;")
    text.line("}")
    return str(text), f"{len(golden)} {several}"


def _golden(interface: Interface, source: Source) -> Iterator[list[npt.NDArray[np.int64]]]:
    """For each run the integers of every argument, flat, as the oracle computes them."""
    if source.examples is None:
        return
    left, room = _MOST_RUNS, _MOST_NUMBERS
    rows = {argument.port: argument.rows for argument in interface.arguments if argument.is_input}
    for feeds in source.examples():
        for place in range(min(len(images) // rows.get(name, 1) for name, images in feeds.items())):
            given = {name: images[place * rows.get(name, 1) :][: rows.get(name, 1)] for name, images in feeds.items()}
            computed = source.oracle(given)
            run = [computed[argument.value.name].reshape(-1) for argument in interface.arguments]
            size = sum(integers.size for integers in run)
            if left == 0 or (size > room and left < _MOST_RUNS):
                return
            left, room = left - 1, room - size
            yield run
