"""Target `vectors`: golden vectors for test benches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from ..ir import DataError, UnsupportedError, UsageError
from .base import Source
from .integers.network import IntegerNetwork
from .vector_files.batches import rows_are_examples
from .vector_files.files import Recorder, examples_per_run, runs
from .vector_files.manifest import manifest
from .vector_files.memory_files import fits, hex_digits, storage

MANIFEST: Final = "manifest.json"

MOST_BYTES: Final = 4_000_000_000
"""Of all files together; a test bench needs few examples."""

_FEW: Final = 3
"""Names in a note."""


@dataclass(frozen=True)
class VectorsExporter:
    """Every integer tensor of the network for each example, and what each step computes of them."""

    name: ClassVar[str] = "vectors"
    summary: ClassVar[str] = "golden vectors: every tensor's integers for each example as .npy and .mem, with a manifest"
    reader: ClassVar[str] = "test benches ($readmemh, NumPy)"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = True

    def check(self, source: Source) -> None:
        """As `Exporter.check`.

        Raises:
            UnsupportedError: integers that are wider than the words of their tensor, or files that would be too large.
            DataError: examples that do not fill the last run of a model that takes several at once.
            UsageError: no data.
        """
        _check_widths(source.network)
        if source.examples is None:
            raise UsageError("target vectors writes examples: --data is expected")
        if source.count is not None:
            _check_count(source.network, source.count)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        assert source.examples is not None
        size = examples_per_run(source.network)
        recorder = Recorder(source.network, folder)
        for feeds in runs(source.examples(), None if rows_are_examples(source.network) else size):
            recorder.record(feeds, source.oracle(feeds))
        recorder.close()
        text = json.dumps(manifest(source, recorder, size, self.rounding), indent=1, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return tuple(_notes(source.network, recorder.runs * size, folder))


def _check_widths(network: IntegerNetwork) -> None:
    for tensor in network.tensors.values():
        ends = np.array([tensor.lower, tensor.upper]) if tensor.integers is None else tensor.integers
        if not fits(ends, tensor.bits, tensor.signed):
            raise UnsupportedError(
                f"target vectors: tensor {tensor.name!r}: words of {tensor.bits} bits, "
                f"{'signed' if tensor.signed else 'unsigned'}, are expected. Received: {ends.min()} to {ends.max()}"
            )


def _check_count(network: IntegerNetwork, count: int) -> None:
    size = examples_per_run(network)
    if count % size:
        raise DataError(f"target vectors: the model takes {size} examples at once; whole runs are expected. Received: {count}")
    once, each = _sizes(network, size)
    total = once + each * (count // size)
    if total > MOST_BYTES:
        fit = max(MOST_BYTES - once, 0) // each * size
        wanted = f"--limit {fit} or less is expected" if fit else "not even one example fits"
        raise UnsupportedError(
            f"target vectors: at most {_gigabytes(MOST_BYTES)} of files are written; {wanted}. "
            f"Received: {count} examples, {_gigabytes(total)}"
        )


def _sizes(network: IntegerNetwork, size: int) -> tuple[int, int]:
    """Bytes of constants, and of one run, without headers."""
    totals = [0, 0]
    for tensor in network.tensors.values():
        words = math.prod(size if axis is None else axis for axis in tensor.shape)
        bytes_each = np.dtype(storage(tensor.bits, tensor.signed)).itemsize + hex_digits(tensor.bits) + 1
        totals[tensor.kind != "constant"] += words * bytes_each
    floats = sum(math.prod(size if axis is None else axis for axis in port.shape) for port in network.inputs)
    return totals[0], totals[1] + 4 * floats


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _notes(network: IntegerNetwork, examples: int, folder: Path) -> Iterator[str]:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield f"{examples} examples, {len(network.tensors)} tensors: {total / 1e6:,.1f} MB."
    for what, is_tail in (
        ("Float parts are no steps; what is quantized behind them is recorded as given", False),
        ("The float tail is left out", True),
    ):
        nodes = [part.node for part in network.float_parts if part.is_tail == is_tail]
        if nodes:
            yield f"{what} ({', '.join(nodes[:_FEW])}{', ...' if len(nodes) > _FEW else ''})."
    unrounded = [part.last.node for part in network.unrounded]
    if unrounded:
        more = ", ..." if len(unrounded) > _FEW else ""
        yield f"What is handed on without a rounding is described, its numbers are left out ({', '.join(unrounded[:_FEW])}{more})."
