"""Decides what is quantized, with how many bits, with which sign and with whom it shares a scale (L1-L11).

Policy only: nothing in the graph changes; `insert_qdq` writes what is decided here.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import onnx_ir

from ..ir import (
    LAYER_KEY,
    SOURCE_KEY,
    Contract,
    ModelError,
    Quantizer,
    QuantizerGraph,
    Role,
    UnsupportedError,
    UsageError,
    compute_nodes,
    constant,
    name_of,
)
from .flow import ROUNDED, Flow, analyse
from .node_roles import INPUT_ROLE, RECIPROCAL_ROLE, RESCALE_ROLE, SUM_ROLE, is_rectifier, role_of, upper_limit

ALPHA_BITS = 10
"""Slopes of leaky relus: in `[-2^9, 2^9)`, so that the product with 16 bits stays within 2^24, exact in float32 (L3, X1)."""

UNIT_BITS = 2
"""Ones of a sum: of signed numbers of 2 bits the largest is 1, so that 1 is exact at the scale 1, and at no finer one (L6)."""

WIDE_BITS = 16
"""What a leaky relu computes with, in both contracts (L3, L11)."""

LAYER_BITS: dict[int, Contract] = {16: "layer16", 32: "layer32"}


@dataclass(frozen=True)
class BitWidths:
    """Widths of every kind of tensor; signs follow from the L rules.

    Attributes:
        weight: weights, 2 to 8. Below 8 the first and last compute layer keep 8 (L9).
        activation: inputs, activations and rescaled branches, 2 to 8.
        layer: 16 (accumulator and bias rounded to 16 bits, L1) or 32 (bias at the product scale, one rounding, L11).
        relu: outputs of relu and relu6, 2 to 8.
        average_pool: outputs of average pools, 2 to 8.
        reciprocal: the 1/n of average pools, 2 to 8.
        unsigned_input: the network's inputs are never negative and get the unsigned type.
        first_layer: name of the first compute layer's node or output, where graph order does not tell.
        last_layer: likewise of the last.
    """

    weight: int = 8
    activation: int = 8
    layer: Literal[16, 32] = 16
    relu: int = 8
    average_pool: int = 8
    reciprocal: int = 8
    unsigned_input: bool = False
    first_layer: str | None = None
    last_layer: str | None = None

    def __post_init__(self) -> None:
        if self.layer not in LAYER_BITS:
            raise UsageError(f"layer bits must be 16 or 32. Received: {self.layer}")
        for name in ("weight", "activation", "relu", "average_pool", "reciprocal"):
            if not 2 <= getattr(self, name) <= 8:
                raise UsageError(f"{name.replace('_', ' ')} bits must be 2 to 8. Received: {getattr(self, name)}")

    @property
    def contract(self) -> Contract:
        """Name of the layer contract."""
        return LAYER_BITS[self.layer]


def annotate(model: onnx_ir.Model, bits: BitWidths | None = None) -> QuantizerGraph:
    """The quantizers of a lowered float graph, exponents still open.

    Args:
        model: lowered by `lower` for the same contract.
        bits: widths; the defaults where None.

    Raises:
        UnsupportedError: the graph has no layer to quantize, or one weight serves layers with different widths.
        ModelError: `first_layer` or `last_layer` names no compute layer.
    """
    chosen = bits or BitWidths()
    return _Annotator(model.graph, chosen).run()


class _Annotator:
    """One walk over the graph that collects quantizers and joins share groups (union-find over values)."""

    def __init__(self, graph: onnx_ir.Graph, bits: BitWidths) -> None:
        self.graph = graph
        self.bits = bits
        self.flow: Flow = analyse(graph, unsigned_input=bits.unsigned_input)
        self.found: dict[onnx_ir.Value, tuple[Role, int, bool, float | None]] = {}
        self.derived: dict[onnx_ir.Value, tuple[onnx_ir.Value, onnx_ir.Value]] = {}
        self.parent: dict[onnx_ir.Value, onnx_ir.Value] = {}
        self.weight_bits = self._weight_bits()

    def run(self) -> QuantizerGraph:
        for node in self.graph:
            kind = self.flow.kind[node]
            match kind:
                case "compute":
                    self._compute(node)
                case "bias":
                    self._bias(node)
                case "slope":
                    self._slope(node)
                case "add" | "select" | "concat":
                    self._share(node)
                case "product":
                    self._product(node)
                case "average":
                    self._quantize(self._constant(node), "reciprocal", self.bits.reciprocal, signed=False)  # L6
                case "function" if node.outputs[0] in self.flow.functions:
                    self._need(self.flow.functions[node.outputs[0]].source)  # L12
                case "fill" | "carry" if kind == "fill" or is_rectifier(node):
                    self._need(self._input(node))
                case "rectify":
                    if self._input(node) in self.flow.integers and not self.flow.is_sum(self._input(node)):
                        self._need(self._input(node))
            self._output(node)
        if not self.found:
            raise UnsupportedError(
                "nothing to quantize: the graph has no layer with constant weights and no operator of two tensors"
            )
        return self._assemble()

    # --- what each kind of node asks for

    def _compute(self, node: onnx_ir.Node) -> None:
        data, weight = self._input(node), node.inputs[1]
        assert weight is not None
        self._need(data)
        if role_of(node) == RECIPROCAL_ROLE:
            self._quantize(weight, "reciprocal", self.bits.reciprocal, signed=False)
            return
        if role_of(node) == SUM_ROLE:
            self._quantize(weight, "reciprocal", UNIT_BITS, signed=True)
            return
        width = self.weight_bits[node]
        if weight in self.found and self.found[weight][1] != width:
            raise UnsupportedError(
                f"weight {weight.name!r} serves layers of {self.found[weight][1]} and {width} bits; give all of them one width"
            )
        self._quantize(weight, "weight", width, signed=True)
        if self.bits.contract == "layer16" and not self.flow.is_sum(node.outputs[0]):  # L2: a sum is rounded behind its rectifier
            self._quantize(node.outputs[0], "accumulator", 16, signed=True)  # L1, L10
        elif self.bits.contract == "layer32" and len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = node.inputs[2]
            self._quantize(bias, "bias", 32, signed=True)  # L11
            self.derived[bias] = (self.flow.origin[data], weight)

    def _bias(self, node: onnx_ir.Node) -> None:
        accumulator, bias = node.inputs
        assert accumulator is not None and bias is not None
        self._quantize(bias, "bias", 16, signed=True)
        self._join(accumulator, bias)  # L1: the two share one threshold

    def _slope(self, node: onnx_ir.Node) -> None:
        """`x` and `a * x` of a leaky relu share one 16-bit threshold (L3)."""
        data, alpha = node.inputs
        assert data is not None and alpha is not None
        self._quantize(data, "activation", WIDE_BITS, signed=True)
        self._quantize(alpha, "alpha", ALPHA_BITS, signed=True)
        self._quantize(node.outputs[0], "activation", WIDE_BITS, signed=True)
        self._join(data, node.outputs[0])

    def _product(self, node: onnx_ir.Node) -> None:
        """Each factor has a scale of its own (L13)."""
        for value in node.inputs:
            assert value is not None
            self._need(value)

    def _share(self, node: onnx_ir.Node) -> None:
        """Operands of Add, Sub, Max, Min and Concat, and the output of all but sums, are on one grid (L4, L5)."""
        first = next(value for value in node.inputs if value is not None)
        for value in node.inputs:
            assert value is not None
            self._need(value)
            self._join(first, value)
        if self.flow.kind[node] == "concat" or self.flow.is_selected(node.outputs[0]):
            self._join(first, node.outputs[0])

    def _output(self, node: onnx_ir.Node) -> None:
        """Every sum, rectified or not, ends in a quantizer (L1, L2, L10)."""
        kind = self.flow.kind[node]
        value = node.outputs[0]
        if value in self.flow.functions:
            signed = self.flow.signed[value]
            self._quantize(value, "activation", self.bits.activation if signed else self.bits.relu, signed=signed)  # L12
        if kind not in ROUNDED or value in self.found or self.flow.is_sum(value) or self.flow.is_selected(value):
            return
        role = role_of(node)
        if role == INPUT_ROLE:
            return  # on demand: an input that only feeds float operators stays as it is
        if role == RESCALE_ROLE and self._input(node) in self.flow.integers:
            self._need(self._input(node))  # an input has one 8-bit form, whoever reads it (L8)
        if value in self.flow.wide:
            self._quantize(value, "rescale" if role == RESCALE_ROLE else "activation", WIDE_BITS, signed=True)
        elif kind in ("rectify", "leaky"):
            signed = self.flow.signed[value]
            bits = self.bits.activation if signed else self.bits.relu
            self._quantize(value, "activation", bits, signed=signed, limit=upper_limit(node))
        elif role == RECIPROCAL_ROLE:
            self._quantize(value, "activation", self.bits.average_pool, signed=self.flow.signed[value])
        else:
            name: Role = "rescale" if role == RESCALE_ROLE else "activation"
            self._quantize(value, name, self.bits.activation, signed=self.flow.signed[value])

    # --- bookkeeping

    def _input(self, node: onnx_ir.Node) -> onnx_ir.Value:
        value = node.inputs[0]
        assert value is not None
        return value

    def _constant(self, node: onnx_ir.Node) -> onnx_ir.Value:
        return next(value for value in node.inputs if constant(value) is not None and value is not None)

    def _need(self, value: onnx_ir.Value) -> None:
        """The scale of `value` must be set by a quantizer: on its origin, unless what it is put together from sets it."""
        if constant(value) is not None:
            self._quantize(value, "weight", self.bits.activation, signed=True)
            return
        origin = self.flow.origin[value]
        producer = origin.producer()
        if origin in self.found or (producer is not None and self.flow.kind[producer] == "concat") or self.flow.is_selected(origin):
            return
        is_input = producer is None or role_of(producer) == INPUT_ROLE
        self._quantize(origin, "input" if is_input else "activation", self.bits.activation, signed=self.flow.signed[origin])

    def _quantize(self, value: onnx_ir.Value, role: Role, bits: int, *, signed: bool, limit: float | None = None) -> None:
        self.found.setdefault(value, (role, bits, signed, limit))

    def _root(self, value: onnx_ir.Value) -> onnx_ir.Value:
        value = self.flow.origin.get(value, value)
        while (parent := self.parent.get(value, value)) is not value:
            self.parent[value] = self.parent.get(parent, parent)
            value = parent
        return value

    def _join(self, one: onnx_ir.Value, other: onnx_ir.Value) -> None:
        first, second = self._root(one), self._root(other)
        if first is not second:
            self.parent[second] = first

    def _weight_bits(self) -> dict[onnx_ir.Node, int]:
        """Width of each layer's weights: the first and the last keep 8 bits when the others have fewer (L9)."""
        layers = [
            node
            for node in compute_nodes(self.graph)
            if self.flow.kind[node] == "compute" and role_of(node) not in (RECIPROCAL_ROLE, SUM_ROLE)
        ]
        widths = dict.fromkeys(layers, self.bits.weight)
        if not layers:
            return widths
        for wanted, default in ((self.bits.first_layer, layers[0]), (self.bits.last_layer, layers[-1])):
            widths[default if wanted is None else _named(layers, wanted)] = 8
        return widths

    def _assemble(self) -> QuantizerGraph:
        position = {value: (index, 1) for index, node in enumerate(self.graph) for value in node.outputs}
        for index, node in reversed(list(enumerate(self.graph))):
            position.update({value: (index, 0) for value in node.inputs if value is not None and value.producer() is None})
        members: dict[onnx_ir.Value, list[onnx_ir.Value]] = {}
        for value in sorted(self.found, key=lambda value: position.get(value, (-1, 0))):
            members.setdefault(self._root(value), []).append(value)
        quantizers: dict[onnx_ir.Value, Quantizer] = {}
        for group in members.values():
            quantizers.update(self._group(group))
        for bias, (data, weight) in self.derived.items():
            carrier = members[self._root(data)][0]
            sources = (name_of(carrier), name_of(weight))
            quantizers[bias] = Quantizer(name_of(bias), name_of(bias), 32, True, "bias", name_of(bias), derived_from=sources)
        ordered = sorted(quantizers, key=lambda value: position.get(value, (-1, 0)))
        return QuantizerGraph(self.bits.contract, tuple(quantizers[value] for value in ordered))

    def _group(self, values: list[onnx_ir.Value]) -> dict[onnx_ir.Value, Quantizer]:
        """Members of one share group agree in sign and bits: constants and rescaled branches follow the others."""
        if len(values) == 1:
            role, bits, signed, limit = self.found[values[0]]
            return {values[0]: Quantizer(name_of(values[0]), name_of(values[0]), bits, signed, role, name_of(values[0]), limit)}
        signed = any(_has_negative(value) if constant(value) is not None else self.found[value][2] for value in values)
        width = max(self.found[value][1] for value in values)
        result = {}
        for value in values:
            role, _, own_sign, limit = self.found[value]
            if own_sign != signed and role != "rescale" and constant(value) is None:
                raise ModelError(f"{value.name!r} shares a scale with values of the other sign; run insert-rescale first")
            result[value] = Quantizer(
                id=name_of(value), value=name_of(value), bits=width, signed=signed, role=role, group=name_of(values[0]), limit=limit
            )
        return result


def _named(layers: list[onnx_ir.Node], wanted: str) -> onnx_ir.Node:
    for node in layers:
        if wanted in (node.name, node.outputs[0].name, node.metadata_props.get(SOURCE_KEY), node.metadata_props.get(LAYER_KEY)):
            return node
    names = [node.metadata_props.get(LAYER_KEY) or node.name or name_of(node.outputs[0]) for node in layers]
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or [names[0], "...", names[-1]]
    raise ModelError(f"no compute layer is called {wanted!r}; close names: {', '.join(close)}. Received: {wanted!r}")


def _has_negative(value: onnx_ir.Value) -> bool:
    array = constant(value)
    return array is not None and bool((array < 0).any())
