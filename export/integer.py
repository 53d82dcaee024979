"""Target `integer`: ONNX that computes in integers, and everything it consists of as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..ir import save
from .base import Source
from .integer_onnx.model import IntegerModel, build
from .integer_onnx.parameters import write_parameters
from .integers.network import IntegerNetwork


@dataclass(frozen=True)
class IntegerExporter:
    """`NAME.integer.onnx`, `parameters.json`, `weights/*.npy`.

    Attributes:
        integer_io: inputs and outputs are the network's integers; the roundings of its inputs and its float tail are left out.
    """

    name: ClassVar[str] = "integer"
    summary: ClassVar[str] = "ONNX computed in integers, parameters as JSON and NumPy files"
    reader: ClassVar[str] = "onnxruntime; anything that reads JSON and .npy"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    integer_io: bool = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        build(source, integer_io=self.integer_io)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        built = build(source, integer_io=self.integer_io)
        save(built.model, folder / f"{source.name}.integer.onnx")
        write_parameters(source.network, folder, self.rounding)
        return tuple(self._notes(source.network, built))

    def _notes(self, network: IntegerNetwork, built: IntegerModel) -> list[str]:
        notes = []
        wide = [tensor for tensor in network.tensors.values() if tensor.kind != "constant" and tensor.bits > 8]
        if wide:
            notes.append(f"tensors of more than 8 bits are held in int32 ({len(wide)} of them), for want of kernels in int16")
        if built.in_float64:
            names = ", ".join(map(repr, built.in_float64))
            notes.append(f"integers beyond int32 are held in float64, which is exact up to 2^53: {names}")
        if network.unrounded:
            names = ", ".join(f"{part.last.node!r} ({part.last.op})" for part in network.unrounded)
            notes.append(f"handed on without a rounding: computed in integers, then the nearest float32 numbers: {names}")
        inner = [part for part in network.float_parts if not part.is_tail]
        notes += [
            f"node {part.node!r} ({part.op}) stays float between DequantizeLinear and QuantizeLinear: {part.reason}; an engine may "
            "compute it a little otherwise than another, so what follows is exact from the integers it is rounded to"
            for part in inner
        ]
        tail = [part for part in network.float_parts if part.is_tail]
        if tail:
            names = ", ".join(f"{part.node!r} ({part.op})" for part in tail)
            notes.append(f"{names}: {'left out, for the host' if self.integer_io else 'float, behind the last integers'}")
        return notes
