r"""Gives the odd branch of a shared scale a value of its own (L4, L5, S).

    x ----> conv          x ----> conv
     \                     \
      `---> Add     ->      `-> Identity(rescale) -> Add

The operands of an Add, Sub, Max, Min or Concat share one scale. An operand joins by its own quantizer where nobody else
reads it and its sign fits; where somebody does (an identity shortcut) or the sign differs (a relu branch beside a signed
one), an Identity marked `rescale` is put *directly behind the fork*, in front of pass-through operators: moving elements
commutes with rounding, and onnxruntime merges two quantizers that only a pass-through operator separates (O5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import ROLE_KEY, add_node, constant, is_forked, name_of
from .flow import Flow, analyse, group_is_signed
from .node_roles import RESCALE_ROLE, role_of


@dataclass(frozen=True)
class InsertRescale:
    """Inserts the rescale Identities; running it twice changes nothing."""

    unsigned_input: bool = False

    name: ClassVar[str] = "insert-rescale"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any Identity was inserted."""
        flow = analyse(model.graph, unsigned_input=self.unsigned_input)
        modified = False
        for node in list(model.graph):
            if flow.kind[node] in ("add", "select", "concat"):
                modified |= self._share(model.graph, node, flow)
        return modified

    def _share(self, graph: onnx_ir.Graph, node: onnx_ir.Node, flow: Flow) -> bool:
        if flow.kind[node] == "add" and len(set(node.inputs)) == 1:
            return False  # x + x: both operands have one scale, and the sum has its own
        signed = group_is_signed(node, flow)
        modified = False
        for value in dict.fromkeys(value for value in node.inputs if value is not None and constant(value) is None):
            edge = _edge_to_rescale(value, node, flow, needs_sign=signed != flow.signed[value])
            if edge is None:
                continue
            source, reader = edge
            label = name_of(reader.outputs[0])
            rescaled = add_node(
                graph,
                "Identity",
                [source],
                f"{name_of(source)}__to__{label}",
                before=reader,
                like=source,
                metadata={ROLE_KEY: RESCALE_ROLE},
            )
            for index, operand in enumerate(reader.inputs):
                if operand is source:
                    reader.replace_input_with(index, rescaled)
            modified = True
        return modified


def _edge_to_rescale(
    value: onnx_ir.Value, reader: onnx_ir.Node, flow: Flow, *, needs_sign: bool
) -> tuple[onnx_ir.Value, onnx_ir.Node] | None:
    """The edge (value, reader) that an Identity must cut on the way from the scale's origin to `reader`, or None."""
    while True:
        producer = value.producer()
        if producer is not None and role_of(producer) == RESCALE_ROLE:
            return None
        if is_forked(value):
            return value, reader
        if producer is None or flow.kind[producer] != "carry":
            return (value, reader) if needs_sign else None
        reader, value = producer, producer.inputs[0]  # type: ignore[assignment]
