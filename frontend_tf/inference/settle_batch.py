"""Which inputs have a batch in front, and the graph for any size of it.

x [1,224,224,3]                    ->   x [?,224,224,3]     its reshapes freed (`free_batch`)
x [?,4], anchors [7,4]             ->   as they are         anchors is no batch
x [1,4,4,6] ... Squeeze(axis 0)    ->   as it is            with two examples there is nothing to squeeze

An input whose first dimension is a number is opened with the others of that number, and only where the graph then gives
rows for each example. What was changed is kept beside the graph as it was, so that the graph can be run as it was written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...ir import ModelError
from ..frozen import GraphDef
from ..nodes import constant_of, data_inputs
from ..rewrites.surgery import Surgery
from ..rewrites.table import CUT, apply
from .cut import import_graph
from .free_batch import STAND_IN, free_reshapes, restore, set_batch, wrongly_freed

logger = logging.getLogger(__name__)

_DECONVOLUTION: Final = "Conv2DBackpropInput"
_TOUCHED: Final = ("Placeholder", "Reshape", _DECONVOLUTION)


@dataclass(frozen=True)
class AnyBatch:
    """A graph, and what it was before its batch was opened.

    Attributes:
        graph_def: the graph for any batch size, where there is one.
        written: nodes as they were, where they were changed for that.
        rows: the batch size that those are for.
    """

    graph_def: GraphDef
    written: Mapping[str, Any]
    rows: int


def settle_batch(where: str, graph_def: GraphDef, first: Mapping[str, int | None], outputs: Sequence[str]) -> AnyBatch:
    """Opens the batch of the inputs that have one.

    Args:
        where: for messages.
        graph_def: placeholders of settled shape; may be changed.
        first: placeholder -> its first dimension, None where that is open. Scalars are not in it.
        outputs: tensors.

    Raises:
        ModelError: TensorFlow refuses the graph.
    """
    written = {node.name: _copy(node) for node in graph_def.node if node.op in _TOUCHED}
    deconvolutions = [node for node in written.values() if node.op == _DECONVOLUTION]
    said = _said(graph_def, deconvolutions)
    if deconvolutions:
        surgery = Surgery(where, graph_def)
        apply(CUT, surgery)
        graph_def = surgery.result()
    opened = [name for name, size in first.items() if size is None]
    if opened or not first:
        for name, size in first.items():
            if size is not None:
                logger.info("%s: input %r: its first dimension stays %d, it is not the batch of the others", where, name, size)
        freed = _try_one(where, graph_def, opened, written)
        changed = bool(freed or deconvolutions)
        return AnyBatch(graph_def, _changed(graph_def, written) if changed else {}, 1 if freed else said)
    reasons = []
    for size in dict.fromkeys(size for size in first.values() if size is not None):
        names = [name for name in first if first[name] == size]
        reason = _open(where, graph_def, names, size, outputs, written)
        if reason is None:
            return AnyBatch(graph_def, _changed(graph_def, written), size)
        reasons.append(reason)
        restore(graph_def, written, lambda name: written[name].op != _DECONVOLUTION)
    logger.warning("%s: the batch size stays as it is: %s", where, reasons[0])
    return AnyBatch(graph_def, {}, 1)


def _said(graph_def: GraphDef, deconvolutions: Sequence[Any]) -> int:
    """The batch size for which transposed convolutions were written; 1 where they do not say one."""
    if not deconvolutions:
        return 1
    nodes = {node.name: node for node in graph_def.node}
    targets = [constant_of(nodes, data_inputs(node)[0]) for node in deconvolutions]
    sizes = {int(target.reshape(-1)[0]) for target in targets if target is not None and target.size}
    size = sizes.pop() if len(sizes) == 1 else 1
    return size if size > 0 else 1


def _try_one(where: str, graph_def: GraphDef, names: Sequence[str], written: Mapping[str, Any]) -> set[str]:
    """Frees the reshapes of a graph whose placeholders are open, but whose reshapes say 1."""
    if not names or not any(node.op == "Reshape" for node in graph_def.node):
        return set()
    set_batch(graph_def, names, 1)
    try:
        freed = free_reshapes(graph_def, 1, import_graph(where, graph_def))
    except ModelError:  # it was not made for single examples
        freed = set()
    try:
        freed = _keep_right(where, graph_def, names, freed, written)
    except ModelError:
        restore(graph_def, written, lambda name: name in freed)
        freed = set()
    set_batch(graph_def, names, None)
    return freed


def _open(
    where: str, graph_def: GraphDef, names: Sequence[str], size: int, outputs: Sequence[str], written: Mapping[str, Any]
) -> str | None:
    """Opens the first dimension of the placeholders `names`, or says why that cannot be."""
    freed = set()
    if any(node.op == "Reshape" for node in graph_def.node):
        freed = free_reshapes(graph_def, size, import_graph(where, graph_def))
    try:
        _keep_right(where, graph_def, names, freed, written)
        graph = import_graph(where, graph_def)
    except ModelError as error:
        return f"with another one the graph is inconsistent ({str(error).removeprefix(f'{where}: ')})"
    set_batch(graph_def, names, None)
    for tensor in outputs:
        shape = graph.get_tensor_by_name(tensor).shape
        if shape.rank == 0 or (shape.rank and shape[0] is not None and shape[0] % STAND_IN):
            return f"output {tensor.removesuffix(':0')!r} has no row for each example"
    return None


def _keep_right(where: str, graph_def: GraphDef, names: Sequence[str], freed: set[str], written: Mapping[str, Any]) -> set[str]:
    """Puts back what was freed wrongly; leaves the placeholders `names` at `STAND_IN`."""
    set_batch(graph_def, names, STAND_IN)
    while freed:
        wrong = wrongly_freed(freed, import_graph(where, graph_def))
        if not wrong:
            break
        restore(graph_def, written, wrong.__contains__)
        freed = freed - wrong
    return freed


def _changed(graph_def: GraphDef, written: Mapping[str, Any]) -> dict[str, Any]:
    now = {node.name: node for node in graph_def.node if node.name in written}
    return {name: node for name, node in written.items() if now.get(name) != node}


def _copy(node: Any) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    return copy
