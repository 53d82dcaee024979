"""The network in integers with a MultiThreshold wherever it is rounded: what FINN's streamlining arrives at.

    x (integers) -> Conv(integer weights) -> MultiThreshold(thresholds, one row a channel) -> ...

Integers travel as float32, as everywhere in FINN; annotations name their widths. Biases are in the thresholds of their layer; those
above the bound of a relu6 are never reached. Inputs and outputs are integers: the scales of both ends are the host's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...ir import UnsupportedError
from ..integers.network import IntegerNetwork, Operation, Step, Tensor
from ..qonnx_dialect.file import OLD_IR_VERSION, OLD_OPSET
from ..qonnx_dialect.quant import DOMAIN, DOMAIN_VERSION
from .moves import RESHAPES, transposition
from .thresholds import ThresholdTable

_WINDOW: Final = ("kernel_shape", "strides", "pads", "dilations")

_PLAIN: Final[dict[str, tuple[str, ...]]] = {
    "Add": (),
    "Concat": ("axis",),
    "Conv": (*_WINDOW, "group"),
    "Identity": (),
    "MaxPool": _WINDOW,
    "Transpose": ("perm",),
}
"""Operator that is written as it is -> its attributes."""


def threshold_model(network: IntegerNetwork, tables: Mapping[str, ThresholdTable], name: str) -> onnx.ModelProto:
    """The model, for one example.

    Args:
        network: one that `limits` lets through.
        tables: by tensor.
        name: of the graph.
    """
    writer = _Writer(network, tables)
    for step in network.steps:
        writer.step(step)
    inputs = [_info(port.name, network.tensors[port.tensor].shape) for port in network.inputs if port.tensor is not None]
    outputs = [_info(end, network.tensors[end].shape) for end in network.ends]
    graph = helper.make_graph(writer.nodes, name, inputs, outputs, writer.initializers, value_info=writer.infos)
    graph.quantization_annotation.extend(_annotation(value, kind) for value, kind in writer.kinds.items())
    opsets = [helper.make_opsetid("", OLD_OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="tqt-onnx")
    model.ir_version = OLD_IR_VERSION
    onnx.checker.check_model(model)
    return model


class _Writer:
    def __init__(self, network: IntegerNetwork, tables: Mapping[str, ThresholdTable]) -> None:
        self.network, self.tables = network, tables
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.infos: list[onnx.ValueInfoProto] = []
        self.kinds: dict[str, str] = {}
        self.names: dict[str, str] = {}
        """Tensor or output of an operation -> value of the model."""
        for port in network.inputs:
            if port.tensor is not None:
                self.names[port.tensor] = port.name
                self.kinds[port.name] = kind_of(network.tensors[port.tensor])

    def step(self, step: Step) -> None:
        """Its operations, and its thresholds where it rounds; a copy's last operation computes its tensor."""
        table = self.tables.get(step.output)
        for operation in step.operations:
            if operation.op == "Relu":  # what is thresholded is unsigned: below zero it reaches no threshold
                self.names[operation.output] = self.names[operation.inputs[0]]
                continue
            last = table is None and operation.output == step.result
            self._operation(step, operation, step.output if last else operation.output, None if table is None else table.bias)
        output = self.network.tensors[step.output]
        if table is not None:
            self._thresholds(step, table, output)
        elif not step.operations:
            self._node("Identity", [self.names[step.result]], step.output, output.shape, f"Identity:{step.output}")
        self.names[step.output] = step.output
        self.kinds[step.output] = kind_of(output)

    def _operation(self, step: Step, operation: Operation, output: str, absorbed: str | None) -> None:
        a, node, shape = operation.attributes, operation.node, operation.shape
        self.names[operation.output] = output
        data = [self._read(name) for name in operation.inputs[:1]]
        if operation.op in {"Conv", "Gemm", "MatMul"}:
            bias = operation.inputs[2] if len(operation.inputs) > 2 else None
            added = bias is not None and bias != absorbed
            product = f"{output}__product" if added else output
            weights = self._weights(operation)
            if operation.op == "Conv":
                self._node("Conv", [*data, weights], product, shape, node, {name: a[name] for name in _PLAIN["Conv"]})
            else:
                self._node("MatMul", [*data, weights], product, shape, node)
            if bias is not None and added:
                self._node("Add", [product, self._bias(bias, len(shape))], output, shape, f"{node}__bias")
        elif operation.op in RESHAPES and len(shape) == 2:
            self._node("Flatten", data, output, shape, node, {"axis": 1})
        elif operation.op in RESHAPES:
            perm = transposition(self._shape(step, operation.inputs[0]), shape)
            self._node("Transpose", data, output, shape, node, {"perm": perm})
        elif operation.op == "Resize":
            self._resize(operation, self._shape(step, operation.inputs[0]), data, output)
        elif operation.op in _PLAIN:
            inputs = [self._read(name) for name in operation.inputs]
            attributes = {name: a[name] for name in _PLAIN[operation.op]}
            self._node(operation.op, inputs, output, shape, node, attributes)
        else:
            raise UnsupportedError(f"target finn: layer {step.name!r}: FINN has no such layer. Received: {operation.op}")

    def _resize(self, operation: Operation, before: Sequence[int | None], data: Sequence[str], output: str) -> None:
        sides = [(size or 1) / (old or 1) for old, size in zip(before[2:], operation.shape[2:], strict=True)]
        scales = self._constant(f"{output}__scales", np.array([1.0, 1.0, *sides], np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        self._node("Resize", [*data, "", scales], output, operation.shape, operation.node, attributes)

    def _shape(self, step: Step, name: str) -> Sequence[int | None]:
        tensor = self.network.tensors.get(name)
        return tensor.shape if tensor is not None else next(item.shape for item in step.operations if item.output == name)

    def _thresholds(self, step: Step, table: ThresholdTable, output: Tensor) -> None:
        edges = self._constant(f"{step.output}__thresholds", table.even.astype(np.float32))
        self.kinds[edges] = "INT32"
        attributes = {"out_dtype": kind_of(output), "out_scale": 1.0, "out_bias": float(table.lowest)}
        self._node("MultiThreshold", [self._read(step.result), edges], step.output, output.shape, f"Q:{step.name}", attributes)

    def _weights(self, operation: Operation) -> str:
        tensor = self.network.tensors[operation.inputs[1]]
        assert tensor.integers is not None
        array = tensor.integers.T if operation.attributes.get("transB") else tensor.integers
        value = self._constant(f"{operation.node}__weights", array.astype(np.float32))
        self.kinds[value] = kind_of(tensor)
        return value

    def _bias(self, name: str, rank: int) -> str:
        tensor = self.network.tensors[name]
        assert tensor.integers is not None
        array = tensor.integers.reshape(1, -1, *[1] * (rank - 2)).astype(np.float32)
        value = self._constant(f"{name}__added", array)
        self.kinds[value] = kind_of(tensor)
        return value

    def _read(self, name: str) -> str:
        return self.names[name]

    def _constant(self, name: str, array: npt.NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int | None],
        name: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        domain = DOMAIN if op == "MultiThreshold" else None
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, domain=domain, **(attributes or {})))
        if output not in self.network.ends:
            self.infos.append(_info(output, shape))


def kind_of(tensor: Tensor) -> str:
    """Name of a tensor's integers, as qonnx spells it."""
    return f"{'INT' if tensor.signed else 'UINT'}{tensor.bits}"


def _info(name: str, shape: Sequence[int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1 if size is None else size for size in shape])


def _annotation(value: str, kind: str) -> onnx.TensorAnnotation:
    entry = onnx.StringStringEntryProto(key="finn_datatype", value=kind)
    return onnx.TensorAnnotation(tensor_name=value, quant_parameter_tensor_names=[entry])
