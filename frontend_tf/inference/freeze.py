"""From a graph without variables to an inference graph: training nodes go, and what lies between the ends is cut out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ...ir import ModelError
from ..frozen import FrozenGraph, GraphDef
from ..nodes import Nodes, ancestors, node_of
from ..rewrites.surgery import Surgery
from ..rewrites.table import CUT, WHOLE, apply
from .cut import cut, import_graph, placeholder_names
from .ends import PLACEHOLDERS, component_shape, find_inputs, find_outputs, resolve
from .free_batch import free_batch
from .refusals import check_ends, check_kept, check_references
from .settle_inputs import settle_inputs

logger = logging.getLogger(__name__)


def freeze_graph_def(
    graph_def: GraphDef,
    where: str,
    name: str,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    input_shape: Sequence[int] | None,
) -> FrozenGraph:
    """Makes an inference graph of a graph without variables, and cuts out the part between its inputs and outputs.

    Args:
        graph_def: variables turned into constants; training nodes may still be there.
        where: what messages call it.
        name: of the model.
        inputs: see `load`.
        outputs: see `load`.
        input_shape: see `load`.

    Raises:
        ModelError: see `load`.
        UnsupportedError: operators that this TensorFlow does not know, control flow that depends on the data, quantized or
            random operators, batch norms in training mode.
    """
    written: Nodes = {node.name: node for node in graph_def.node}
    check_references(where, written)
    given = None if inputs is None else resolve(where, written, inputs, "input")
    asked = None if outputs is None else resolve(where, written, outputs, "output")
    surgery = Surgery(where, graph_def, {node_of(tensor) for tensor in given or ()})
    apply(WHOLE, surgery)
    nodes = surgery.nodes
    known = {surgery.followed(tensor): tensor for tensor in (*(given or ()), *(asked or ()))}
    _check_alive(where, nodes, known)
    now_given = None if given is None else [surgery.followed(tensor) for tensor in given]
    ends = find_outputs(where, nodes, now_given, surgery.bypassed) if asked is None else [surgery.followed(one) for one in asked]
    starts = find_inputs(where, nodes, ends) if now_given is None else now_given
    kept = ancestors(nodes, ends, stop={node_of(start) for start in starts})
    check_ends(where, kept, starts, ends)
    start_nodes = {node_of(start) for start in starts}
    _check_other_outputs(where, nodes, kept, starts)
    check_kept(where, nodes, [one for one in nodes if one in kept - start_nodes], starts, graph_def.library)
    names = placeholder_names(nodes, starts)
    frozen = cut(nodes, kept, names, surgery.result())
    inner = _infer(where, surgery, names)
    batches = settle_inputs(where, frozen, inner, input_shape)
    frozen = _for_any_batch(where, frozen, batches)
    import_graph(where, frozen)
    return FrozenGraph(
        graph_def=frozen,
        input_tensors={_outside_name(known.get(tensor, tensor)): f"{names[tensor]}:0" for tensor in starts},
        output_tensors={_outside_name(known.get(tensor, tensor)): tensor for tensor in ends},
        name=name,
        ranges=_ranges(surgery, kept),
    )


def _check_alive(where: str, nodes: Nodes, tensors: Mapping[str, str]) -> None:
    for tensor, written in tensors.items():
        if node_of(tensor) not in nodes:
            raise ModelError(
                f"{where}: {written!r} is in a branch that only training takes; a tensor of the inference graph is expected"
            )


def _check_other_outputs(where: str, nodes: Nodes, kept: set[str], starts: Sequence[str]) -> None:
    """A node that is cut at one of its outputs is gone for the readers of the others."""
    cut_at = {start.removesuffix(":0") for start in starts}
    cut_nodes = {node_of(start) for start in starts}
    for name in nodes:
        if name not in kept or name in cut_nodes:
            continue
        for tensor in nodes[name].input:
            if not tensor.startswith("^") and node_of(tensor) in cut_nodes and tensor.removesuffix(":0") not in cut_at:
                raise ModelError(
                    f"{where}: node {name!r} reads {tensor!r} of a node that is cut. Received: inputs {', '.join(starts)}"
                )


def _infer(where: str, surgery: Surgery, names: Mapping[str, str]) -> dict[str, tuple[int, list[int | None] | None]]:
    """Placeholder -> element type and shape, for tensors inside the graph at which the user cuts it."""
    tensors = [tensor for tensor in names if surgery.nodes[node_of(tensor)].op not in PLACEHOLDERS]
    if not tensors:
        return {}
    part = cut(surgery.nodes, ancestors(surgery.nodes, tensors, stop=set()), {}, surgery.result())
    graph = import_graph(where, part)
    found = {}
    for tensor in tensors:
        value = graph.get_tensor_by_name(tensor)
        shape = None if value.shape.rank is None else value.shape.as_list()
        if shape is None or None in shape[1:]:
            shape = component_shape(surgery.nodes, tensor) or shape
        found[names[tensor]] = (value.dtype.as_datatype_enum, shape)
    return found


def _for_any_batch(where: str, frozen: GraphDef, batches: Mapping[str, int]) -> GraphDef:
    free_batch(frozen, batches, lambda graph: import_graph(where, graph))
    surgery = Surgery(where, frozen)
    apply(CUT, surgery)
    return surgery.result()


def _ranges(surgery: Surgery, kept: set[str]) -> dict[str, tuple[float, float]]:
    return {_outside_name(tensor): pair for tensor, pair in surgery.ranges.items() if node_of(tensor) in kept}


def _outside_name(tensor: str) -> str:
    """The name users know: `:0` says nothing."""
    return tensor.removesuffix(":0")
