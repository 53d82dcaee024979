"""What becomes a table: functions of one 8-bit tensor, listed for people as float islands are (L12)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir

from ..ir import SOURCE_KEY, name_of
from .flow import analyse


@dataclass(frozen=True)
class Function:
    """A part of the network that is a table of 256 entries.

    Attributes:
        node: name of the node that computes its result.
        operators: what it consists of, in graph order.
        source: the TensorFlow node it came from, or the empty string.
        input: the value it is a function of.
        signed: whether its result may be negative.
    """

    node: str
    operators: tuple[str, ...]
    source: str
    input: str
    signed: bool


def functions(model: onnx_ir.Model, *, unsigned_input: bool = False) -> list[Function]:
    """The tables of an optimized or lowered float graph, in graph order.

    Args:
        model: the float graph.
        unsigned_input: the network's inputs are never negative, as `annotate` was told.
    """
    flow = analyse(model.graph, unsigned_input=unsigned_input)
    return [
        Function(
            node=last.name or name_of(region.exit),
            operators=region.operators,
            source=last.metadata_props.get(SOURCE_KEY, ""),
            input=name_of(region.source),
            signed=flow.signed[region.exit],
        )
        for region in flow.functions.values()
        for last in region.nodes[-1:]
    ]
