"""Writes a decided quantizer graph into a lowered float graph as QuantizeLinear/DequantizeLinear (O1-O5).

    p -> v                    ->   p -> v__float -> QuantizeLinear -> v__q -> DequantizeLinear -> v
    p -> Clip(0, c) -> v      ->   p -> QuantizeLinear -> v__r -> Clip(0, upper) -> v__q -> DequantizeLinear -> v
    w (float initializer)     ->   w__q (integer initializer) -> DequantizeLinear -> w

The dequantized value keeps the float value's name, so graph outputs keep theirs (O3). Pass-through operators and Concat
get a carry pair of the same scale, an exact no-op: without it onnxruntime propagates quantizers across them itself, which
fails for int8 and changes numbers for a Pad in front of a MaxPool (measured with 1.31).
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir

from ..ir import (
    CONTRACT_KEY,
    MAX_EXPONENT,
    MIN_EXPONENT,
    QUANTIZERS_KEY,
    ModelError,
    Quantizer,
    QuantizerGraph,
    UnsupportedError,
    add_initializer,
    add_node,
    constant,
    forget_names,
    integer_name,
    name_of,
    rename,
)
from ..kernels import fixed_point
from .base import remove_unused
from .flow import Flow, analyse
from .node_roles import is_rectifier, role_of
from .qdq_merges import check_no_merged_pairs

_FINEST_BEHIND_CLIP = -21
"""onnxruntime 1.31 takes a Clip for superfluous where its bounds miss the quantizer's by less than 1.2e-7, half of 2^-22."""

FLOAT_SUFFIX = "__float"
ROUNDED_SUFFIX = "__r"


def insert_qdq(model: onnx_ir.Model, graph: QuantizerGraph) -> onnx_ir.Model:
    """A new Q/DQ model; the given one is unchanged.

    Args:
        model: lowered float model.
        graph: its quantizers, every exponent decided.

    Raises:
        ModelError: a quantizer names a value that does not exist.
        UnsupportedError: a product exponent leaves the exact range (Q5), or two quantizers would be merged (O5).
    """
    result = model.clone()
    forget_names(result.graph)
    _Inserter(result.graph, graph).run()
    remove_unused(result)
    check_no_merged_pairs(result.graph)
    result.metadata_props[CONTRACT_KEY] = graph.contract
    result.metadata_props[QUANTIZERS_KEY] = graph.to_json()
    return result


def storage(bits: int, signed: bool, *, packed: bool = False) -> tuple[onnx_ir.DataType, type[np.generic]]:
    """ONNX type and NumPy type of integers of that width; 4-bit constants are stored as such (`packed`)."""
    if packed and bits == 4:
        return (onnx_ir.DataType.INT4, ml_dtypes.int4) if signed else (onnx_ir.DataType.UINT4, ml_dtypes.uint4)
    if bits <= 8:
        return (onnx_ir.DataType.INT8, np.int8) if signed else (onnx_ir.DataType.UINT8, np.uint8)
    if bits <= 16:
        return (onnx_ir.DataType.INT16, np.int16) if signed else (onnx_ir.DataType.UINT16, np.uint16)
    return onnx_ir.DataType.INT32, np.int32


def integer_type_bounds(bits: int, signed: bool) -> tuple[int, int]:
    """Bounds of the type that holds integers of that width: where they differ from the quantizer's, a Clip is written."""
    return fixed_point.bounds(8 if bits <= 8 else 16 if bits <= 16 else 32, signed)


class _Inserter:
    def __init__(self, graph: onnx_ir.Graph, quantizers: QuantizerGraph) -> None:
        self.graph = graph
        self.quantizers = quantizers
        inputs = [quantizer for quantizer in quantizers.quantizers if quantizer.role == "input"]
        self.flow: Flow = analyse(graph, unsigned_input=bool(inputs) and not any(quantizer.signed for quantizer in inputs))
        self.values = {value.name: value for node in graph for value in node.outputs}
        self.values.update(graph.initializers)
        self.carried: dict[onnx_ir.Value, Quantizer] = {}
        """Value -> quantizer whose scale and type it is on."""
        self.constants: dict[tuple[str, int], onnx_ir.Value] = {}

    def run(self) -> None:
        by_value = self.quantizers.by_value()
        unknown = set(by_value) - set(self.values)
        if unknown:
            raise ModelError(f"quantizer on {sorted(unknown)[0]!r}, which is no value of the lowered graph")
        for node in list(self.graph):
            self._node(node, by_value)
        for node in list(self.graph):
            if node.op_type == "Identity" and role_of(node) and not node.outputs[0].is_graph_output():
                source = node.inputs[0]
                assert source is not None
                node.outputs[0].replace_all_uses_with(source)
                self.graph.remove(node, safe=True)

    def _node(self, node: onnx_ir.Node, by_value: dict[str, Quantizer]) -> None:
        """Constants in front of the node, its own quantizer behind it, or the carry of its input's."""
        for value in node.inputs:
            if value is not None and constant(value) is not None and value.name in by_value and value not in self.carried:
                self._constant(node, value, by_value[name_of(value)])
        if self.flow.kind[node] in ("compute", "slope", "product", "average"):
            self._check_product(node)
        for value in node.outputs[1:]:  # an island may have several outputs (Split)
            if value.name in by_value:
                self._pair(value, by_value[name_of(value)], None)
        quantizer = by_value.get(name_of(node.outputs[0]))
        if quantizer is not None:
            self._activation(node, quantizer)
        elif self.flow.kind[node] in ("carry", "float", "concat", "own") or self.flow.is_selected(node.outputs[0]):
            # float: it moves what an island computed
            carrier = next((self.carried[value] for value in node.inputs if value in self.carried), None)
            if carrier is not None and node.op_type != "Identity":
                _refuse_dropped_clip(node, carrier)
                self._pair(node.outputs[0], carrier, None)
            elif carrier is not None:
                self.carried[node.outputs[0]] = carrier

    def _check_product(self, node: onnx_ir.Node) -> None:
        """Q5: the exponent of the layer's sum, or of a product."""
        operands = [self.carried[value] for value in node.inputs[:2] if value is not None and value in self.carried]
        exponent = sum(quantizer.decided_exponent for quantizer in operands)
        if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
            raise UnsupportedError(
                f"layer {node.name!r}: the product of its scales is 2^{exponent}, outside 2^{MIN_EXPONENT} .. 2^{MAX_EXPONENT}, "
                "where float32 arithmetic on integers stays exact (Q5)"
            )

    def _scale(self, exponent: int) -> onnx_ir.Value:
        return self._shared("scale", exponent, fixed_point.dequantize(np.ones((), np.int64), exponent))

    def _zero(self, dtype: onnx_ir.DataType, numpy_type: type[np.generic]) -> onnx_ir.Value:
        return self._shared(f"zero_{dtype.name.lower()}", 0, np.zeros((), numpy_type))

    def _shared(self, kind: str, key: int, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> onnx_ir.Value:
        """One initializer per distinct scale, zero or bound."""
        if (kind, key) not in self.constants:
            suffix = f"_2^{key}" if kind == "scale" else "" if kind.startswith("zero") else f"_{key}"
            self.constants[kind, key] = add_initializer(self.graph, f"tqt_{kind}{suffix}", array)
        return self.constants[kind, key]

    def _constant(self, node: onnx_ir.Node, value: onnx_ir.Value, quantizer: Quantizer) -> None:
        """Stores the integers and dequantizes them in front of `node`, their first reader (O2)."""
        array = constant(value)
        assert array is not None
        name = name_of(value)
        dtype, numpy_type = storage(quantizer.bits, quantizer.signed, packed=True)
        largest = float(max(array.max(initial=0.0), -array.min(initial=0.0)))
        if quantizer.bits == 32 and np.ldexp(largest, -quantizer.decided_exponent) >= 1 << 31:
            raise UnsupportedError(
                f"layer {node.name!r}: its bias of up to {largest:g} does not fit an int32 at the scale "
                f"2^{quantizer.decided_exponent} (L11); a larger threshold of its weights, or --layer-bits 16, leaves room"
            )
        integers = fixed_point.quantize_as(array, quantizer.decided_exponent, quantizer.bits, quantizer.signed, numpy_type)
        readers = value.uses()
        rename(value, f"{name}{FLOAT_SUFFIX}")
        stored = add_initializer(self.graph, integer_name(name), integers)
        output = add_node(
            self.graph,
            "DequantizeLinear",
            [stored, self._scale(quantizer.decided_exponent), self._zero(dtype, numpy_type)],
            name,
            before=node,
            like=value,
        )
        for reader, index in readers:
            reader.replace_input_with(index, output)
        if value.is_initializer():
            del self.graph.initializers[f"{name}{FLOAT_SUFFIX}"]
        self.carried[output] = quantizer

    def _activation(self, node: onnx_ir.Node, quantizer: Quantizer) -> None:
        value = node.outputs[0]
        source = node.inputs[0]
        assert source is not None
        on_integers = quantizer.limit is not None and is_rectifier(node) and source not in self.carried
        if not on_integers:
            _refuse_dropped_clip(node, quantizer)
        bounds = (quantizer.lower, quantizer.upper)
        whole_type = integer_type_bounds(quantizer.bits, quantizer.signed)
        self._pair(value, quantizer, None if bounds == whole_type else bounds, reads=source if on_integers else None)
        if on_integers:
            self.graph.remove(node, safe=True)

    def _pair(
        self, value: onnx_ir.Value, quantizer: Quantizer, bounds: tuple[int, int] | None, reads: onnx_ir.Value | None = None
    ) -> None:
        """Puts Q, an optional integer Clip and DQ behind `value` (or behind `reads`, in its stead)."""
        name = name_of(value)
        readers = value.uses()
        was_output = value.is_graph_output()
        producer = value.producer()
        assert producer is not None
        rename(value, f"{name}{FLOAT_SUFFIX}")
        dtype, numpy_type = storage(quantizer.bits, quantizer.signed)
        parameters = [self._scale(quantizer.decided_exponent), self._zero(dtype, numpy_type)]
        integer = integer_name(name)
        rounded = add_node(
            self.graph,
            "QuantizeLinear",
            [value if reads is None else reads, *parameters],
            integer if bounds is None else f"{name}{ROUNDED_SUFFIX}",
            after=producer,
            like=value,
        )
        rounded.type = onnx_ir.TensorType(dtype)
        if bounds is not None:
            low, high = (self._shared(f"bound_{dtype.name.lower()}", bound, np.asarray(bound, numpy_type)) for bound in bounds)
            rounded = add_node(self.graph, "Clip", [rounded, low, high], integer, after=rounded.producer(), like=rounded)
        output = add_node(self.graph, "DequantizeLinear", [rounded, *parameters], name, after=rounded.producer(), like=value)
        for reader, index in readers:
            reader.replace_input_with(index, output)
        if was_output:
            for index, old in enumerate(self.graph.outputs):
                if old is value:
                    self.graph.outputs[index] = output
        self.carried[output] = quantizer
        self.flow.integers.add(output)


def _refuse_dropped_clip(node: onnx_ir.Node, quantizer: Quantizer) -> None:
    if node.op_type == "Clip" and quantizer.decided_exponent < _FINEST_BEHIND_CLIP:
        raise UnsupportedError(
            f"{node.outputs[0].name!r}: scale 2^{quantizer.decided_exponent} is below 2^{_FINEST_BEHIND_CLIP}, where "
            "onnxruntime drops a float Clip in front of it: it compares the bounds with an absolute tolerance (X4)"
        )
