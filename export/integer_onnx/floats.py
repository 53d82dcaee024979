"""What is not integer: the ends of the network, and its float parts, whose nodes are those of the model.

A float part reads what DequantizeLinear makes of integers; where layers follow, QuantizeLinear makes integers of what it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir

from ...ir import ModelError, UnsupportedError, constant, name_of
from ..integers.network import IntegerNetwork, Operation, Tensor
from .graph import Builder, Carried
from .rounding import dequantize, quantize, real_numbers, stored_type


@dataclass
class Floats:
    """Float values of the model in the graph that is built.

    Attributes:
        builder: the graph.
        network: tensors.
        carried: gives the integers of a tensor.
        opsets: of the model, by domain.
        values: of the model -> in the graph.
    """

    builder: Builder
    network: IntegerNetwork
    carried: Callable[[str], Carried]
    opsets: dict[str, int]
    values: dict[onnx_ir.Value, onnx_ir.Value] = field(default_factory=dict)

    @property
    def unrounded(self) -> dict[str, Operation]:
        """Value of the model -> what computes it in integers that nothing rounds."""
        return {part.last.output: part.last for part in self.network.unrounded}

    def input(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """An input of the model as an input of the graph, under its name."""
        if value not in self.values:
            own = onnx_ir.Value(name=value.name, shape=value.shape, type=value.type)
            self.builder.graph.inputs.append(own)
            self.values[value] = own
        return self.values[value]

    def value(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """A float value of the model: an input, a constant, real numbers of integers, or what a copied node computes."""
        if value.is_graph_input():
            return self.input(value)
        if value not in self.values:
            stored, node = constant(value), value.producer()
            if stored is not None:
                return self.builder.constant(name_of(value), stored)
            if node is None:
                raise ModelError(f"{value.name!r} is neither an input, a constant nor computed")
            if name_of(value) in self.unrounded:
                last = self.unrounded[name_of(value)]
                self.values[value] = real_numbers(self.builder, self.carried(last.output), last.exponent, last.output)
            elif node.op_type == "DequantizeLinear":
                self.values[value] = self._real(name_of(node.inputs[0]), name_of(value))
            else:
                self.copy(node)
        return self.values[value]

    def copy(self, node: onnx_ir.Node) -> None:
        """A node of the model as it is.

        Raises:
            UnsupportedError: it has a graph of its own.
        """
        kinds = {attribute.type for attribute in node.attributes.values()}
        if kinds & {onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS}:
            raise UnsupportedError(
                f"target integer: node {node.name!r}: float parts are copied node by node; operators without a graph of their own "
                f"are expected. Received: {node.op_type}"
            )
        if all(output in self.values for output in node.outputs):
            return
        inputs = [None if value is None or not value.name else self.value(value) for value in node.inputs]
        own = onnx_ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        for output, copied in zip(node.outputs, own.outputs, strict=True):
            copied.name = self.builder.unique(output.name) if output.name else ""
            copied.type, copied.shape = output.type, output.shape
            self.values[output] = copied
        self.builder.graph.opset_imports.setdefault(node.domain, self.opsets.get(node.domain, 1))
        self.builder.append(own, node.name or f"{node.op_type}:{node.outputs[0].name}")

    def quantized(self, integers: onnx_ir.Value, tensor: Tensor) -> Carried:
        """The integers of an input or of what a float part computes; `integers` is what the model calls them."""
        node = integers.producer()
        if node is not None and node.op_type == "Clip":
            above = node.inputs[0]
            node = None if above is None else above.producer()
        real = None if node is None else node.inputs[0]
        if real is None:
            raise ModelError(f"{tensor.name!r} is not quantized from a float value")
        value = quantize(self.builder, self.value(real), tensor.exponent, tensor)
        return self._tensor(tensor, self.builder.named(value, tensor.name))

    def given(self, tensor: Tensor, like: onnx_ir.Value) -> Carried:
        """The integers of an input, from the user; what is out of range is saturated, as QuantizeLinear would."""
        own = onnx_ir.Value(name=tensor.name, shape=like.shape, type=onnx_ir.TensorType(stored_type(tensor)))
        self.builder.graph.inputs.append(own)
        dtype = stored_type(tensor)
        limits = np.iinfo(dtype.numpy())
        if tensor.lower <= limits.min and tensor.upper >= limits.max:
            return self._tensor(tensor, own)
        bounds = [self.builder.number(bound, dtype) for bound in (tensor.lower, tensor.upper)]
        value = self.builder.node("Clip", [own, *bounds], f"{tensor.name}__clipped")
        value.dtype = dtype
        return self._tensor(tensor, value)

    def outputs(self, model: onnx_ir.Model) -> None:
        """The model's outputs, under their names, from integers or from a float part."""
        for value, port in zip(model.graph.outputs, self.network.outputs, strict=True):
            real = self.value(value) if port.tensor is None else self._real(port.tensor, port.name)
            own = self.builder.named(real, port.name)
            own.shape, own.type = value.shape, value.type
            self.builder.graph.outputs.append(own)

    def ends(self) -> None:
        """The integers that leave the integer part as outputs, under their own names."""
        for name in self.network.ends:
            tensor = self.network.tensors[name]
            value = self.builder.read(self.carried(name), stored_type(tensor))
            if tensor.kind == "input":  # its name is that of the graph's input
                value = self.builder.named(value, self.builder.unique(f"{name}__output"))
            value.shape = onnx_ir.Shape(tensor.shape)
            self.builder.graph.outputs.append(value)

    def _real(self, tensor: str, name: str) -> onnx_ir.Value:
        described = self.network.tensors[tensor]
        integers = self.builder.read(self.carried(tensor), stored_type(described))
        return dequantize(self.builder, integers, described.exponent, name)

    @staticmethod
    def _tensor(tensor: Tensor, value: onnx_ir.Value) -> Carried:
        return Carried(tensor.name, tensor.shape, tensor.lower, tensor.upper, value)
