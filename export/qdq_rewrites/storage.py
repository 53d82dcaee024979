"""The same integers in the types that onnxruntime fuses.

    w (INT4) -> DequantizeLinear                  ->   w (INT8, the same integers) -> DequantizeLinear
    QuantizeLinear (int8, zero point 0) -> DQ     ->   QuantizeLinear (uint8, zero point 128) -> DQ

`round(x / s) + 128` saturated to 0 .. 255 is `round(x / s)` saturated to -128 .. 127, plus 128: the dequantized numbers are the
same. onnxruntime 1.31 fuses a layer only where its input and output have one type; on x86 it makes this change itself, but not
where an int8 tensor has two readers, and with `session.qdqisint8allowed` it does not make it at all (measured).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir

from ...ir import add_initializer, constant, grid_of, name_of, only_consumer

_HALF: Final = 128
"""Zero point of an unsigned byte that stands for a signed one."""

_TRANSPARENT: Final = frozenset({"Identity", "Relu", "Clip"})
"""onnxruntime merges two roundings of one type across these (O5)."""

_PACKED: Final[dict[onnx_ir.DataType, type[np.int8 | np.uint8]]] = {
    onnx_ir.DataType.INT4: np.int8,
    onnx_ir.DataType.UINT4: np.uint8,
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """A computed tensor of 8 bits: its rounding, the bounds behind it (L2), and who dequantizes it."""

    quantize: onnx_ir.Node
    clip: onnx_ir.Node | None
    dequantizes: tuple[onnx_ir.Node, ...]
    signed: bool


def widen_packed_constants(graph: onnx_ir.Graph) -> int:
    """Stores 4-bit constants in whole bytes; returns how many."""
    zeros: dict[type[np.int8 | np.uint8], onnx_ir.Value] = {}
    widened = 0
    for node in graph:
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        found = None if stored is None or stored.const_value is None else stored.const_value
        if stored is None or found is None or found.dtype not in _PACKED:
            continue
        numpy_type = _PACKED[found.dtype]
        integers = found.numpy().astype(numpy_type)
        for reader, _ in tuple(stored.uses()):
            if numpy_type not in zeros:
                zeros[numpy_type] = add_initializer(graph, f"tqt_zero_{np.dtype(numpy_type).name}", np.zeros((), numpy_type))
            reader.replace_input_with(2, zeros[numpy_type])
        stored.const_value = onnx_ir.tensor(integers, name=stored.name)
        stored.type = onnx_ir.TensorType(stored.const_value.dtype)
        widened += 1
    return widened


def store_unsigned(graph: onnx_ir.Graph) -> int:
    """Stores computed int8 tensors as uint8 with zero point 128; returns how many.

    Two roundings that differ in type only by their sign, with one reader in between, keep their types: onnxruntime would merge
    them if they had one (O5).
    """
    tensors = {stored.quantize: stored for stored in _stored(graph)}
    kept = {signed for pair in _pairs(tensors) for signed in pair if tensors[signed].signed}
    zero: onnx_ir.Value | None = None
    changed = 0
    for quantize, stored in tensors.items():
        if not stored.signed or quantize in kept:
            continue
        if zero is None:
            zero = add_initializer(graph, f"tqt_zero_point_{_HALF}", np.array(_HALF, np.uint8))
        for node in (quantize, *stored.dequantizes):
            node.replace_input_with(2, zero)
        quantize.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.UINT8)
        if stored.clip is not None:
            _move_bounds(graph, stored.clip)
        changed += 1
    return changed


def remove_unread_constants(graph: onnx_ir.Graph) -> None:
    """Drops initializers that nobody reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]


def _stored(graph: onnx_ir.Graph) -> Iterator[_Stored]:
    for node in graph:
        if node.op_type != "QuantizeLinear" or grid_of(node).bits != 8:
            continue
        first = only_consumer(node.outputs[0])
        clip = first if first is not None and first.op_type == "Clip" else None
        integers = node.outputs[0] if clip is None else clip.outputs[0]
        readers = [reader for reader, _ in integers.uses()]
        if not integers.is_graph_output() and all(reader.op_type == "DequantizeLinear" for reader in readers):
            yield _Stored(node, clip, tuple(readers), grid_of(node).signed)


def _pairs(tensors: dict[onnx_ir.Node, _Stored]) -> Iterator[tuple[onnx_ir.Node, onnx_ir.Node]]:
    """Roundings of unlike sign that follow each other with one reader and nothing real in between."""
    for quantize, stored in tensors.items():
        for dequantize in stored.dequantizes:
            reader = only_consumer(dequantize.outputs[0])
            while reader is not None and reader.op_type in _TRANSPARENT:
                reader = only_consumer(reader.outputs[0])
            behind = None if reader is None else tensors.get(reader)
            if behind is not None and behind.signed != stored.signed:
                yield quantize, behind.quantize


def _move_bounds(graph: onnx_ir.Graph, clip: onnx_ir.Node) -> None:
    """The bounds of an integer Clip on the moved integers."""
    for index in (1, 2):
        bound = clip.inputs[index] if index < len(clip.inputs) else None
        found = constant(bound)
        if bound is not None and found is not None:
            moved = np.array(int(found) + _HALF, np.uint8)
            clip.replace_input_with(index, add_initializer(graph, f"{name_of(clip.outputs[0])}__bound", moved))
    clip.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.UINT8)
