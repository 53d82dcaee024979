"""The numbers of the pages in `docs/handoff`, one subcommand for each kind: what the written files cost, and how far they agree.

    python benchmarks/handoff.py agree qdq net.q.onnx --data images --preprocess inception --limit 20
    python benchmarks/handoff.py integer net.q.onnx
    python benchmarks/handoff.py kernels
    python benchmarks/handoff.py rounding net.q.onnx --data images --limit 50
    python benchmarks/handoff.py finn net.q.onnx --data images --limit 50 --tensors
    python benchmarks/handoff.py tflite net.q.onnx --data images --limit 100
    python benchmarks/handoff.py c net.onnx net.l16.q.onnx net.l32.q.onnx
    TQT_ONNX_DATA=../shared/data python benchmarks/handoff.py dpu resnet8 mobilenet25 digits

Models are float ONNX as `convert` writes it and Q/DQ models as `quantize` does. Those of the pages: digits as in `tqt-onnx demo`;
resnet8_cifar10 with `--calibration cifar10_train.zip --limit 100 --seed 0`, examples from cifar10_test.zip; the mobilenets with
`--calibration imagenet --preprocess inception --limit 50 --seed 0 --tune`, examples from imagenet.
Prints a table and writes `results/handoff_*.json`.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

import handoff_agree
import handoff_c
import handoff_dpu
import handoff_integer
import handoff_rounding
import handoff_tflite
from handoff_models import Table
from inference import write

from tqt_onnx.report import make_console, table

COMMANDS: Final[dict[str, Any]] = {
    "agree": handoff_agree,
    "integer": handoff_integer,
    "kernels": handoff_integer.Kernels,
    "rounding": handoff_rounding,
    "finn": handoff_rounding.Finn,
    "tflite": handoff_tflite,
    "c": handoff_c,
    "dpu": handoff_dpu,
}
"""Subcommand -> what declares its arguments (`arguments`) and measures (`measure`)."""


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, help=(command.__doc__ or "").partition("\n")[0].partition(": ")[2]))
    arguments = parser.parse_args()
    for found in COMMANDS[arguments.command].measure(arguments):
        show(found)
        write(f"handoff_{arguments.command}_{found.name}.json", found.content(sys.argv[1:]))


def show(found: Table) -> None:
    """One table, and what is said beneath it."""
    console = make_console()
    console.print(table(found.title, found.columns, found.rows))
    for note in found.notes:
        console.print(note, markup=False, highlight=False)


if __name__ == "__main__":
    main()
