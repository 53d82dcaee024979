"""`c`: sizes of the compiled C file, and its time against onnxruntime with the float model on one thread.

Times are those of the processor: a run of milliseconds on a busy machine is seldom left alone.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from handoff_models import Table, contract, scratch, short
from inference import open_session, random_feeds

import tqt_onnx
from tqt_onnx.verbs.export import export_model

FLAGS: Final = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
ARGUMENT: Final = re.compile(r"(const )?(u?int\d+_t) (\w+)\[(\w+)_SIZE\]")
TURNS: Final = 5
"""The two run in turns, so that both see the machine when it is idle."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    parser.add_argument("float_model", type=Path)
    parser.add_argument("models", type=Path, nargs="+", help="the same, quantized")
    parser.add_argument("--repeats", type=int, default=500, help="runs of each, the best of which counts")
    parser.add_argument("--compiler", default="gcc")


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """One row for each quantized model, bytes but for the last three columns."""
    session = open_session(given.float_model, 1)
    feeds = random_feeds(session, 1)
    rows = []
    for path in given.models:
        model = tqt_onnx.load(path)
        with scratch() as folder:
            result = export_model(model, "c", folder / "out")
            (file,) = (one for one in result.folder.glob("*.c") if not one.stem.endswith("_test"))
            small, fast, apart = (
                sections(given.compiler, file, flags)
                for flags in (("-Os",), ("-O3",), ("-O3", f"-D{file.stem.upper()}_SEPARATE_BUFFERS"))
            )
            program = timed(given.compiler, file)
            best, plain = [], []
            count = max(given.repeats // TURNS, 1)
            for _ in range(TURNS):
                best.append(float(subprocess.run([program, str(count)], capture_output=True, text=True, check=True).stdout))
                for _ in range(count):
                    began = time.process_time()
                    session.run(None, feeds)
                    plain.append(1000 * (time.process_time() - began))
        sizes = (small[".rodata"], small[".text"], fast[".text"], fast[".bss"], apart[".bss"])
        ratio = min(best) / min(plain)
        rows.append((short(path), contract(model), *sizes, f"{min(best):.2f}", f"{min(plain):.3f}", f"{ratio:.0f}"))
    head = ("model", "contract", "constants", "code -Os", "code -O3", "arena", "without reuse", "-O3, ms", "float, ms", "ratio")
    version = subprocess.run([given.compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    yield Table(short(given.models[0]), f"{version}, best of {given.repeats}", head, rows)


def sections(compiler: str, file: Path, flags: tuple[str, ...]) -> dict[str, int]:
    """Bytes of code, constants and memory of the object file; sections like `.text.startup` are parts of them."""
    compiled = file.with_suffix(".o")
    subprocess.run([compiler, *FLAGS, *flags, "-c", "-o", compiled, file], check=True)
    found = dict.fromkeys((".text", ".rodata", ".bss"), 0)
    for line in subprocess.run(["size", "-A", compiled], capture_output=True, text=True, check=True).stdout.splitlines():
        for name in found:
            if line.startswith(name):
                found[name] += int(line.split()[1])
    return found


def timed(compiler: str, file: Path) -> Path:
    """A program that runs the network as often as it is told and prints the processor's milliseconds of the fastest run."""
    name = file.stem
    prototype = re.search(rf"void {name}_run\(([^;]*)\);", file.with_suffix(".h").read_text())
    assert prototype is not None
    found = ARGUMENT.findall(prototype[1])
    arrays = "\n".join(f"static {kind} {argument}[{macro}_SIZE];" for _, kind, argument, macro in found)
    fills = "\n".join(
        f"    for (long i = 0; i < (long)sizeof {argument}; ++i) ((unsigned char *){argument})[i] = (unsigned char)(i * 37 % 128);"
        for const, _, argument, _ in found
        if const
    )
    (file.parent / "main.c").write_text(f"""#define _POSIX_C_SOURCE 199309L
#include "{name}.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
{arrays}
int main(int count, char **words) {{
    double best = 1e9;
    if (count != 2) return 2;
{fills}
    for (long run = atol(words[1]); run > 0; --run) {{
        struct timespec from, to;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        {name}_run({", ".join(argument for _, _, argument, _ in found)});
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        double ms = 1e3 * (double)(to.tv_sec - from.tv_sec) + 1e-6 * (double)(to.tv_nsec - from.tv_nsec);
        if (ms < best) best = ms;
    }}
    printf("%.6f\\n", best);
    return 0;
}}
""")
    program = file.parent / "program"
    subprocess.run([compiler, *FLAGS, "-O3", "-o", program, file, file.parent / "main.c"], check=True)
    return program
