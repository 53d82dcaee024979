"""All entries of a table, run through every engine: 256 numbers say everything there is to say about a function of 8 bits (L12).

A table whose certificate fails, since an entry lies on a boundary between two integers or next to it, is cut out of the network:

    x -> QuantizeLinear -> DequantizeLinear -> [ Add, Clip, Mul, ... ] -> QuantizeLinear -> DequantizeLinear -> y

and checked as a network of its own on every integer that can reach it, in every place of a vector register and among too few to
fill one; undecided entries also alone. That is no proof but an observation: it holds for the engines and the machine it was
made with, which `observed_on` names.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import (
    ROLE_KEY,
    FunctionRegion,
    Grid,
    Quantizer,
    QuantizerGraph,
    TqtOnnxError,
    add_initializer,
    add_node,
    attribute,
    constant,
    grid_of,
    name_of,
)
from ..kernels.fixed_point import dequantize

if TYPE_CHECKING:
    from ..verify import LayerCertificate, Runner

logger = logging.getLogger(__name__)

LANES = 16
"""Numbers in the widest vector register of float32; an engine may compute what does not fill one in another way."""

FEW = 3
"""So few numbers fill no register."""

PACKAGES: Final = {"ort": "onnxruntime", "tf": "tensorflow"}
"""Engine -> the package that it is; loaded where it was run."""

Exhaust = Callable[[Sequence["LayerCertificate"]], Mapping[str, tuple[str, ...]]]


def exhaust(model: onnx_ir.Model, engines: Sequence[str], runners: Mapping[str, Callable[[onnx_ir.Model], Runner]]) -> Exhaust:
    """What runs tables of a network entry by entry.

    Args:
        model: the Q/DQ model.
        engines: as for `check_engines`: all of the comparison.
        runners: engine that is not known there -> how to make it for a model.

    Returns:
        A function: certificates of tables -> their outputs, where every engine gave every integer of the oracle's table, with
        the engines.
    """

    def run(tables: Sequence[LayerCertificate]) -> dict[str, tuple[str, ...]]:
        from ..verify.plan import make_plan

        regions = make_plan(model).tables
        found = {}
        for table in tables:
            alone = cut_out(regions[table.output])
            agreeing = () if alone is None else _agreeing(alone, table, engines, runners)
            if agreeing:
                found[table.output] = agreeing
        return found

    return run


def cut_out(region: FunctionRegion) -> onnx_ir.Model | None:
    """A table as a Q/DQ model of its own; None where what it reads is not dequantized from 8 bits.

    Args:
        region: of the Q/DQ model itself: what lies between its DequantizeLinear and its QuantizeLinear. Constants keep their
            shapes and the argument its rank, by which engines choose what they compute.
    """
    from ..passes import insert_qdq
    from ..verify.tables import grid_behind

    above = region.source.producer()
    if above is None or above.op_type != "DequantizeLinear" or grid_of(above).bits > 8:
        return None
    rank = max(len(region.source.shape or ()), 2)
    argument = onnx_ir.Value(
        name=f"{name_of(region.source)}__argument",
        shape=onnx_ir.Shape(["N", *(f"axis_{axis}" for axis in range(1, rank))]),
        type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
    )
    graph = onnx_ir.Graph([argument], [], nodes=[], opset_imports={"": 21}, name=name_of(region.exit))
    source = add_node(graph, "Identity", [argument], name_of(region.source), like=argument, metadata={ROLE_KEY: "input"})
    copies: dict[onnx_ir.Value | None, onnx_ir.Value | None] = {None: None, region.source: source}
    for node in region.nodes:
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None and value not in copies:
                copies[value] = add_initializer(graph, name_of(value), array)
        given = {name: attribute(node, name, None) for name in node.attributes}
        operands = [copies[value] for value in node.inputs]
        output = node.outputs[0]
        copies[output] = add_node(graph, node.op_type, operands, name_of(output), attributes=given, like=argument)
    result = copies[region.exit]
    assert source.name and result is not None and result.name
    graph.outputs.append(result)

    def quantizer(name: str, grid: Grid, role: Any) -> Quantizer:
        return Quantizer(
            id=name, value=name, bits=grid.bits, signed=grid.signed, role=role, group=name, exponent=grid.exponent
        )  # fmt: skip

    quantizers = quantizer(source.name, grid_of(above), "input"), quantizer(result.name, grid_behind(region), "activation")
    return insert_qdq(onnx_ir.Model(graph, ir_version=10), QuantizerGraph("layer16", quantizers))


def _agreeing(
    model: onnx_ir.Model,
    table: LayerCertificate,
    engines: Sequence[str],
    runners: Mapping[str, Callable[[onnx_ir.Model], Runner]],
) -> tuple[str, ...]:
    """The engines, where all of them give the integers of the table; none where one does not, or was not run."""
    from ..verify import check_engines

    try:
        own = {engine: make(model) for engine, make in runners.items() if engine in engines}
        outcome = check_engines(model, _batches(model, table), engines=engines, runners=own)
    except TqtOnnxError as error:
        logger.debug("%s: not run entry by entry: %s", table.output, error)
        return ()
    differ = outcome.differences or outcome.not_certified or not all(outcome.integers.values())
    return () if differ else outcome.engines


def _batches(model: onnx_ir.Model, table: LayerCertificate) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Every integer: once in each place of a register, and once among so few that none is filled; the undecided ones alone."""
    assert table.entries is not None
    (argument,) = model.graph.inputs
    exponent = next(grid_of(node).exponent for node in model.graph if node.op_type == "QuantizeLinear")
    low, high = table.entries
    entries = dequantize(np.arange(low, high + 1), exponent)
    few = [entries[np.newaxis, start : start + FEW] for start in range(0, len(entries), FEW)]
    alone = [dequantize(np.array([[entry]]), exponent) for entry in table.undecided]
    inner = [1] * (len(argument.shape or ()) - 2)
    for rows in (np.stack([np.roll(entries, places) for places in range(LANES)]), *few, *alone):
        yield {name_of(argument): rows.reshape(len(rows), *inner, -1)}


def observed_on(tables: int, engines: Sequence[str]) -> str:
    """What a reader must know of tables that were run entry by entry: with which engines, in which vector registers."""
    from ..verify.runtime import vector_extensions

    loaded = [sys.modules[PACKAGES[engine]] for engine in engines if PACKAGES.get(engine) in sys.modules]
    versions = [f"{package.__name__} {package.__version__}" for package in loaded]
    flags = " ".join(vector_extensions()) or "unknown"
    what = "1 table" if tables == 1 else f"{tables} tables"
    return f"{what}: every entry was run in every engine, on this machine ({', '.join(versions)}; vector extensions: {flags})"
