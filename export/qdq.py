"""Target `qdq`: standard Q/DQ ONNX, written so that onnxruntime computes every layer in integers (L11)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ..ir import COMPUTE, QUANTIZERS_KEY, UnsupportedError, save
from .base import Source
from .integers.network import IntegerNetwork
from .qdq_rewrites.bounds import round_before_clips
from .qdq_rewrites.fusion import float_layers
from .qdq_rewrites.storage import remove_unread_constants, store_unsigned, widen_packed_constants

_EXACT: Final = 1 << 24
"""Integers up to here are exact in float32, into which integer kernels turn their sums (X1)."""

_SATURATION: Final = (
    "x86 processors without VNNI need the session option session.x64quantprecision=1, lest 8-bit products saturate (X4)."
)


@dataclass(frozen=True)
class QdqExporter:
    """The model as onnxruntime fuses it to integer kernels: same inputs, same outputs, same numbers."""

    name: ClassVar[str] = "qdq"
    summary: ClassVar[str] = "standard QuantizeLinear/DequantizeLinear ONNX, opset 21, which fuses to integer kernels"
    reader: ClassVar[str] = "onnxruntime"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`: refuses the contract `layer16`."""
        if source.network.contract == "layer32":
            return
        layer = next((node.name for node in source.model.graph if node.op_type in COMPUTE), "")
        raise UnsupportedError(
            f"target qdq: layer {layer!r}: its sum and its bias are rounded to 16 bits each before the layer is rounded to 8; "
            "integer engines add an int32 bias and round once, which gives other numbers, so nothing would be fused; "
            "`quantize --layer-bits 32` makes a model for them. The .q.onnx itself runs in onnxruntime as it is, in float. "
            f"Received: contract {source.network.contract}"
        )

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`: one ONNX file."""
        model = source.model.clone()
        round_before_clips(model.graph)
        widened = widen_packed_constants(model.graph)
        in_float = float_layers(model.graph, {part.node: part.reason for part in source.network.float_parts})
        moved = store_unsigned(model.graph)
        remove_unread_constants(model.graph)
        model.metadata_props.pop(QUANTIZERS_KEY, None)  # it describes other integers
        layers = sum(node.op_type in COMPUTE for node in model.graph)
        save(model, folder / f"{source.name}.onnx")
        notes = [f"{layers - len(in_float)} of {layers} compute layers run in integers in onnxruntime."]
        notes += [f"layer {layer!r} runs in float there: {reason}." for layer, reason in in_float.items()]
        if moved:
            notes.append(f"{moved} int8 tensors are stored as uint8 with zero point 128, the same numbers, and their layers fuse.")
        if widened:
            notes.append(f"{widened} constants of 4 bits are stored in whole bytes: the same integers, and their layers fuse.")
        return (*notes, _SATURATION, *_not_promised(source.network))


def _not_promised(network: IntegerNetwork) -> list[str]:
    """Where onnxruntime's numbers are not proven to be the model's (X2, L12)."""
    operations = [operation for step in network.steps for operation in step.operations]
    notes = [
        f"layer {operation.node!r} has no certificate: its sums can reach {operation.bound:,}, beyond 2^24, where onnxruntime "
        "may round otherwise; the target `integer` is exact there."
        for operation in operations
        if operation.bound is not None and operation.bound > _EXACT
    ]
    tables = sum(operation.op == "Table" for operation in operations)
    if tables:
        notes.append(
            f"{tables} functions of one tensor are computed by their float operators; `check` tells which of them are proven."
        )
    return notes
