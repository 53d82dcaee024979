"""ONNX as a source: a file that another tool wrote, as the passes want it.

    read -> functions unfolded -> refusals -> opset 21 -> open batch, shapes -> types -> names and sources

Nothing that a network computes is changed on the way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnx
import onnx_ir

from ..ir.errors import ModelError
from ..ir.graph import ROLE_KEY, SOURCE_KEY
from ..ir.opset import IR_VERSION
from ..ir.reading import check, deserialize, label, read
from ..ir.store import QUANTIZERS_KEY
from .foreign import refuse_boundary, refuse_nan, refuse_nodes, refuse_types
from .inline import inline_functions
from .lift import check_opset, lift
from .open_batch import open_batch
from .plain_constants import name_by_readers, plain_constants

_FREE_INITIALIZERS: Final = 4
"""From this IR version on initializers need not be inputs; here they never are."""


def adopt(path: str | os.PathLike[str], input_shape: Sequence[int] | None = None) -> onnx_ir.Model:
    """Reads a float ONNX model of any tool.

    Args:
        path: an `.onnx` file of opset 7 or newer; external data lies in its own folder.
        input_shape: shape of the inputs without the batch, in the layout of the file (often C, H, W), where it is left open.

    Returns:
        The same network in opset 21: float32 inputs in their order and under their names, the batch open, shapes inferred,
        initializers that were inputs too (their defaults) constant, every node named and with its name in the file as source.

    Raises:
        ModelError: unreadable, ill-formed, quantized already, of unknown shape, or of an opset or IR version that is not known.
        UnsupportedError: control flow, foreign or quantized operators, training mode, other float types, a fixed batch.
    """
    file = Path(path)
    proto = _checked(file)
    if any(entry.key == QUANTIZERS_KEY for entry in proto.metadata_props):
        raise ModelError(f"{file}: the model is quantized already; a float model is expected")
    proto = inline_functions(proto, file)
    refuse_nodes(proto, file)
    _fix_defaults(proto.graph)
    refuse_boundary(proto, file)
    _record_sources(proto.graph)
    plain_constants(proto.graph, file)
    known = frozenset(tensor.name for tensor in proto.graph.initializer)
    proto = lift(proto, file)
    plain_constants(proto.graph, file)  # attributes that have become inputs
    name_by_readers(proto.graph, known)
    proto = open_batch(proto, file, input_shape)
    refuse_types(proto, file)
    refuse_nan(proto, file)
    _name(proto.graph)
    check(proto, file)
    return deserialize(proto, file)


def as_written(path: str | os.PathLike[str]) -> onnx_ir.Model:
    """The file as it is, in its own opset: what a model made from it is compared with.

    Only nodes of one name get names of their own, and inputs that have a default are constant: otherwise onnxruntime would
    refuse the former, and run the latter with other kernels.

    Raises:
        ModelError: unreadable or ill-formed.
        UnsupportedError: sparse tensors, or more than 2 GB.
    """
    proto = _checked(Path(path))
    _fix_defaults(proto.graph)
    _name(proto.graph)
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:  # how some exporters write an open dimension
                dim.Clear()
    proto.ir_version = min(proto.ir_version, IR_VERSION)  # the opset says what is in it; newer ones onnxruntime does not read
    return deserialize(proto, path)


def _checked(file: Path) -> onnx.ModelProto:
    """Well-formed, but for types of outputs and shapes, which need not be given: they are inferred."""
    proto = read(file)
    check_opset(proto, file)
    proto.ir_version = max(proto.ir_version, _FREE_INITIALIZERS)
    outputs = [value for value in proto.graph.output if value.type.WhichOneof("value") in (None, "tensor_type")]
    inputs = [value for value in proto.graph.input if value.type.HasField("tensor_type")]
    untyped = [value for value in outputs if not value.type.tensor_type.elem_type]
    unshaped = [value for value in (*inputs, *outputs) if not value.type.tensor_type.HasField("shape")]
    for value in unshaped:
        value.type.tensor_type.shape.SetInParent()
    for value in untyped:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    check(proto, file)
    for value in unshaped:
        value.type.tensor_type.ClearField("shape")
    for value in untyped:
        value.ClearField("type")
    return proto


def _fix_defaults(graph: onnx.GraphProto) -> None:
    """Initializers are no inputs, as IR version 3 wanted them to be: nobody feeds weights."""
    constants = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(fed)


def _record_sources(graph: onnx.GraphProto) -> None:
    """Every node's name in the file goes into its metadata; no role is taken from a file."""
    for node in graph.node:
        node.domain = ""  # or ai.onnx, which is the same
        kept = [(entry.key, entry.value) for entry in node.metadata_props if entry.key != ROLE_KEY]
        if SOURCE_KEY not in dict(kept):
            kept.append((SOURCE_KEY, label(node)))
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)


def _name(graph: onnx.GraphProto) -> None:
    """Every node gets a name of its own; onnxruntime refuses two of one name."""
    taken: set[str] = set()
    for node in graph.node:
        wanted, count = label(node), 0
        node.name = wanted
        while node.name in taken:
            count += 1
            node.name = f"{wanted}_{count}"
        taken.add(node.name)
