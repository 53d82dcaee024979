"""The moves that rewrites share: take over a name, replace a constant, read a per-channel constant.

Naming rules of all passes: a value that survives keeps its name; where two nodes become one, the result carries the
name of the *last* value, so that graph outputs keep theirs (O3); a changed weight keeps the name of its initializer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import SOURCE_KEY, ModelError, add_initializer, constant, name_of, replace_value

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def is_op(node: onnx_ir.Node | None, *op_types: str) -> bool:
    """Whether the node exists and is one of these operators of the default domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def refuse(logger: logging.Logger, node: onnx_ir.Node, reason: str) -> bool:
    """Logs why a node is left as it is. Always False, so that a rule can end with it."""
    logger.debug("%s %r left as it is: %s", node.op_type, node.name, reason)
    return False


def inherited(*nodes: onnx_ir.Node) -> dict[str, str]:
    """Metadata of a node that replaces `nodes`: theirs; where they differ, the first one's (O4)."""
    merged: dict[str, str] = {}
    for node in reversed(nodes):
        merged.update(node.metadata_props)
    sources = [node.metadata_props[SOURCE_KEY] for node in nodes if SOURCE_KEY in node.metadata_props]
    return merged | ({SOURCE_KEY: sources[0]} if sources else {})


def take_over(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """`new` becomes `old`: its readers, its place among the graph outputs, its type and shape, and its name.

    The node behind `old` loses all readers and is for the caller to remove. `new` must be the output of a node and no
    graph output itself.
    """
    graph = new.graph
    assert graph is not None and new.producer() is not None and not new.is_graph_output()
    name = name_of(old)
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new
    old.replace_all_uses_with(new)
    # Both names stay in the graph's collected names: the one set free is not given out again, which harms nobody.
    old.name, new.name = f"{name}__replaced", name
    if old.shape is not None:
        new.shape = old.shape
    if old.type is not None:
        new.type = old.type


def drop(node: onnx_ir.Node) -> None:
    """Takes a node without readers out of its graph."""
    assert isinstance(node.graph, onnx_ir.Graph)
    node.graph.remove(node, safe=True)


def can_merge_outputs(last: onnx_ir.Value, survivor: onnx_ir.Value) -> bool:
    """Whether readers of `last` may read `survivor` instead without an output name getting lost (O3)."""
    if not last.is_graph_output():
        return True
    return not (survivor.is_graph_input() or survivor.is_graph_output() or survivor.is_initializer() or survivor.producer() is None)


def bypass(logger: logging.Logger, node: onnx_ir.Node, before: onnx_ir.Value | None) -> bool:
    """Takes out a node whose first output is `before`: its readers, and its name if it is a graph output, pass to that value.

    Returns:
        False, with the reason logged, where both names must stay (O3).
    """
    after = node.outputs[0]
    if before is None or not can_merge_outputs(after, before):
        return refuse(logger, node, "the values on both sides have names to keep (O3)")
    if before.shape is None:
        before.shape = after.shape
    if before.dtype is None:
        before.type = after.type
    replace_value(after, before)
    drop(node)
    return True


def set_constant(
    graph: onnx_ir.Graph, node: onnx_ir.Node, index: int, array: Array, like: onnx_ir.Value | None, fallback: str = "constant"
) -> None:
    """Makes `array` the constant that `node` reads at `index`.

    Args:
        graph: the graph of the node.
        node: the reader.
        index: which of its inputs; appended when it is the next one.
        array: contents, of the final dtype.
        like: the constant it comes from. Where nobody else reads that initializer, it is changed in place and keeps
            its name; else a new one is named after it.
        fallback: name where `like` is None.

    Raises:
        ModelError: `array` holds NaN or infinities (Q6).
    """
    name = name_of(like) if like is not None else fallback
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(
            f"{node.op_type} node {node.name!r}: the folded constant {name!r} is not finite; finite weights are expected"
        )
    others = [] if like is None else [reader for reader, position in like.uses() if (reader, position) != (node, index)]
    if like is not None and like.is_initializer() and not like.is_graph_input() and not like.is_graph_output() and not others:
        like.const_value = onnx_ir.tensor(array, name=name)
        like.shape = onnx_ir.Shape(array.shape)
        like.type = onnx_ir.TensorType(like.const_value.dtype)
        value = like
    else:
        value = add_initializer(graph, name, array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def stored(array: Float64, dtype: npt.DTypeLike) -> Array:
    """A float64 result in the type it is stored in (B1); what overflows is refused by `set_constant`."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def channel_vector(array: Array, rank: int, axis: int, channels: int) -> Float64 | None:
    """A constant that broadcasts along one axis only, as a vector of that axis.

    Args:
        array: the constant operand.
        rank: rank of the tensor it meets.
        axis: the channel axis of that tensor, counted from the front.
        channels: length of that axis.

    Returns:
        float64, shape [channels]; None where the constant varies along another axis or would enlarge the tensor.
    """
    if array.ndim > rank or array.dtype.kind != "f":
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for position, size in enumerate(shape) if position != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,)).copy()


def operand_pair(node: onnx_ir.Node) -> tuple[int, Array] | None:
    """For a binary node with one constant operand: position of the *other* operand, and the constant."""
    if len(node.inputs) != 2:
        return None
    left, right = (constant(value) for value in node.inputs)
    if (left is None) == (right is None):
        return None
    return (0, right) if right is not None else (1, left)  # type: ignore[return-value]


Rule = Callable[[onnx_ir.Graph, onnx_ir.Node], bool]
"""One match: rewrites around the node and answers whether it did."""


def rewrite_each(graph: onnx_ir.Graph, rule: Rule, *op_types: str) -> bool:
    """Offers every node of these operators, in graph order, to a rule that may remove nodes; whether any changed."""
    modified = False
    for node in [node for node in graph if is_op(node, *op_types)]:
        if node.graph is graph:
            modified |= rule(graph, node)
    return modified
