"""From the optimized float graph to the lowered one: every quantizer gets a value of its own (S).

`lower` is a fixed recipe: average pools become convolutions, leaky relus maxima, constants that must differ per reader are
copied, the network's inputs and the layers' accumulators get values, shared scales get their rescales. What it computes is
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import COMPUTE, ROLE_KEY, SOURCE_KEY, Contract, add_initializer, add_node, constant, name_of, only_consumer, rename
from .average_pool_to_depthwise import AveragePoolToDepthwise
from .base import Pass, run_passes
from .bilinear_to_depthwise import BilinearToDepthwise
from .fence_resizes import FenceResizes
from .flow import Flow, analyse
from .insert_rescale import InsertRescale
from .leaky_to_max import LeakyToMax
from .node_roles import BIAS_ROLE, INPUT_ROLE, RECIPROCAL_ROLE, REQUANTIZE_ROLE, SUM_ROLE, role_of


@dataclass(frozen=True)
class OwnInputs:
    """`x -> readers` becomes `x -> Identity(input) -> readers`: a graph input keeps its name, its quantizer needs another."""

    name: ClassVar[str] = "own-inputs"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any input got its Identity."""
        modified = False
        for value in model.graph.inputs:
            readers = [node for node, _ in value.uses()]
            is_float = value.dtype is not None and value.dtype.is_floating_point()
            if not readers or not is_float or any(role_of(node) == INPUT_ROLE for node in readers):
                continue
            own = add_node(
                model.graph,
                "Identity",
                [value],
                f"{name_of(value)}__input",
                before=model.graph[0],
                like=value,
                metadata={ROLE_KEY: INPUT_ROLE},
            )
            for node, index in value.uses():
                if node is not own.producer():
                    node.replace_input_with(index, own)
            modified = True
        return modified


@dataclass(frozen=True)
class OwnConstants:
    """A constant that several layers read as bias, addend or concatenated part is copied: its scale depends on the reader.

    Attributes:
        unsigned_input: the network's inputs are never negative.
    """

    unsigned_input: bool = False

    name: ClassVar[str] = "own-constants"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any constant was copied."""
        flow = analyse(model.graph, unsigned_input=self.unsigned_input)
        modified = False
        seen: set[onnx_ir.Value] = set()
        for node in model.graph:
            first = {"compute": 2, "add": 0, "product": 0, "select": 0, "bias": 0, "concat": 0, "function": 0}.get(flow.kind[node])
            for index, value in enumerate(node.inputs):
                if first is None or index < first or value is None:
                    continue
                array = constant(value)
                if array is None:
                    continue
                if value in seen or any(position == 1 and reader.op_type in COMPUTE for reader, position in value.uses()):
                    copy = add_initializer(model.graph, f"{name_of(value)}__of__{name_of(node.outputs[0])}", array)
                    node.replace_input_with(index, copy)
                    modified = True
                seen.add(value)
        return modified


@dataclass(frozen=True)
class SplitBias:
    """Gives the accumulator of every layer a value of its own (L1, L10).

    Conv(x, w, b) -> y   becomes   Conv(x, w) -> y__acc, Add(y__acc, b) -> y
    Conv(x, w)    -> y   becomes   Conv(x, w) -> y__acc, Identity(requantize) -> y

    Average pools are left whole (L6), and so is a layer without bias in front of a leaky relu, clipped or not: its accumulator
    is the 16-bit value the leaky relu starts from, and a second quantizer of that type would be merged with the first (L3, O5).

    Attributes:
        unsigned_input: the network's inputs are never negative.
    """

    unsigned_input: bool = False

    name: ClassVar[str] = "split-bias"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any layer was split."""
        flow = analyse(model.graph, unsigned_input=self.unsigned_input)
        modified = False
        for node in list(model.graph):
            if flow.kind[node] != "compute" or role_of(node) in (RECIPROCAL_ROLE, SUM_ROLE):
                continue
            readers = [reader for reader, _ in node.outputs[0].uses()]
            if len(readers) == 1 and role_of(readers[0]) in (BIAS_ROLE, REQUANTIZE_ROLE):
                continue
            if (len(node.inputs) < 3 or node.inputs[2] is None) and _is_rounded_wide(node.outputs[0], flow):
                continue
            _split(model.graph, node)
            modified = True
        return modified


def _is_rounded_wide(value: onnx_ir.Value, flow: Flow) -> bool:
    """Whether the sum is rounded to the 16 bits of a leaky relu, itself or behind the rectifiers that it passes first (L2)."""
    while value not in flow.wide:
        reader = only_consumer(value)
        if reader is None or flow.kind[reader] != "rectify":
            return False
        value = reader.outputs[0]
    return True


def _split(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    output = node.outputs[0]
    label = name_of(output)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    operands: list[onnx_ir.Value | None] = [output]
    metadata = {ROLE_KEY: REQUANTIZE_ROLE}
    if SOURCE_KEY in node.metadata_props:
        metadata[SOURCE_KEY] = node.metadata_props[SOURCE_KEY]
    if bias is not None:
        array = constant(bias)
        assert array is not None
        node.resize_inputs(2)
        if node.op_type in ("Conv", "ConvTranspose"):
            kept = name_of(bias)
            if not bias.uses():
                rename(bias, f"{kept}__flat")
            bias = add_initializer(graph, kept, np.ascontiguousarray(array.reshape(-1, 1, 1)))
        operands.append(bias)
        metadata[ROLE_KEY] = BIAS_ROLE
    readers = output.uses()
    was_output = output.is_graph_output()
    rename(output, f"{label}__acc")
    added = add_node(graph, "Add" if bias is not None else "Identity", operands, label, after=node, like=output, metadata=metadata)
    for reader, index in readers:
        reader.replace_input_with(index, added)
    if was_output:
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = added


def lowering(contract: Contract, *, unsigned_input: bool = False) -> tuple[Pass, ...]:
    """The recipe for a contract, in the only order that works (S)."""
    split: tuple[Pass, ...] = (SplitBias(unsigned_input),) if contract == "layer16" else ()
    return (
        AveragePoolToDepthwise(),
        BilinearToDepthwise(),
        FenceResizes(),
        OwnInputs(),
        OwnConstants(unsigned_input),
        LeakyToMax(unsigned_input),
        *split,
        InsertRescale(unsigned_input),
    )


def lower(model: onnx_ir.Model, contract: Contract, *, unsigned_input: bool = False) -> None:
    """Lowers an optimized float model in place.

    Args:
        model: optimized, with shapes inferred.
        contract: `layer16` splits the biases off (L1), `layer32` keeps them (L11).
        unsigned_input: the network's inputs are never negative.
    """
    run_passes(model, lowering(contract, unsigned_input=unsigned_input))
