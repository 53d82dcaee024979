"""A program that compares the generated function with golden outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ..base import Source
from .interface import Interface
from .text import Text, array

_MOST_EXAMPLES: Final = 4
_MOST_NUMBERS: Final = 1 << 18
"""Of input and output together, so that the file stays small enough for a compiler on a small machine."""


def write_selftest(interface: Interface, source: Source) -> tuple[str, int] | None:
    """The file and its number of examples; None where there are none."""
    golden = list(_golden(interface, source))
    if not golden:
        return None
    text = Text()
    for line in (
        f"/* {interface.name}: golden inputs and outputs. Prints ok, or the first difference of each output. */",
        "#include <stdio.h>",
        "",
        f'#include "{interface.name}.h"',
        "",
        f"enum {{ EXAMPLES = {len(golden)} }};",
        "",
    ):
        text.line(line)
    for number, argument in enumerate(interface.arguments):
        integers = np.concatenate([example[number].reshape(-1) for example in golden])
        for line in (*array(f"golden_{argument.name}", argument.value.ctype, integers), ""):
            text.line(line)
    outputs = [argument for argument in interface.arguments if not argument.is_input]
    for argument in outputs:
        text.line(f"static {argument.value.ctype} {argument.name}[{argument.macro}_SIZE];")
    text.line()
    text.line("int main(void)")
    text.line("{")
    text.line("    int differences = 0;")
    text.line("    for (int example = 0; example < EXAMPLES; ++example) {")
    given = [
        f"golden_{argument.name} + example * {argument.macro}_SIZE" if argument.is_input else argument.name
        for argument in interface.arguments
    ]
    text.line(f"        {interface.name}_run({', '.join(given)});")
    for argument in outputs:
        text.line(f"        for (int n = 0; n < {argument.macro}_SIZE; ++n) {{")
        text.line(f"            const long wanted = golden_{argument.name}[example * {argument.macro}_SIZE + n];")
        text.line(f"            if ({argument.name}[n] != wanted) {{")
        shown = f'"example %d, {argument.name}[%d]: %ld, expected %ld\\n"'
        text.line(f"                printf({shown}, example, n, (long){argument.name}[n], wanted);")
        text.line("                ++differences;")
        text.line("                break;")
        text.line("            }")
        text.line("        }")
    text.line("    }")
    text.line("    if (differences == 0) {")
    text.line('        printf("ok: %d examples\\n", EXAMPLES);')
    text.line("    }")
    text.line("    return differences != 0;")
    text.line("}")
    return str(text), len(golden)


def _golden(interface: Interface, source: Source) -> Iterator[list[npt.NDArray[np.int64]]]:
    """For each example the integers of every argument, as the oracle computes them."""
    if source.examples is None:
        return
    left, room = _MOST_EXAMPLES, _MOST_NUMBERS
    for feeds in source.examples():
        computed = source.oracle(feeds)
        for place in range(min(len(images) for images in feeds.values())):
            example = [computed[argument.value.name][place] for argument in interface.arguments]
            size = sum(integers.size for integers in example)
            if left == 0 or (size > room and left < _MOST_EXAMPLES):
                return
            left, room = left - 1, room - size
            yield example
