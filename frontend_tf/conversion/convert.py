"""Frozen graph -> ONNX. The only file that knows tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir
import tensorflow as tf
from tf2onnx import tfonnx
from tf2onnx.optimizer import optimize_graph
from tf2onnx.optimizer.back_to_back_optimizer import BackToBackOptimizer
from tf2onnx.optimizer.const_fold_optimizer import ConstFoldOptimizer
from tf2onnx.optimizer.global_pool_optimizer import GlobalPoolOptimizer
from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer
from tf2onnx.optimizer.loop_optimizer import LoopOptimizer
from tf2onnx.optimizer.reshape_optimizer import ReshapeOptimizer
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer, is_transpose, is_useless_transpose
from tf2onnx.optimizer.upsample_optimizer import UpsampleOptimizer

from ...ir import ModelError, UnsupportedError
from ..frozen import FrozenGraph
from ..nodes import data_inputs, node_of, tensor_name
from ..quiet import quiet
from ..rewrites.raise_batch_norm import raise_batch_norm
from ..rewrites.surgery import Surgery
from ..rewrites.table import CONVERSION, apply
from .finish import finish
from .ranges import record_ranges
from .sources import Sources
from .stand_ins import leave_out_weights

_TF2ONNX_OPSET: Final = 18
"""The newest one tf2onnx writes."""

_BATCH_NORM: Final = "BatchNormalization"
_TRANSPOSE: Final = "Transpose"


class _BackToBackWithoutBatchNorm(BackToBackOptimizer):  # type: ignore[misc]  # tf2onnx has no types
    """Collapses pairs of Transpose, Reshape, Cast and Squeeze, but does not see batch norms, which it would fold."""

    def _optimize(self, graph: Any) -> Any:
        hidden = [node for node in graph.get_nodes() if node.type == _BATCH_NORM]
        for node in hidden:
            node.type = f"Hidden{_BATCH_NORM}"
        try:
            return super()._optimize(graph)
        finally:
            for node in hidden:
                node.type = _BATCH_NORM


class _TransposesInOneWalk(TransposeOptimizer):  # type: ignore[misc]
    """Moves every Transpose in each walk over the graph; tf2onnx begins anew behind each move, which takes quadratic time."""

    def _optimize_at_current_graph_level(self, graph: Any) -> Any:
        self._g = graph
        self.pre_optimize_action()
        moved = True
        while moved:
            moved = False
            self._force_stop: dict[str, int] = {}
            for node in [node for node in graph.get_nodes() if node.type == _TRANSPOSE]:
                if graph.get_node_by_name(node.name) is not node:  # gone with one before it
                    continue
                if is_transpose(node) and self._handle_nhwc_tranpose(node):
                    moved = self.graph_been_opt = True
                elif graph.get_node_by_name(node.name) is node and is_useless_transpose(node):
                    self._remove_useless_tranpose(node)
                    moved = True
        self.merge_duplicated_transposes()
        self.post_optimize_action()
        return graph

    def _mul_handler(self, trans: Any, node: Any) -> Any:
        """A Transpose moves behind `x * x`; tf2onnx leaves the square the shape it had, and writes Reshapes of 1x1 images by it."""
        square = node.input[0] == node.input[1]
        moved = super()._mul_handler(trans, node)
        if moved and square:
            self._g.set_shape(node.output[0], self._g.get_shape(node.input[0]))
        return moved


_OPTIMIZERS: Final[Mapping[str, Any]] = {
    "optimize_transpose": _TransposesInOneWalk,
    "remove_redundant_upsample": UpsampleOptimizer,
    "fold_constants": ConstFoldOptimizer,
    "loop_optimizer": LoopOptimizer,
    "reshape_optimizer": ReshapeOptimizer,
    "global_pool_optimizer": GlobalPoolOptimizer,
    "remove_identity": IdentityOptimizer,
    "remove_back_to_back": _BackToBackWithoutBatchNorm,
}
"""tf2onnx's own, in its order, without: `merge_duplication`, which lets layers whose constants happen to be equal share one
initializer (a fresh gamma and variance; they part ways in training), the two that move or drop Q/DQ nodes, and the Einsum
decomposition, which prints."""


def to_onnx(frozen: FrozenGraph) -> onnx_ir.Model:
    """Converts a frozen graph to ONNX opset 21, batch norms unfolded (B0).

    Returns:
        A float model: inputs and outputs named, shaped (NHWC) and ordered as in `frozen`, batch dimension dynamic, shapes
        inferred, constants as initializers, each node with the TensorFlow node it came from in its metadata where known.

    Raises:
        UnsupportedError: an operator that has no ONNX counterpart, named with its TensorFlow node; an input that is not float32.
        ModelError: the result is not valid ONNX.
    """
    _check_inputs(frozen)
    without_weights, stand_ins = leave_out_weights(
        frozen.graph_def, (*frozen.input_tensors.values(), *frozen.output_tensors.values())
    )
    surgery = Surgery(frozen.name, without_weights)
    apply(CONVERSION, surgery)
    graph_def = raise_batch_norm(surgery.result(), tuple(frozen.output_tensors.values()))
    proto = _tf2onnx(graph_def, frozen, stand_ins)
    model = finish(proto, frozen.name, Sources(frozen.graph_def), frozen.inputs, stand_ins)
    _refuse_not_a_number(model, frozen.name)
    record_ranges(model, frozen.ranges)
    return model


def _refuse_not_a_number(model: onnx_ir.Model, name: str) -> None:
    """A NaN among the weights makes everything behind it a NaN (Q6); infinities are legitimate bounds."""
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and array.dtype == np.float32 and np.isnan(array).any():
            raise ModelError(f"{name}: constant {value.name!r} holds a NaN; finite weights are expected (Q6)")


def _check_inputs(frozen: FrozenGraph) -> None:
    types = {node.name: tf.dtypes.as_dtype(node.attr["dtype"].type) for node in frozen.graph_def.node if node.op == "Placeholder"}
    for name, tensor in frozen.input_tensors.items():
        found = types.get(node_of(tensor), tf.float32)
        if found != tf.float32:
            cast = _cast_behind(frozen, tensor)
            behind = f"{cast!r}, where it becomes float32" if cast else "a tensor behind it"
            way_out = f"give {behind}, as the input ({f'--inputs {cast}' if cast else '--inputs NAME'})"
            raise UnsupportedError(f"{frozen.name}: input {name!r}: float32 is expected; {way_out}. Received: {found.name}")


def _cast_behind(frozen: FrozenGraph, tensor: str) -> str | None:
    """The one node that turns an input into float32, where nothing else reads the input."""
    readers = [node for node in frozen.graph_def.node if any(tensor_name(read) == tensor for read in data_inputs(node))]
    one = readers[0] if len(readers) == 1 else None
    if one is None or one.op not in ("Cast", "Identity", "Reshape", "ExpandDims", "Transpose"):
        return None
    return str(one.name) if one.op == "Cast" and one.attr["DstT"].type == tf.float32 else _cast_behind(frozen, f"{one.name}:0")


def _tf2onnx(graph_def: Any, frozen: FrozenGraph, stand_ins: Collection[str] = ()) -> onnx.ModelProto:
    """The model as tf2onnx has it; what stands for a weight is an input behind the others, called as its tensor."""
    ops: dict[str, str] = {node.name: node.op for node in graph_def.node}
    names = {tensor: name for ends in (frozen.input_tensors, frozen.output_tensors) for name, tensor in ends.items()}
    weights = [tensor_name(name) for name in ops if name in stand_ins]
    graph = tf.Graph()
    proto: onnx.ModelProto
    records: list[logging.LogRecord] = []
    try:
        with quiet() as records, graph.as_default():
            tf.import_graph_def(graph_def, name="")
            with tf.compat.v1.Session(graph=graph):
                converted = tfonnx.process_tf_graph(
                    graph,
                    opset=_TF2ONNX_OPSET,
                    input_names=[*frozen.input_tensors.values(), *weights],
                    output_names=list(frozen.output_tensors.values()),
                    tensors_to_rename=names,
                )
                failed = _failed(records, ops)
                if not failed:
                    converted = optimize_graph(converted, catch_errors=False, optimizers=dict(_OPTIMIZERS))
                    proto = converted.make_model(frozen.name)
    except Exception as error:  # tf2onnx raises whatever its handlers run into
        failed = _failed(records, ops)
        reason = " ".join(str(error).split())[:300]
        where = f"operator {failed}" if failed else "the graph"
        raise UnsupportedError(f"{frozen.name}: {where} cannot be converted to ONNX. Received: {reason}") from error
    if failed:
        raise UnsupportedError(f"{frozen.name}: operator {failed} has no ONNX counterpart")
    return proto


def _failed(records: Sequence[logging.LogRecord], ops: Mapping[str, str]) -> str | None:
    """The TensorFlow nodes that tf2onnx complained about, if any: it logs an error with their names and goes on."""
    mentioned = [
        argument
        for record in records
        if record.levelno >= logging.ERROR and isinstance(record.args, tuple)
        for argument in record.args
        if isinstance(argument, str) and argument in ops
    ]
    return ", ".join(f"{ops[name]!r} (node {name!r})" for name in dict.fromkeys(mentioned)) or None
