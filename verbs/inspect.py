"""`inspect`: what is in a model, what is or would be quantized and how, and what stays float and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir import Quantizer, QuantizerGraph, UnsupportedError, constant, name_of, quantizers_of, static_shape
from ..passes import BitWidths, Island, annotate, islands, lower, optimize, remove_qdq
from .sources import open_model

if TYPE_CHECKING:
    import onnx_ir


@dataclass(frozen=True)
class Row:
    """One node of the lowered graph.

    Attributes:
        node: its name.
        op_type: its operator.
        source: the TensorFlow node it came from, or the empty string.
        shape: of its output, None for the batch.
        parameters: elements of its constants.
        weight: quantizer of its weights, or None.
        output: quantizer of its output, or None where it carries its input's scale or stays float.
        note: why it stays float, or the empty string.
    """

    node: str
    op_type: str
    source: str
    shape: tuple[int | None, ...] | None
    parameters: int
    weight: Quantizer | None
    output: Quantizer | None
    note: str


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        quantized: whether the model is quantized already (exponents known) or the quantizers are those it would get.
        contract: `layer16` or `layer32`.
        rows: nodes in order.
        graph: the quantizers, or None where there is nothing to quantize.
        islands: nodes that stay float.
    """

    quantized: bool
    contract: str
    rows: tuple[Row, ...]
    graph: QuantizerGraph | None
    islands: tuple[Island, ...]


def inspect(model: onnx_ir.Model | str | os.PathLike[str], *, bits: BitWidths | None = None) -> Inspection:
    """Reads a model without changing it.

    Args:
        model: float or quantized ONNX.
        bits: for a float model, the widths it would be quantized with.

    Raises:
        ModelError: unreadable.
    """
    opened = open_model(model)
    quantized = quantizers_of(opened) is not None
    widths = bits or BitWidths()
    graph: QuantizerGraph | None
    if quantized:
        lowered, graph = remove_qdq(opened)
    else:
        lowered = opened.clone()
        optimize(lowered)
        lower(lowered, widths.contract, unsigned_input=widths.unsigned_input)
        try:
            graph = annotate(lowered, widths)
        except UnsupportedError:
            graph = None
    left = tuple(islands(lowered))
    contract = graph.contract if graph is not None else widths.contract
    return Inspection(quantized, contract, tuple(_rows(lowered, graph, left)), graph, left)


def _rows(model: onnx_ir.Model, graph: QuantizerGraph | None, left: tuple[Island, ...]) -> list[Row]:
    by_value = {} if graph is None else graph.by_value()
    notes = {island.node: island.reason for island in left}
    rows = []
    for node in model.graph:
        constants = [value for value in node.inputs if value is not None and constant(value) is not None]
        weights = [by_value[name_of(value)] for value in constants if value.name in by_value]
        output = node.outputs[0]
        rows.append(
            Row(
                node=node.name or name_of(output),
                op_type=node.op_type,
                source=node.metadata_props.get("tqt_onnx.source", ""),
                shape=static_shape(output),
                parameters=sum(value.const_value.size for value in constants if value.const_value is not None),
                weight=weights[0] if weights else None,
                output=by_value.get(name_of(output)),
                note=notes.get(node.name or name_of(output), ""),
            )
        )
    return rows
