"""Target `qonnx`: QONNX with `Quant` nodes (H2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir

from .base import Source
from .integers.network import SUMS, IntegerNetwork
from .qonnx_dialect.file import check_size, with_batch_one, write_file
from .qonnx_dialect.gemm import split_gemms
from .qonnx_dialect.quant import QuantForm, check_constants, write_quants


@dataclass(frozen=True)
class QonnxExporter:
    """The network in real numbers with a `Quant` node wherever it is rounded, for one example at a time."""

    name: ClassVar[str] = "qonnx"
    summary: ClassVar[str] = "QONNX: Quant nodes on real numbers, batch 1"
    reader: ClassVar[str] = "qonnx, Brevitas' and hls4ml's ecosystem"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        check_constants(source.network, self.name)
        check_size(self._model(source), self.name)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        opset = write_file(self._model(source), folder / f"{source.name}.onnx")
        return (f"written for one example (batch 1) in opset {opset}", *float_notes(source.network))

    def _model(self, source: Source) -> onnx_ir.Model:
        """What is written, but for its opset."""
        model = with_batch_one(source.model, self.name)
        write_quants(model, source.network, QuantForm(bias_shape=(1,)))
        split_gemms(model)
        return model


def float_notes(network: IntegerNetwork) -> tuple[str, ...]:
    """What an executor that computes in float32 may get wrong, by name."""
    operations = [operation for step in network.steps for operation in step.operations]
    sums = [operation for operation in operations if operation.op in SUMS]
    large = [sum_.node for sum_ in sums if sum_.bound is None or sum_.bound > 1 << 24]
    tables = [operation.node for operation in operations if operation.op == "Table"]
    notes = []
    if large:
        notes.append(f"sums that can leave 2^24, so an executor in float32 may round them: {', '.join(large)}")
    if tables:
        notes.append(f"functions that the executor computes in float32: {', '.join(tables)}")
    floats = [part.node for part in network.float_parts]
    if floats:
        notes.append(f"computed in floating point: {', '.join(floats)}")
    return tuple(notes)
