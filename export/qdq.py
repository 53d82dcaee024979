"""Target `qdq`: standard Q/DQ ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..ir import save
from .base import Source


@dataclass(frozen=True)
class QdqExporter:
    """The model as onnxruntime fuses it to integer kernels."""

    name: ClassVar[str] = "qdq"
    summary: ClassVar[str] = "standard QuantizeLinear/DequantizeLinear ONNX, opset 21"
    reader: ClassVar[str] = "onnxruntime"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        save(source.model.clone(), folder / f"{source.name}.onnx")
        return ()
