"""Where a frozen graph begins and ends: what the user names, or what can be found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ...ir import ModelError
from ..nodes import PLACEHOLDERS, Nodes, ancestors, data_inputs, index_of, node_of, output_types, tensor_name, tensor_shape

QUEUES: Final = frozenset(
    {"QueueDequeue", "QueueDequeueV2", "QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo", "QueueDequeueUpToV2"}
) | frozenset({"IteratorGetNext", "IteratorGetNextSync", "Unstage"})
"""Operators that hand a training program its batches; each output is one component of an example."""


def resolve(where: str, nodes: Nodes, names: Sequence[str], kind: str) -> list[str]:
    """Full tensor names of what the user asked for.

    Raises:
        ModelError: a name that the graph does not have (close ones are offered), none at all, or one twice.
    """
    tensors = []
    for name in names:
        tensor = tensor_name(name.strip())
        node = node_of(tensor)
        if node not in nodes or not tensor.partition(":")[2].isdecimal():
            close = difflib.get_close_matches(node, list(nodes), n=3, cutoff=0.5)
            hint = f"close names: {', '.join(close)}" if close else f"the last node is {list(nodes)[-1]}"
            raise ModelError(f"{where}: no {kind} of that name; {hint}. Received: {name!r}")
        types = output_types(nodes[node])
        if types is not None and int(tensor.partition(":")[2]) >= len(types):
            raise ModelError(f"{where}: node {node!r} has {len(types)} outputs. Received: {tensor!r}")
        tensors.append(tensor)
    if not tensors or len(set(tensors)) != len(tensors):
        raise ModelError(f"{where}: distinct {kind} names are expected. Received: {list(names)}")
    return tensors


def find_inputs(where: str, nodes: Nodes, outputs: Sequence[str]) -> list[str]:
    """The placeholders that the outputs depend on; without any, the batch that a queue or iterator delivers.

    A placeholder with a default is an input only where there is no other.

    Raises:
        ModelError: there are none; several components of a queue, which are listed.
    """
    reached = ancestors(nodes, outputs, stop=set())
    found = [name for name in nodes if name in reached and nodes[name].op in PLACEHOLDERS]
    needed = [name for name in found if nodes[name].op != "PlaceholderWithDefault"] or found
    if needed:
        return [f"{name}:0" for name in needed]
    read = {tensor_name(tensor) for name in reached for tensor in data_inputs(nodes[name])} | {tensor_name(one) for one in outputs}
    batches = sorted(tensor for tensor in read if node_of(tensor) in reached and nodes[node_of(tensor)].op in QUEUES)
    if len(batches) != 1:
        listed = ", ".join(batches[:12]) or "none"
        raise ModelError(
            f"{where}: give the inputs; placeholders that the outputs depend on: none; tensors that a queue delivers: {listed}. "
            "Received: no input names"
        )
    return batches


def component_shape(nodes: Nodes, tensor: str) -> list[int | None] | None:
    """Shape of a batch that a queue delivers, by the queue's own attribute; None where it has none."""
    node = nodes[node_of(tensor)]
    if node.op not in QUEUES or not node.op.startswith("Queue") or not data_inputs(node):
        return None
    shapes = nodes[node_of(data_inputs(node)[0])].attr["shapes"].list.shape
    known = tensor_shape(shapes[index_of(tensor)]) if index_of(tensor) < len(shapes) else None
    several = "Many" in node.op or "UpTo" in node.op
    return None if known is None else [None, *known] if several else known


def sources(nodes: Nodes) -> set[str]:
    """The nodes that feed a network: placeholders, and queues where there are none."""
    placeholders = {name for name, node in nodes.items() if node.op in PLACEHOLDERS}
    fed = {name for name in placeholders if nodes[name].op != "PlaceholderWithDefault"}
    return placeholders if fed else placeholders | {name for name, node in nodes.items() if node.op in QUEUES}


def behind(readers: Mapping[str, list[str]], starts: Iterable[str]) -> set[str]:
    """Nodes that depend on `starts`, themselves included."""
    found: set[str] = set()
    pending = list(starts)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(readers.get(name, ()))
    return found
