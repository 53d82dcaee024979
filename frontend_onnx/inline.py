"""Local functions become the nodes they stand for."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import inliner

from ..ir.errors import ModelError, UnsupportedError
from ..ir.reading import check, reason

_MOST_NODES: Final = 200_000
"""A few functions that call each other twice would unfold to any number of nodes."""

Key = tuple[str, str, str]


def inline_functions(proto: onnx.ModelProto, file: object) -> onnx.ModelProto:
    """The model without local functions; itself where it has none.

    Raises:
        ModelError: functions that call each other in a circle, or that cannot be unfolded.
        UnsupportedError: too many nodes.
    """
    if not proto.functions:
        return proto
    sizes = _sizes(proto, file)
    total = sum(sizes.get(_key(node), 1) for node in proto.graph.node)
    if total > _MOST_NODES:
        raise UnsupportedError(f"{file}: at most {_MOST_NODES} nodes are expected with local functions unfolded. Received: {total}")
    try:
        inlined: onnx.ModelProto = inliner.inline_local_functions(proto, convert_version=False)
    except Exception as error:  # onnx raises whatever its C++ lets out
        raise ModelError(f"{file}: its local functions cannot be unfolded: {reason(error)}") from None
    check(inlined, str(file))
    return inlined


def _sizes(proto: onnx.ModelProto, file: object) -> dict[Key, int]:
    """Nodes of each function when all calls in it are unfolded. Callees first, so that deep chains need no recursion."""
    bodies = {(function.domain, function.name, function.overload): function.node for function in proto.functions}
    sizes: dict[Key, int] = {}
    for start in bodies:
        open_calls: dict[Key, None] = {start: None}
        while open_calls:
            current = next(reversed(open_calls))
            callees = {_key(node) for node in bodies[current]} & bodies.keys() - sizes.keys()
            if not callees or current in sizes:
                sizes[current] = sum(sizes.get(_key(node), 1) for node in bodies[current])
                del open_calls[current]
                continue
            following = min(callees)
            if following in open_calls:
                raise ModelError(f"{file}: local function {following[1]!r} calls itself; a network without recursion is expected")
            open_calls[following] = None
    return sizes


def _key(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload
