"""Generated C, compiled and run: a program around it reads examples and writes outputs as raw bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.export import IntegerNetwork, Source, Tensor
from tqt_onnx.export.c import CExporter, translate
from tqt_onnx.verbs.export import make_source

Array = np.ndarray[Any, np.dtype[Any]]

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = (*STRICT, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FAST = (*STRICT, "-O3")
_ARGUMENT = re.compile(r"(const )?(u?int\d+_t) (\w+)\[(\w+)_SIZE\]")


def compiler(name: str = "gcc") -> str:
    """Path of a compiler; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no C compiler: {name} is not installed")
    return found


def export_c(model: onnx_ir.Model, folder: Path, name: str = "net") -> Source:
    """Writes the C files of a model."""
    source = make_source(model, name, None)
    CExporter().check(source)  # before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    CExporter().write(source, folder)
    return source


def write_network(network: IntegerNetwork, folder: Path, name: str = "net") -> str:
    """Writes the C files of a network put together by hand; the text of the `.c` file."""
    made = translate(name, network)
    code = "".join(made.code.text())
    (folder / f"{name}.c").write_text(code)
    (folder / f"{name}.h").write_text(made.header)
    return code


def build(folder: Path, flags: Sequence[str] = SANITIZED, name: str = "net") -> Path:
    """Compiles with a program that runs the network on every example it reads."""
    prototype = re.search(rf"void {name}_run\(([^;]*)\);", (folder / f"{name}.h").read_text())
    assert prototype is not None
    arguments = _ARGUMENT.findall(prototype[1])
    assert len(arguments) == prototype[1].count(",") + 1
    lines = [f'#include "{name}.h"', "#include <stdio.h>", "int main(void) {"]
    lines += [f"    static {ctype} {argument}[{macro}_SIZE];" for _, ctype, argument, macro in arguments]
    read = [f"fread({argument}, sizeof {argument}, 1, stdin) == 1" for const, _, argument, _ in arguments if const]
    lines.append(f"    while ({' && '.join(read)}) {{")
    lines.append(f"        {name}_run({', '.join(argument for _, _, argument, _ in arguments)});")
    lines += [f"        fwrite({argument}, sizeof {argument}, 1, stdout);" for const, _, argument, _ in arguments if not const]
    (folder / "main.c").write_text("\n".join([*lines, "    }", "    return 0;", "}", ""]))
    program = folder / "program"
    command = [compiler(), *flags, "-o", str(program), str(folder / f"{name}.c"), str(folder / "main.c")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[:4000]
    return program


def integer_type(tensor: Tensor) -> np.dtype[Any]:
    """Type of an argument."""
    return np.dtype(f"{'int' if tensor.signed else 'uint'}{8 if tensor.bits <= 8 else 16 if tensor.bits <= 16 else 32}")


def storage(source: Source, tensor: str) -> np.dtype[Any]:
    """Type of an argument, by the name of its tensor."""
    return integer_type(source.network.tensors[tensor])


def run(program: Path, source: Source, integers: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by tensor, for examples given as the oracle's integers."""
    inputs = [port.tensor for port in source.network.inputs if port.tensor is not None]
    count = len(integers[inputs[0]])
    given = b"".join(
        integers[tensor][place].astype(storage(source, tensor)).tobytes() for place in range(count) for tensor in inputs
    )
    done = subprocess.run([program], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:4000]
    ends = source.network.ends
    shapes = [integers[tensor].shape[1:] for tensor in ends]
    columns = zip(ends, shapes, strict=True)
    row = np.dtype([(f"f{place}", storage(source, tensor), shape) for place, (tensor, shape) in enumerate(columns)])
    found = np.frombuffer(done.stdout, row)
    assert len(found) == count
    return {tensor: found[f"f{place}"] for place, tensor in enumerate(ends)}


def raw_run(program: Path, inputs: Sequence[Array], tensors: Sequence[Tensor], output: Tensor) -> Array:
    """The integers of the one output of a network, flat, for integers of its inputs, batch first."""
    types = [integer_type(tensor) for tensor in tensors]
    rows = range(len(inputs[0]))
    given = b"".join(array[row].astype(kind).tobytes() for row in rows for array, kind in zip(inputs, types, strict=True))
    done = subprocess.run([program], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:4000]
    return np.frombuffer(done.stdout, integer_type(output)).astype(np.int64)


def assert_same(model: onnx_ir.Model, feeds: Mapping[str, Array], folder: Path, flags: Sequence[str] = SANITIZED) -> Source:
    """What the compiled network computes is what the oracle computes, `==`."""
    source = export_c(model, folder)
    expected = source.oracle(feeds)
    found = run(build(folder, flags), source, expected)
    for tensor in source.network.ends:
        np.testing.assert_array_equal(found[tensor], expected[tensor], err_msg=tensor)
        assert np.unique(expected[tensor]).size > 1 or expected[tensor].size < 4, f"{tensor} says nothing"
    return source
