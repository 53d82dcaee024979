"""All entries of a table, run through every engine: 256 numbers say everything there is to say about a function of 8 bits (L12).

A table whose certificate fails, since an entry lies on a boundary between two integers or next to it, is cut out of the network:

    x -> QuantizeLinear -> DequantizeLinear -> [ Add, Clip, Mul, ... ] -> QuantizeLinear -> DequantizeLinear -> y

and checked as a network of its own on every integer that can reach it, in every place of a vector register and alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import (
    ROLE_KEY,
    FunctionRegion,
    Quantizer,
    QuantizerGraph,
    TqtOnnxError,
    add_initializer,
    add_node,
    attribute,
    constant,
    function_regions,
    name_of,
)
from ..kernels.fixed_point import dequantize

if TYPE_CHECKING:
    from ..verify import Runner

logger = logging.getLogger(__name__)

LANES = 16
"""Numbers in the widest vector register of float32; an engine may compute what does not fill one in another way."""

FEW = 3
"""So few numbers fill no register."""

Exhaust = Callable[[Sequence[str]], Mapping[str, tuple[str, ...]]]


def exhaust(
    lowered: onnx_ir.Model,
    graph: QuantizerGraph,
    engines: Sequence[str],
    runners: Mapping[str, Callable[[onnx_ir.Model], Runner]],
) -> Exhaust:
    """What runs tables of a network entry by entry.

    Args:
        lowered: the lowered float model.
        graph: its decided quantizers.
        engines: as for `check_engines`.
        runners: engine that is not known there -> how to make it for a model.

    Returns:
        A function: names of float values that tables compute -> the same names, where every engine gave every integer of
        the oracle's table, with the engines.
    """
    from ..passes.insert_qdq import FLOAT_SUFFIX

    regions = {f"{name_of(region.exit)}{FLOAT_SUFFIX}": region for region in function_regions(lowered.graph)}

    def run(outputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        found = {}
        for name in outputs:
            model = None if name not in regions else _alone(regions[name], graph)
            agreeing = () if model is None else _agreeing(*model, engines, runners)
            if agreeing:
                found[name] = agreeing
        return found

    return run


def _alone(region: FunctionRegion, graph: QuantizerGraph) -> tuple[onnx_ir.Model, Quantizer] | None:
    """The region as a Q/DQ model of its own, and the quantizer of its input; None where that is not one of 8 bits."""
    from ..calibrate.segments import carried_quantizer
    from ..passes import insert_qdq

    quantizers = graph.by_value()
    before, behind = carried_quantizer(region.source, quantizers), quantizers.get(name_of(region.exit))
    if before is None or behind is None or before.bits > 8:
        return None
    argument = onnx_ir.Value(
        name=f"{name_of(region.source)}__argument",
        shape=onnx_ir.Shape(["N", "M"]),
        type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
    )
    alone = onnx_ir.Graph([argument], [], nodes=[], opset_imports={"": 21}, name=name_of(region.exit))
    source = add_node(alone, "Identity", [argument], name_of(region.source), like=argument, metadata={ROLE_KEY: "input"})
    copies: dict[onnx_ir.Value | None, onnx_ir.Value | None] = {None: None, region.source: source}
    for node in region.nodes:
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None and value not in copies:
                copies[value] = add_initializer(alone, name_of(value), array.reshape(()))
        given = {name: attribute(node, name, None) for name in node.attributes}
        operands = [copies[value] for value in node.inputs]
        output = node.outputs[0]
        copies[output] = add_node(alone, node.op_type, operands, name_of(output), attributes=given, like=argument)
    result = copies[region.exit]
    assert result is not None
    alone.outputs.append(result)
    own = Quantizer(
        id=name_of(source), value=name_of(source), bits=before.bits, signed=before.signed, role="input", group=name_of(source),
        exponent=before.exponent,
    )  # fmt: skip
    last = Quantizer(
        id=behind.id, value=behind.value, bits=behind.bits, signed=behind.signed, role=behind.role, group=behind.id,
        limit=behind.limit, exponent=behind.exponent,
    )  # fmt: skip
    quantized = insert_qdq(onnx_ir.Model(alone, ir_version=10), QuantizerGraph(graph.contract, (own, last)))
    return quantized, before


def _agreeing(
    model: onnx_ir.Model,
    quantizer: Quantizer,
    engines: Sequence[str],
    runners: Mapping[str, Callable[[onnx_ir.Model], Runner]],
) -> tuple[str, ...]:
    """The engines, where all of them give the integers of the table; none where one does not."""
    from ..verify import check_engines

    try:
        own = {engine: make(model) for engine, make in runners.items() if engine in engines}
        outcome = check_engines(model, list(_batches(model, quantizer)), engines=engines, runners=own)
    except TqtOnnxError as error:
        logger.debug("%s: not run entry by entry: %s", model.graph.name, error)
        return ()
    differ = outcome.differences or outcome.not_certified or not all(outcome.integers.values())
    return () if differ else outcome.engines


def _batches(model: onnx_ir.Model, quantizer: Quantizer) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Every integer: once in each place of a register, and once among so few that none is filled."""
    name = name_of(model.graph.inputs[0])
    entries = dequantize(np.arange(quantizer.lower, quantizer.upper + 1), quantizer.decided_exponent)
    turned = np.stack([np.roll(entries, places) for places in range(LANES)])
    yield {name: turned}
    for start in range(0, len(entries), FEW):
        yield {name: entries[np.newaxis, start : start + FEW]}
