"""Names and questions about the nodes of a GraphDef."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Nodes = Mapping[str, Any]
"""Node name -> NodeDef, in the order of the file."""


def node_of(name: str) -> str:
    """Node behind a tensor or control input: `a:1` and `^a` give `a`."""
    return name.removeprefix("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """Full tensor name: `a` gives `a:0`."""
    return name if ":" in name else f"{name}:0"


def data_inputs(node: Any) -> list[str]:
    """The tensors a node reads, without control inputs."""
    return [name for name in node.input if not name.startswith("^")]


def tensor_shape(proto: Any) -> list[int | None] | None:
    """A TensorShapeProto as a list, None for open dimensions; None where the rank is unknown."""
    return None if proto.unknown_rank else [dim.size if dim.size >= 0 else None for dim in proto.dim]


def ancestors(nodes: Nodes, tensors: Iterable[str], stop: set[str]) -> set[str]:
    """Names of the nodes that `tensors` are computed from, themselves included; nothing behind `stop`."""
    found: set[str] = set()
    pending = [node_of(tensor) for tensor in tensors]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name not in stop:
                pending.extend(node_of(read) for read in data_inputs(nodes[name]))
    return found
