"""What does not depend on the input is computed once.

    c = Mul(a, b)                          <float[1] c = {6.0}>         a = {2}, b = {3}
    y = Add(x, c)                  =>      y = Add(x, c)

    s = Shape(x)                           <int64[2] t = {-1, 48}>      x[n,4,4,3]
    n = Slice(s, 0, 1)             =>      y = Reshape(x, t)
    t = Concat(n, {48})
    y = Reshape(x, t)

Nodes whose inputs are all constant go through ONNX's reference evaluator, one at a time. Parts of shapes that are known
before anything runs are constants too, and a Reshape of whose result only the batch is unknown gets a constant target
with -1 in that place: the number of elements fixes it.

Refused: nodes with subgraphs, random ones, quantization (a DequantizeLinear *is* the encoding of a weight, O2), results
above `limit` elements that are larger than what they are computed from, and what the evaluator does not implement.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx.reference
import onnx_ir

from ..ir import ModelError, add_initializer, constant, name_of, static_shape
from .known_dims import Dims, known_dims
from .rewriting import Array, drop, is_op, refuse

logger = logging.getLogger(__name__)

_NEVER = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
    | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"}
)


@dataclass(frozen=True)
class FoldConstants:
    """Evaluates constant nodes and shapes known beforehand.

    Attributes:
        limit: results of more elements are only kept where they are no larger than the constants behind them.
    """

    name: ClassVar[str] = "fold-constants"
    limit: int = 1 << 20

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred for the second form.

        Raises:
            ModelError: a node with constant inputs cannot be evaluated, for instance because their shapes do not fit.
        """
        modified = False
        dims: dict[onnx_ir.Value, Dims | None] = {}
        for node in list(model.graph):
            if node.domain not in ("", "ai.onnx") or node.op_type in _NEVER:
                continue
            if is_op(node, "Reshape") and constant(node.inputs[1]) is None:
                modified |= _fix_target(model.graph, node, dims)
            if any(value.is_graph_output() for value in node.outputs):
                continue  # O3: an output stays the output of a node
            results = _known_result(node, dims) or self._evaluate(node, model.opset_imports)
            if results:
                _replace(model.graph, node, results)
                modified = True
        return modified

    def _evaluate(self, node: onnx_ir.Node, opsets: dict[str, int]) -> list[Array] | None:
        inputs = [constant(value) for value in node.inputs]
        if not inputs or any(array is None and value is not None for array, value in zip(inputs, node.inputs, strict=True)):
            return None
        if any(
            attribute.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
        ):
            refuse(logger, node, "it holds a subgraph")
            return None
        proto = onnx_ir.serde.serialize_node(node)
        feeds = {
            name_of(value): array
            for value, array in zip(node.inputs, inputs, strict=True)
            if value is not None and array is not None
        }
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [proto],
                "one_node",
                [
                    onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                    for name, array in feeds.items()
                ],
                [onnx.ValueInfoProto(name=name) for name in proto.output if name],
                [onnx.numpy_helper.from_array(array, name) for name, array in feeds.items() if array.size <= self.limit],
            ),
            opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        )
        try:
            size = _result_size(model)
            if size is None or size > max(self.limit, *(array.size for array in feeds.values())):
                refuse(logger, node, f"the result has {size} elements, the limit is {self.limit}")
                return None
            results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
        except NotImplementedError:
            refuse(logger, node, "the reference evaluator does not implement it")
            return None
        except Exception as error:
            raise ModelError(f"{node.op_type} node {node.name!r} has constant inputs but cannot be evaluated: {error}") from error
        if not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
            return None
        return [np.asarray(result) for result in results]


def _result_size(model: onnx.ModelProto) -> int | None:
    """Elements of the largest output, from shape inference: known before memory is spent on it."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    sizes = []
    for output in inferred.graph.output:
        tensor = output.type.tensor_type
        if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            return None
        sizes.append(math.prod(dim.dim_value for dim in tensor.shape.dim))
    return max(sizes, default=None)


def _known_result(node: onnx_ir.Node, dims: dict[onnx_ir.Value, Dims | None]) -> list[Array] | None:
    """The result of a node that takes known entries out of a shape."""
    known = known_dims(node.outputs[0], dims) if len(node.outputs) == 1 else None
    if known is None or not all(isinstance(entry, int) for entry in known.reshape(-1)):
        return None
    dtype = node.outputs[0].dtype
    return None if dtype is None else [known.astype(dtype.numpy())]


def _fix_target(graph: onnx_ir.Graph, node: onnx_ir.Node, dims: dict[onnx_ir.Value, Dims | None]) -> bool:
    """Gives a Reshape a constant target where at most one place of the result is unknown."""
    known = known_dims(node.inputs[1], dims)
    if known is not None and known.ndim == 1 and all(entry != 0 for entry in known):
        result = _resolve(list(known), node.inputs[0])
    else:
        result = static_shape(node.outputs[0])
    if result is None or sum(entry is None for entry in result) > 1 or any(entry is not None and entry <= 0 for entry in result):
        return refuse(logger, node, "its target is computed, and more than the batch is unknown")
    target = np.asarray([-1 if entry is None else entry for entry in result], np.int64)
    node.replace_input_with(1, add_initializer(graph, f"{name_of(node.outputs[0])}__shape", target))
    return True


def _resolve(entries: list[int | str | None], source: onnx_ir.Value | None) -> tuple[int | None, ...] | None:
    """The shape a Reshape to `entries` gives: None for one unknown place."""
    free = [index for index, entry in enumerate(entries) if not isinstance(entry, int)]
    if -1 not in entries:
        return tuple(entry if isinstance(entry, int) else None for entry in entries)
    if not free:
        return tuple(None if entry == -1 else int(entry) for entry in entries if entry is not None)
    # [n, -1]: the -1 takes what n leaves, provided n is the one unknown dimension of the source.
    shape = None if source is None or source.shape is None else [dim if isinstance(dim, int) else dim.value for dim in source.shape]
    if (
        shape is None
        or len(free) != 1
        or entries[free[0]] is None
        or [d for d in shape if not isinstance(d, int)] != [entries[free[0]]]
    ):
        return None
    rest = math.prod(dim for dim in shape if isinstance(dim, int))
    others = math.prod(entry for entry in entries if isinstance(entry, int) and entry != -1)
    if others <= 0 or rest % others:
        return None
    return tuple(
        None if index == free[0] else rest // others if entry == -1 else int(entry)
        for index, entry in enumerate(entries)
        if entry is not None
    )


def _replace(graph: onnx_ir.Graph, node: onnx_ir.Node, results: list[Array]) -> None:
    """Constants take over the names of the node's outputs."""
    outputs = [value for value in node.outputs if value.name]
    names = [name_of(value) for value in outputs]
    for old, name, array in zip(outputs, names, results, strict=True):
        tensor = onnx_ir.tensor(array, name=name)
        value = onnx_ir.Value(
            name=name, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
        )
        old.replace_all_uses_with(value)
        old.name = f"{name}__replaced"
        graph.register_initializer(value)
    drop(node)
