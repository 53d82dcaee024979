"""Operators that move in front of what only moves elements: the surgery, whole chains at once.

    top -> M1 -> A1 -> M2 -> A2 -> M3          =>          top -> A1 -> A2 -> M1 -> M2 -> M3

A name goes on meaning the same numbers: the last mover that something passed gives what the last operator gave, under its
name (O3); every other value on the way holds other numbers than before and gets a name that nothing had.
"""

from __future__ import annotations

import onnx_ir

from ..ir import name_of, unique_name


def hoist(graph: onnx_ir.Graph, top: onnx_ir.Value, chain: list[tuple[onnx_ir.Node, bool, int]]) -> None:
    """Takes the operators of a chain to its beginning.

    Args:
        graph: graph of all of them.
        top: what the first node of the chain reads.
        chain: node, whether it is one to move up, and which of its inputs the node before gives; in order, each but the last
            read by the next one only. The first is a mover, the last one moves up.
    """
    movers = [entry for entry in chain if not entry[1]]
    first, last = movers[0][0], movers[-1][0].outputs[0]
    result = chain[-1][0].outputs[0]
    name, shape, kind = name_of(result), result.shape, result.type
    for index, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[index] = last
    result.replace_all_uses_with(last)
    source = top
    for node, moves_up, position in [entry for entry in chain if entry[1]] + movers:
        node.replace_input_with(position, source)
        source = node.outputs[0]
        source.name = unique_name(graph, f"{name_of(source).removesuffix(_SUFFIX)}{_SUFFIX}")
        if moves_up:
            source.shape, source.type = top.shape, top.type
            graph.remove(node)
            graph.insert_before(first, node)
    last.name, last.shape, last.type = name, shape, kind  # what an output declares is the user's (O3)


_SUFFIX = "__hoisted"
