"""What tf2onnx leaves behind -> the form the passes start from."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir
from onnx import shape_inference, version_converter
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir import (
    IR_VERSION,
    OPSET,
    ModelError,
    UnsupportedError,
    add_initializer,
    constant,
    name_of,
    only_consumer,
    replace_value,
)
from ..nodes import node_of
from ..rewrites.raise_batch_norm import RAISED
from .reduce_in_place import reduce_in_place
from .settle_reshapes import BATCH, settle_reshapes
from .sources import Sources, name_by_sources, record_sources
from .stand_ins import StandIn, put_back

logger = logging.getLogger(__name__)

_IMAGE: Final = 4
"""Rank of a batch of images."""

_COUNTED: Final = "unk__"
"""How inference and tf2onnx name a dimension of which they know nothing, with a number that depends on what ran before."""


def finish(
    proto: onnx.ModelProto, name: str, sources: Sources, inputs: Sequence[str], stand_ins: Mapping[str, StandIn]
) -> onnx_ir.Model:
    """Opset 21, batch norms of rank 2 unwrapped, inputs in order, shapes inferred, sources recorded, names stable.

    Args:
        proto: what tf2onnx wrote.
        name: for messages and as the graph's name.
        sources: the TensorFlow nodes.
        inputs: names of the inputs in their order.
        stand_ins: inputs beyond these that stand for weights; they become initializers once everything is inferred.

    Raises:
        UnsupportedError: an operator that ONNX does not have, or an input that the conversion lost.
        ModelError: shapes that contradict each other, or ill-formed ONNX.
    """
    _refuse_foreign(proto, name)
    _sort_inputs(proto, name, inputs, stand_ins)
    model = onnx_ir.serde.deserialize_model(version_converter.convert_version(proto, OPSET))
    _unwrap_batch_norms(model.graph)
    model = _infer(model, name, len(inputs))
    put_back(model.graph, stand_ins)
    settle_reshapes(model.graph)
    reduce_in_place(model.graph)
    _forget_counters(model.graph)
    RemoveUnusedNodesPass()(model)
    record_sources(model.graph, sources)
    name_by_sources(model.graph, sources)
    model.graph.name = name
    model.graph.doc_string = None
    model.producer_name, model.producer_version = "tqt-onnx", None
    return model


def _refuse_foreign(proto: onnx.ModelProto, name: str) -> None:
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            raise UnsupportedError(f"{name}: operator {node.op_type!r} (node {node.name!r}) is not an ONNX operator")
    standard = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(standard)


def _sort_inputs(proto: onnx.ModelProto, name: str, inputs: Sequence[str], stand_ins: Collection[str]) -> None:
    by_name = {value.name: value for value in proto.graph.input}
    weights = [value for value in by_name if value not in inputs and node_of(value) in stand_ins]
    if set(by_name) - set(weights) != set(inputs):
        raise UnsupportedError(f"{name}: the conversion changed the inputs {', '.join(inputs)}. Received: {sorted(by_name)}")
    ordered = [by_name[wanted] for wanted in (*inputs, *weights)]
    del proto.graph.input[:]
    proto.graph.input.extend(ordered)


def _infer(model: onnx_ir.Model, name: str, count: int) -> onnx_ir.Model:
    """Shapes anew from the inputs'; onnx_ir's own pass swallows errors, so onnx's is used and made strict."""
    model.ir_version = IR_VERSION
    proto = onnx_ir.serde.serialize_model(model)
    del proto.graph.value_info[:]
    _name_sizes(proto.graph.input[:count])  # behind them stand weights
    for value in proto.graph.output:
        _forget_names(value)
    try:
        proto = shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{name}: the converted graph is inconsistent: {str(error).splitlines()[0]}") from error
    return onnx_ir.serde.deserialize_model(proto)


def _name_sizes(inputs: Sequence[onnx.ValueInfoProto]) -> None:
    """Open dimensions by what they are, where tf2onnx counts; those of several inputs need not be equal."""
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        channels_first = len(dims) == _IMAGE and dims[1].HasField("dim_value") and not dims[3].HasField("dim_value")
        letters = BATCH if len(dims) != _IMAGE else f"{BATCH}CHW" if channels_first else f"{BATCH}HWC"
        _forget_names(value)
        for dim, letter in zip(dims, letters, strict=False):
            if not dim.HasField("dim_value"):
                dim.dim_param = letter if len(inputs) == 1 or letter == BATCH else f"{value.name}_{letter}"


def _forget_names(value: onnx.ValueInfoProto) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_param"):
            dim.ClearField("dim_param")


def _forget_counters(graph: onnx_ir.Graph) -> None:
    """Names that inference counted; up to here equal ones say that sizes are equal."""
    for value in (value for node in graph for value in node.outputs):
        if value.shape is not None and any(_is_counted(dim) for dim in value.shape):
            value.shape = onnx_ir.Shape([None if _is_counted(dim) else dim for dim in value.shape])


def _is_counted(dim: int | onnx_ir.SymbolicDim) -> bool:
    return isinstance(dim, onnx_ir.SymbolicDim) and (dim.value or "").startswith(_COUNTED)


def _unwrap_batch_norms(graph: onnx_ir.Graph) -> None:
    """`Reshape to [N,C,1,1] -> BatchNormalization -> Reshape`, made by `raise_batch_norm`: BatchNormalization takes [N,C].

    tf2onnx may have merged either Reshape with a neighbour, so the first one is kept with target [N,C] (and dropped later
    where it is idle), and the second one only where it does more than go back to [N,C].
    """
    for node in list(graph):
        value = node.inputs[0] if node.inputs else None
        before = None if value is None else value.producer()
        if node.op_type != "BatchNormalization" or RAISED not in (node.name or "") or value is None or before is None:
            continue
        after = only_consumer(node.outputs[0])
        target = constant(before.inputs[1]) if before.op_type == "Reshape" else None
        if target is None or target.tolist()[2:] != [1, 1] or after is None or after.op_type != "Reshape":
            logger.debug("%s: is not between two Reshapes and stays of rank 4", node.name)
            continue
        if only_consumer(value) is not node:
            continue
        narrow = add_initializer(graph, f"{name_of(value)}__narrow", target[:2].astype(np.int64))
        before.replace_input_with(1, narrow)
        value.shape = node.outputs[0].shape = onnx_ir.Shape([None, int(target[1])])
        back = constant(after.inputs[1])
        if back is not None and back.tolist() == target[:2].tolist():
            replace_value(after.outputs[0], node.outputs[0])
            graph.remove(after, safe=True)
