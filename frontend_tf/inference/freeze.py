"""From a graph without variables to an inference graph: training nodes go, and what lies between the ends is cut out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ...ir import ModelError
from ..frozen import FrozenGraph, GraphDef
from ..nodes import Nodes, ancestors, data_inputs, node_of
from ..rewrites.surgery import Surgery
from ..rewrites.table import WHOLE, apply
from .cut import cut, import_graph, placeholder_names
from .ends import find_inputs, resolve
from .outputs import find_outputs
from .refusals import check_ends, check_kept, check_references, check_sizes
from .settle_batch import settle_batch
from .settle_inputs import settle_inputs
from .upstream import disarmed, inner_inputs

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
        UnsupportedError: operators that this TensorFlow does not know or that reach outside the graph, control flow that depends
            on the data, quantized or random operators, batch norms in training mode.
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
    if asked is None:
        ends = find_outputs(where, nodes, now_given, surgery.bypassed, lambda: disarmed(nodes, nodes, surgery.frame()))
    else:
        ends = [surgery.followed(one) for one in asked]
    starts = find_inputs(where, nodes, ends) if now_given is None else now_given
    kept = ancestors(nodes, ends, stop={node_of(start) for start in starts})
    check_ends(where, kept, starts, ends)
    start_nodes = {node_of(start) for start in starts}
    _check_other_outputs(where, nodes, kept, starts)
    check_kept(where, nodes, [one for one in nodes if one in kept - start_nodes], starts, graph_def.library)
    names = placeholder_names(nodes, starts)
    check_sizes(where, nodes, kept, starts)
    frame = surgery.frame()
    frozen = cut(nodes, kept, names, frame)
    inner = inner_inputs(where, nodes, names, frame)
    first = settle_inputs(where, frozen, inner, input_shape)
    settled = settle_batch(where, frozen, first, ends)
    import_graph(where, settled.graph_def)
    return FrozenGraph(
        graph_def=settled.graph_def,
        input_tensors={_outside_name(known.get(tensor, tensor)): f"{names[tensor]}:0" for tensor in starts},
        output_tensors={_outside_name(known.get(tensor, tensor)): tensor for tensor in ends},
        name=name,
        ranges=_ranges(surgery, kept),
        written=settled.written,
        rows=settled.rows,
    )


def _check_alive(where: str, nodes: Nodes, tensors: Mapping[str, str]) -> None:
    for tensor, written in tensors.items():
        node = nodes.get(node_of(tensor))
        if node is None or any(node_of(read) not in nodes for read in data_inputs(node)):  # an input outlives what it reads
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


def _ranges(surgery: Surgery, kept: set[str]) -> dict[str, tuple[float, float]]:
    return {_outside_name(tensor): pair for tensor, pair in surgery.ranges.items() if node_of(tensor) in kept}


def _outside_name(tensor: str) -> str:
    """The name users know: `:0` says nothing."""
    return tensor.removesuffix(":0")
