"""Layout changes travel until they meet their inverse, so that an image network computes in NCHW throughout.

    x -> Transpose(0,3,1,2) -> Conv -> Transpose(0,2,3,1) -> Relu -> Transpose(0,3,1,2) -> Conv -> ...
=>  x -> Transpose(0,3,1,2) -> Conv -> Relu -> Conv -> ...

    merge     transpose(transpose(x, p), q) = transpose(x, p[q]); an identity goes; twins on one value become one
    sink      a transpose to channels-last moves down through operators that work in either order of axes; another operand
              that is an image of one pixel is turned with it
    hoist     a transpose to channels-first moves up through them where all readers of the operator want it

Operators and what changes in them: `axis_moves`. An operator keeps the name of its output in either order; a graph
output keeps its name, its order of axes and its values (O3): there the transpose stays behind.

Refused: operators whose inputs come in different orders, outputs between two boundaries whose names must both stay.
Moves go one way only and merges remove nodes, so the loop ends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import ROLE_KEY, add_node, attribute, consumers, name_of, replace_value, static_shape
from .axis_moves import Move, Perm, inverse, move_of
from .rewriting import can_merge_outputs, drop, inherited, is_op, refuse, rewrite_each, set_constant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SinkTransposes:
    """Cancels Transposes, moving them towards each other."""

    name: ClassVar[str] = "sink-transposes"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        modified = False
        while any([rewrite_each(model.graph, rule, "Transpose") for rule in (_merge, _sink, _hoist)]):  # noqa: C419 - each rule runs
            modified = True
        return modified


def perm_of(node: onnx_ir.Node | None) -> Perm | None:
    """The order of axes of a Transpose that states it, None for anything else."""
    if node is None or not is_op(node, "Transpose"):
        return None
    perm: Perm | None = attribute(node, "perm", None)
    return perm


def to_channels_last(rank: int) -> Perm:
    """NCHW -> NHWC for any number of spatial dimensions."""
    return (0, *range(2, rank), 1)


def _is_layout(perm: Perm | None, *, last: bool) -> bool:
    # Below rank 4 the two directions cannot be told apart.
    return perm is not None and len(perm) >= 4 and (perm if last else inverse(perm)) == to_channels_last(len(perm))


def _merge(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source, result, perm = node.inputs[0], node.outputs[0], perm_of(node)
    if source is None or perm is None:
        return False
    if perm == tuple(range(len(perm))):
        return _splice(node, source)
    if not result.is_graph_output():
        for twin in consumers(source):
            if twin is not node and perm_of(twin) == perm and twin.graph is node.graph and _precedes(twin, node):
                result.replace_all_uses_with(twin.outputs[0])
                drop(node)
                return True
    before = source.producer()
    first = perm_of(before)
    if before is None or first is None or before.inputs[0] is None:
        return False
    both = tuple(first[axis] for axis in perm)
    if both == tuple(range(len(perm))):
        return _splice(node, before.inputs[0])
    node.replace_input_with(0, before.inputs[0])
    node.attributes["perm"] = onnx_ir.AttrInt64s("perm", list(both))
    _drop_unread(before)
    return True


def _precedes(first: onnx_ir.Node, second: onnx_ir.Node) -> bool:
    assert isinstance(first.graph, onnx_ir.Graph)
    return next(node for node in first.graph if node is first or node is second) is first


def _splice(node: onnx_ir.Node, survivor: onnx_ir.Value) -> bool:
    if not can_merge_outputs(node.outputs[0], survivor):
        return refuse(logger, node, f"{survivor.name!r} and {node.outputs[0].name!r} are both names to keep (O3)")
    before = None if node.inputs[0] is None else node.inputs[0].producer()
    replace_value(node.outputs[0], survivor)
    drop(node)
    _drop_unread(before)
    return True


def _drop_unread(node: onnx_ir.Node | None) -> None:
    if node is not None and is_op(node, "Transpose") and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
        drop(node)


def _sink(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Moves a channels-last transpose below each reader that works in either order."""
    perm = perm_of(node)
    if perm is None or not _is_layout(perm, last=True):
        return False
    modified = False
    for reader in consumers(node.outputs[0]):
        move = None if ROLE_KEY in reader.metadata_props or reader.graph is not graph else move_of(reader, perm)
        if move is None:
            continue
        sources = [reader.inputs[index] for index in move.data]
        if not all(source is not None and (perm_of(source.producer()) == perm or _is_pixel(source, perm)) for source in sources):
            refuse(logger, reader, "its inputs come in different orders of axes")
            continue
        for index, source in zip(move.data, sources, strict=True):
            transpose = None if source is None else source.producer()
            assert source is not None
            if transpose is not None and perm_of(transpose) == perm:
                reader.replace_input_with(index, transpose.inputs[0])
            else:
                reader.replace_input_with(index, _turned(graph, source, inverse(perm), reader))
        _change(graph, reader, move)
        for value in [value for value in reader.outputs if value.name]:
            _transpose_behind(graph, reader, value, move.perm)
        modified = True
    _drop_unread(node)
    return modified


def _is_pixel(value: onnx_ir.Value, perm: Perm) -> bool:
    """Whether a value is an image [n, 1, 1, c] of one pixel, whose transpose is a Reshape (squeeze-and-excite)."""
    shape = static_shape(value)
    return shape is not None and len(shape) == len(perm) and all(dim == 1 for dim in shape[1:-1])


def _turned(graph: onnx_ir.Graph, value: onnx_ir.Value, perm: Perm, before: onnx_ir.Node) -> onnx_ir.Value:
    """A Transpose of the value in front of a node."""
    turned = add_node(
        graph, "Transpose", [value], f"{name_of(value)}__nchw", attributes={"perm": perm}, before=before, like=value,
        metadata=inherited(before),
    )  # fmt: skip
    if value.shape is not None:
        turned.shape = onnx_ir.Shape([value.shape[axis] for axis in perm])
    return turned


def _transpose_behind(graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value, perm: Perm) -> None:
    """`value` changes its order of axes; what reads it now reads its transpose."""
    if perm == tuple(range(len(perm))):
        return
    old_shape, readers = value.shape, list(value.uses())
    turned = add_node(
        graph,
        "Transpose",
        [value],
        f"{name_of(value)}__nhwc",
        attributes={"perm": perm},
        after=node,
        like=value,
        metadata=inherited(node),
    )
    for reader, index in readers:
        reader.replace_input_with(index, turned)
    if value.is_graph_output():
        name = name_of(value)
        graph.outputs[list(graph.outputs).index(value)] = turned
        value.name, turned.name = f"{name}__nchw", name
    if old_shape is not None:
        value.shape = onnx_ir.Shape([old_shape[axis] for axis in inverse(perm)])


def _hoist(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Moves a channels-first transpose above the operator it reads, where nobody wants the other order."""
    perm, value = perm_of(node), node.inputs[0]
    operator = None if value is None else value.producer()
    if perm is None or value is None or operator is None or not _is_layout(perm, last=False):
        return False
    if value.is_graph_output() or len(operator.outputs) != 1 or ROLE_KEY in operator.metadata_props:
        return False
    move = move_of(operator, inverse(perm))
    if move is None or move.perm != inverse(perm) or any(perm_of(reader) != perm for reader in consumers(value)):
        return False
    sources = [operator.inputs[index] for index in move.data]
    if sum(source is None or not _is_layout(perm_of(source.producer()), last=True) for source in sources) > 1:
        return refuse(logger, operator, "more than one of its inputs would need a transpose of its own")
    if (
        any(not can_merge_outputs(reader.outputs[0], value) for reader in consumers(value))
        or sum(reader.outputs[0].is_graph_output() for reader in consumers(value)) > 1
    ):
        return refuse(logger, node, "its output has a name to keep (O3)")
    for index, source in zip(move.data, sources, strict=True):
        assert source is not None
        operator.replace_input_with(index, _turned(graph, source, perm, operator))
    _change(graph, operator, move)
    if value.shape is not None:
        value.shape = onnx_ir.Shape([value.shape[axis] for axis in perm])
    for reader in consumers(value):
        replace_value(reader.outputs[0], value)
        drop(reader)
    return True


def _change(graph: onnx_ir.Graph, node: onnx_ir.Node, move: Move) -> None:
    for index, array in move.constants.items():
        set_constant(graph, node, index, array, node.inputs[index])
    for name, value in move.attributes.items():
        node.attributes[name] = onnx_ir.AttrInt64(name, value) if isinstance(value, int) else onnx_ir.AttrInt64s(name, list(value))
