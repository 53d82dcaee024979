"""From a Q/DQ model to the integer network that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import (
    LAYER_KEY,
    SOURCE_KEY,
    Grid,
    ModelError,
    QuantizerGraph,
    UnsupportedError,
    constant,
    fed_inputs,
    function_regions,
    grid_of,
    kept_bounds,
    name_of,
    only_consumer,
    static_shape,
)
from .network import SUMS, FloatPart, IntegerNetwork, Kind, Operation, Port, Step, Tensor, Unrounded
from .operations import Term, operation_of


@dataclass(frozen=True, slots=True)
class Facts:
    """What `verify` knows of a model, by name.

    Attributes:
        islands: node -> why it is computed in floating point.
        bounds: output of a Conv, Gemm, MatMul, Add, Sub or Mul -> largest magnitude of a partial sum, in units of the sum.
        tables: output of the last node of a function of one integer -> its first integer and its entries (L12).
    """

    islands: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, npt.NDArray[np.int64]]] = field(default_factory=dict)


def read_network(model: onnx_ir.Model, graph: QuantizerGraph, facts: Facts) -> IntegerNetwork:
    """The integers, operations and shifts of a Q/DQ model.

    Args:
        model: a Q/DQ model; it is not changed.
        graph: its quantizers.
        facts: of the same model.

    Raises:
        UnsupportedError: a scale is no power of two, or a bound or filling that no grid holds beside its tensor.
    """
    return _Reader(model.graph, graph, facts).network(graph)


_CARRIES: Final = ("QuantizeLinear", "DequantizeLinear")


class _Reader:
    def __init__(self, graph: onnx_ir.Graph, quantizers: QuantizerGraph, facts: Facts) -> None:
        self.graph, self.facts = graph, facts
        self.quantizers = quantizers.by_value()
        self.tensors: dict[str, Tensor] = {}
        self.terms: dict[onnx_ir.Value, Term] = {}
        """Values in fixed point: dequantized tensors and what operations compute of them."""
        self.made: dict[str, Operation] = {}
        self.steps: list[Step] = []
        self.floats: list[onnx_ir.Node] = []
        self.inputs: dict[onnx_ir.Value, str] = {}
        regions = [region for region in function_regions(graph) if name_of(region.exit) in facts.tables]
        self.exits = {region.nodes[-1]: region for region in regions}
        self.inside = {node for region in regions for node in region.nodes}

    def network(self, graph: QuantizerGraph) -> IntegerNetwork:
        for node in self.graph:
            self._node(node)
        ports = tuple(Port(name_of(value), self.inputs.get(value), _shape(value)) for value in fed_inputs(self.graph))
        outputs = tuple(Port(name_of(value), self._tensor_behind(value), _shape(value)) for value in self.graph.outputs)
        read = [self._tensor_behind(value) for node in self.floats for value in node.inputs if value is not None]
        ends = [name for name in [*read, *(port.tensor for port in outputs)] if name is not None]
        computed = [name for name in dict.fromkeys(ends) if self.tensors[name].kind != "constant"]
        parts = tuple(self._float_part(node) for node in self.floats)
        handed_on = [*self.graph.outputs, *(value for node in self.floats for value in node.inputs)]
        terms = [term for value in handed_on if (term := self._term(value)) is not None]
        wide = {term.name: Unrounded(self._operations(term.name)) for term in terms if term.name in self.made}
        return IntegerNetwork(
            graph.contract, self.tensors, tuple(self.steps), ports, outputs, tuple(computed), parts, tuple(wide.values())
        )

    def _node(self, node: onnx_ir.Node) -> None:
        if node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node in self.exits and self.exits[node].source in self.terms:
            self._table(node)
        elif node in self.inside or self._is_integer_clip(node) or node.op_type == "Constant":
            pass
        elif (node.name or name_of(node.outputs[0])) in self.facts.islands or not self._all_fixed(node):
            self.floats.append(node)
        else:
            operation = operation_of(node, [self._term(value) for value in node.inputs], self.facts.bounds)
            self.made[operation.output] = operation
            self.terms[node.outputs[0]] = Term(operation.output, operation.exponent)

    def _term(self, value: onnx_ir.Value | None) -> Term | None:
        return None if value is None else self.terms.get(value)

    def _all_fixed(self, node: onnx_ir.Node) -> bool:
        return all(value is None or not value.name or value in self.terms or constant(value) is not None for value in node.inputs)

    def _is_integer_clip(self, node: onnx_ir.Node) -> bool:
        """A bound on integers behind their rounding; the step of that rounding has it already."""
        above = None if node.inputs[0] is None else node.inputs[0].producer()
        return node.op_type == "Clip" and above is not None and above.op_type == "QuantizeLinear"

    def _dequantize(self, node: onnx_ir.Node) -> None:
        integers, output, grid = node.inputs[0], node.outputs[0], grid_of(node)
        stored = constant(integers)
        name = name_of(integers)
        if stored is not None and name not in self.tensors:
            array = np.asarray(stored.astype(np.int64))
            self.tensors[name] = self._made_tensor(name, output, "constant", grid, grid.bounds, array)
        if name not in self.tensors:
            raise ModelError(f"DequantizeLinear {node.name!r} reads {name!r}, which no QuantizeLinear computes")
        self.terms[output] = Term(name, grid.exponent)

    def _quantize(self, node: onnx_ir.Node) -> None:
        """One integer tensor; an integer Clip behind it narrows its range, and names it."""
        source, value, grid = node.inputs[0], node.outputs[0], grid_of(node)
        clip = only_consumer(value)
        if clip is not None and clip.op_type == "Clip":
            value = clip.outputs[0]
        dequantize = next((reader for reader, _ in value.uses() if reader.op_type == "DequantizeLinear"), None)
        real = value if dequantize is None else dequantize.outputs[0]
        name, term = name_of(value), self._term(source)
        kind: Kind = "input" if source is not None and source.is_graph_input() else "from_float" if term is None else "computed"
        self.tensors[name] = self._made_tensor(name, real, kind, grid, kept_bounds(node), None)
        if kind == "input" and source is not None:
            self.inputs[source] = name
        if term is not None:
            operations = self._operations(term.name)
            worker = next((item for item in reversed(operations) if item.op in SUMS), operations[-1] if operations else None)
            title, origin = (name_of(real), self._source(node)) if worker is None else (worker.node, worker.source)
            self.steps.append(Step(title, origin, operations, term.name, name, grid.exponent - term.exponent))

    def _operations(self, result: str) -> tuple[Operation, ...]:
        """What computes a result from tensors, in order."""
        found: dict[str, Operation] = {}
        pending = [(result, False)]
        while pending:
            name, ready = pending.pop()
            operation = self.made.get(name)
            if operation is None or name in found:
                continue
            if ready:
                found[name] = operation
            else:
                pending += [(name, True), *((read, False) for read in reversed(operation.inputs))]
        return tuple(found.values())

    def _table(self, node: onnx_ir.Node) -> None:
        """A function of one integer: its entries are rounded already, on the grid of what it is rounded to."""
        region = self.exits[node]
        first, entries = self.facts.tables[name_of(region.exit)]
        (quantize,) = {reader for reader, _ in region.exit.uses()}
        operation = Operation(
            "Table",
            node.name or name_of(region.exit),
            self._source(node),
            (self.terms[region.source].name,),
            (0,),
            name_of(region.exit),
            grid_of(quantize).exponent,
            _shape(region.exit),
            {"first": first, "entries": entries.tolist()},
        )
        self.made[operation.output] = operation
        self.terms[region.exit] = Term(operation.output, operation.exponent)

    def _made_tensor(
        self, name: str, real: onnx_ir.Value, kind: Kind, grid: Grid, bounds: tuple[int, int], integers: Any
    ) -> Tensor:
        value = name_of(real)
        quantizer = self.quantizers.get(value)
        producer = real.producer()
        return Tensor(
            name=name,
            value=value,
            kind=kind,
            source=None if producer is None else self._source(producer),
            role=None if quantizer is None else quantizer.role,
            bits=grid.bits if quantizer is None else quantizer.bits,
            signed=grid.signed,
            exponent=grid.exponent,
            lower=bounds[0],
            upper=bounds[1],
            shape=_shape(real) if integers is None else integers.shape,
            integers=integers,
        )

    def _source(self, node: onnx_ir.Node) -> str | None:
        """The TensorFlow node behind a node, behind a QuantizeLinear or behind a dequantized tensor."""
        seen: onnx_ir.Node | None = node
        while seen is not None:
            found = seen.metadata_props.get(LAYER_KEY) or seen.metadata_props.get(SOURCE_KEY)
            if found or (seen.op_type not in _CARRIES and seen.op_type != "Clip"):
                return found
            value = seen.inputs[0]
            seen = None if value is None else value.producer()
        return None

    def _tensor_behind(self, value: onnx_ir.Value) -> str | None:
        """The tensor that a value is the real number of."""
        term = self._term(value)
        return term.name if term is not None and term.name in self.tensors else None

    def _float_part(self, node: onnx_ir.Node) -> FloatPart:
        reason = self.facts.islands.get(node.name or name_of(node.outputs[0]), "an input is not fixed point")
        return FloatPart(node.name or name_of(node.outputs[0]), node.op_type, reason, not _is_quantized_again(node))


def _is_quantized_again(node: onnx_ir.Node) -> bool:
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().outputs:
            for reader, _ in value.uses():
                if reader.op_type == "QuantizeLinear":
                    return True
                if reader not in seen:
                    seen.add(reader)
                    pending.append(reader)
    return False


def _shape(value: onnx_ir.Value) -> tuple[int | None, ...]:
    shape = static_shape(value)
    if shape is None:
        raise UnsupportedError(f"{value.name!r} has no known shape; `quantize` writes one for every tensor")
    return shape
