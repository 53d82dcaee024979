"""Target `saved-model`: the regenerated TensorFlow graph with fixed quantizers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ..ir import UnsupportedError
from .base import Source

_MOST_BYTES: Final = (1 << 31) - (1 << 24)
"""A protobuf file ends at 2 GB; the constants are in it, as float32, and the graph needs some room beside them."""


@dataclass(frozen=True)
class SavedModelExporter:
    """The network in TensorFlow's own operators: integers times powers of two, in float32."""

    name: ClassVar[str] = "saved-model"
    summary: ClassVar[str] = "TensorFlow SavedModel that computes the integers of the model, dequantized"
    reader: ClassVar[str] = "TensorFlow 2, TensorFlow Serving"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        sizes = {tensor.name: 4 * tensor.integers.size for tensor in source.network.constants if tensor.integers is not None}
        total = sum(sizes.values())
        if total > _MOST_BYTES:
            largest = max(sizes, key=lambda name: sizes[name])
            raise UnsupportedError(
                f"target saved-model: constants of {_MOST_BYTES} bytes in float32 are the most that one file of TensorFlow holds, "
                f"and {largest!r} alone has {sizes[largest]}. Received: {total} bytes"
            )

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        source.write_saved_model(folder)
        parts = source.network.float_parts
        if not parts:
            return ()
        inner = "" if all(part.is_tail for part in parts) else ", and what follows them may differ by single integers"
        listed = ", ".join(f"{part.node} ({part.op})" for part in parts)
        return (f"TensorFlow computes in floating point, to a tolerance{inner}: {listed}.",)
