"""`inspect`: what is in a model, what is or would be quantized and how, and what stays float and why."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..frontend_onnx import adopt, as_written
from ..ir import (
    SOURCE_KEY,
    ModelError,
    Quantizer,
    QuantizerGraph,
    TqtOnnxError,
    UnsupportedError,
    fed_inputs,
    name_of,
    quantizers_of,
    static_shape,
)
from ..passes import BitWidths, Island, annotate, functions, islands, lower, optimize, remove_qdq
from ..passes.flow import analyse
from ..passes.insert_qdq import FLOAT_SUFFIX
from .cost import FLOAT_BYTES, multiply_accumulates, parameters, weight_bytes
from .foreign import is_quantized_elsewhere, listing, with_shapes
from .inspection import Inspection, Kind, Layer, Port
from .sources import open_model
from .topology import Run, runs

if TYPE_CHECKING:
    import onnx_ir

    from ..verify import LayerCertificate

logger = logging.getLogger(__name__)


def inspect(model: onnx_ir.Model | str | os.PathLike[str], *, bits: BitWidths | None = None) -> Inspection:
    """Reads a model without changing it.

    Args:
        model: float or quantized ONNX. Of another tool's float model it is told what `convert` and `quantize` would make of
            it; what those refuse (integers of another tool, foreign operators) is listed node by node.
        bits: for a float model, the widths it would be quantized with.

    Raises:
        ModelError: unreadable.
    """
    widths = bits or BitWidths()
    try:
        opened = open_model(model)
    except ModelError as error:
        if not isinstance(model, (str, os.PathLike)):
            raise
        return _of_another_tool(model, widths, error)
    if quantizers_of(opened) is not None:
        return _quantized(opened)
    if is_quantized_elsewhere(opened):
        return _listed(opened, "quantized by another tool: its integers are not those of this project's contracts")
    try:
        return _float(opened, widths)
    except TqtOnnxError as error:
        return _listed(opened, str(error))


def _of_another_tool(path: str | os.PathLike[str], widths: BitWidths, reason: ModelError) -> Inspection:
    """A file that `load` refuses: as `convert` would make it, or, where that is refused too, node by node as it is.

    Raises:
        ModelError: the given one, where the file cannot be read at all.
    """
    try:
        found = as_written(path)
    except TqtOnnxError:
        raise reason from None
    try:
        adopted = _float(adopt(path), widths, str(reason))
    except TqtOnnxError as error:
        return _listed(with_shapes(found), str(error))
    return replace(adopted, opset=found.opset_imports.get(""), producer=_producer(found))


def _quantized(model: onnx_ir.Model) -> Inspection:
    from ..verify import certify

    lowered, graph = remove_qdq(model)
    certificates = {layer.output.removesuffix(FLOAT_SUFFIX): layer for layer in certify(model)}
    return _inspection("quantized", model, lowered, graph, graph.contract, certificates)


def _float(model: onnx_ir.Model, widths: BitWidths, remark: str = "") -> Inspection:
    lowered = model.clone()
    optimize(lowered)
    lower(lowered, widths.contract, unsigned_input=widths.unsigned_input)
    try:
        graph: QuantizerGraph | None = annotate(lowered, widths)
    except UnsupportedError as error:
        graph, remark = None, str(error)
    return _inspection("float", model, lowered, graph, widths.contract, {}, remark)


def _listed(model: onnx_ir.Model, remark: str) -> Inspection:
    """A model of which only nodes, shapes and costs are told."""
    layers = tuple(listing(model))
    sizes = parameters(model.graph)
    total = sum(sizes.values())
    return Inspection(
        kind="foreign",
        contract="",
        opset=model.opset_imports.get(""),
        producer=_producer(model),
        inputs=_ports(fed_inputs(model.graph)),
        outputs=_ports(model.graph.outputs),
        layers=layers,
        graph=None,
        islands=(),
        parameters=total,
        float_bytes=FLOAT_BYTES * total,
        quantized_bytes=None,
        remark=remark,
    )


def _inspection(
    kind: Kind,
    model: onnx_ir.Model,
    lowered: onnx_ir.Model,
    graph: QuantizerGraph | None,
    contract: str,
    certificates: Mapping[str, LayerCertificate],
    remark: str = "",
) -> Inspection:
    by_value = {} if graph is None else graph.by_value()
    groups = {} if graph is None else {name: members for name, members in graph.groups().items() if len(members) > 1}
    inputs = [quantizer for quantizer in by_value.values() if quantizer.role == "input"]
    unsigned = bool(inputs) and not any(quantizer.signed for quantizer in inputs)
    flow = analyse(lowered.graph, unsigned_input=unsigned)
    left = tuple(islands(lowered, unsigned_input=unsigned))
    sizes = parameters(lowered.graph)
    total = sum(sizes.values())
    return Inspection(
        kind=kind,
        contract=contract,
        opset=model.opset_imports.get(""),
        producer=_producer(model),
        inputs=_ports(fed_inputs(model.graph)),
        outputs=_ports(model.graph.outputs),
        layers=tuple(_layer(run, by_value, groups, left, certificates) for run in runs(lowered.graph, flow)),
        graph=graph,
        islands=left,
        parameters=total,
        float_bytes=FLOAT_BYTES * total,
        quantized_bytes=weight_bytes(sizes, by_value),
        remark=remark,
        tables=tuple(functions(lowered, unsigned_input=unsigned)),
    )


def _layer(
    run: Run,
    by_value: Mapping[str, Quantizer],
    groups: Mapping[str, list[Quantizer]],
    left: Iterable[Island],
    certificates: Mapping[str, LayerCertificate],
) -> Layer:
    nodes = tuple(node.name or name_of(node.outputs[0]) for node in run.nodes)
    read = [by_value[name] for node in run.nodes for name in _names(node.inputs) if name in by_value]
    made = [by_value[name] for node in run.nodes for name in _names(node.outputs) if name in by_value]
    output = by_value.get(name_of(run.output))
    source = run.main.metadata_props.get(SOURCE_KEY, "")
    shared = [
        quantizer.group for quantizer in ([] if output is None else [output], read)[output is None] if quantizer.group in groups
    ]
    certified = [certificates[name] for node in run.nodes for name in _names(node.outputs) if name in certificates]
    rounds = run.main.op_type == "Identity" or not run.main.name
    return Layer(
        name=(run.main.name or name_of(run.output)) if run.carries else name_of(run.output) if rounds else source or nodes[0],
        node=nodes[0],
        nodes=nodes,
        op_type=run.main.op_type,
        source=source,
        topology=run.topology,
        value=name_of(run.output),
        shape=static_shape(run.output),
        parameters=sum(parameters(run.nodes).values()),
        macs=multiply_accumulates(run.main),
        weight=_of_role(read, "weight", "reciprocal"),
        bias=_of_role(read, "bias"),
        accumulator=_of_role(made, "accumulator"),
        output=output,
        carries=run.carries,
        group=shared[0] if shared else None,
        accumulator_bits=max((layer.accumulator_bits or 0 for layer in certified), default=0) or None,
        certified=all(layer.certified for layer in certified) if certified else None,
        reason=next((island.reason for island in left if island.node in nodes), ""),
    )


def _names(values: Iterable[onnx_ir.Value | None]) -> list[str]:
    return [value.name for value in values if value is not None and value.name]


def _of_role(quantizers: Iterable[Quantizer], *roles: str) -> Quantizer | None:
    return next((quantizer for quantizer in quantizers if quantizer.role in roles), None)


def _ports(values: Iterable[onnx_ir.Value]) -> tuple[Port, ...]:
    return tuple(Port(name_of(value), static_shape(value)) for value in values)


def _producer(model: onnx_ir.Model) -> str:
    return " ".join(part for part in (model.producer_name, model.producer_version) if part)
