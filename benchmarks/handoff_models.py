"""What the subcommands of `handoff.py` share: models in front of their Softmax, examples for them, tables."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

import tqt_onnx
from tqt_onnx.ir import fed_inputs, name_of
from tqt_onnx.verbs.sources import Feeder
from tqt_onnx.verify import FixedPoint, Oracle
from tqt_onnx.verify.truncate import last_fixed_values, truncated

Array = npt.NDArray[Any]
BATCH = 20
"""Examples run at once."""


@dataclass(frozen=True)
class Table:
    """What a subcommand found.

    Attributes:
        name: of the file of results.
        title: above the table.
        columns: its head.
        rows: its cells.
        notes: sentences beneath it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    notes: Sequence[str] = ()

    def content(self, command: Sequence[str]) -> dict[str, Any]:
        """As JSON takes it; paths of the command line are left out."""
        return {
            "tqt_onnx": tqt_onnx.__version__,
            "command": [Path(word).name for word in command],
            "title": self.title,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "notes": list(self.notes),
        }


def model_arguments(parser: argparse.ArgumentParser, limit: int) -> None:
    """Quantized models and examples for them."""
    parser.add_argument("models", type=Path, nargs="+", help="Q/DQ models of one input shape")
    parser.add_argument("--data", type=Path, help="examples; standard normal numbers without")
    parser.add_argument("--preprocess", default="none")
    parser.add_argument("--limit", type=int, default=limit)
    parser.add_argument("--seed", type=int, default=0)


def short(path: Path) -> str:
    """Name of a model in tables and files."""
    return path.name.removesuffix(".onnx").removesuffix(".q")


def contract(model: onnx_ir.Model) -> str:
    """`layer16` or `layer32`."""
    return model.metadata_props["tqt_onnx.contract"]


def without_tail(path: Path) -> onnx_ir.Model:
    """The model in front of what stays float at its end (a Softmax), so that all its outputs are integers times a scale."""
    model = tqt_onnx.load(path)
    ends = last_fixed_values(model, Oracle(model).plan)
    return truncated(model, ends) if ends else model


def examples(model: onnx_ir.Model, arguments: argparse.Namespace) -> Iterator[dict[str, Array]]:
    """Batches of feeds."""
    if arguments.data is not None:
        feeder = Feeder(model, arguments.data, preprocess=arguments.preprocess, limit=arguments.limit, seed=arguments.seed)
        yield from feeder.feeds(BATCH)
        return
    rng, inputs = np.random.default_rng(arguments.seed), fed_inputs(model.graph)
    for start in range(0, arguments.limit, BATCH):
        count = min(BATCH, arguments.limit - start)
        shapes = {name_of(value): [size for size in list(value.shape or ())[1:] if isinstance(size, int)] for value in inputs}
        yield {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def oracle_outputs(model: onnx_ir.Model, oracle: Oracle, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Real numbers of every output, in float64."""
    names = [name_of(value) for value in model.graph.outputs]
    found = oracle.run(feeds, keep=names)
    received = {}
    for name in names:
        value = found[name]
        assert isinstance(value, FixedPoint), name
        received[name] = value.real()
    return received


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for exports that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
