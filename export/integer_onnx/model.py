"""A network in integers as ONNX that computes in integers, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir

from ...ir import CONTRACT_KEY, IR_VERSION, VERSION_KEY, UnsupportedError, constant, name_of
from ..base import Source
from ..integers.network import Operation, Step
from .elementwise import ELEMENTWISE, shifted
from .floats import Floats
from .graph import F64, Builder, Carried
from .moves import WRITERS
from .rounding import requantize
from .sums import convolution, dense, transposed_convolution

OPERATIONS: Final[dict[str, Callable[[Builder, Operation, Sequence[Carried]], Carried]]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": dense,
    "MatMul": dense,
    **ELEMENTWISE,
    **WRITERS,
}
"""Operation -> what writes it."""


@dataclass(frozen=True, slots=True)
class IntegerModel:
    """What was built.

    Attributes:
        model: of opset 21.
        in_float64: nodes of operations whose integers do not fit int32.
    """

    model: onnx_ir.Model
    in_float64: tuple[str, ...]


def build(source: Source, *, integer_io: bool) -> IntegerModel:
    """The model in integers.

    Args:
        source: what is exported; its model is not changed.
        integer_io: the network's integers go in and out, and what is behind them stays out.

    Raises:
        UnsupportedError: what ONNX operators on integers cannot hold, by layer, limit and value.
    """
    return _Writer(source, integer_io=integer_io).written()


class _Writer:
    def __init__(self, source: Source, *, integer_io: bool) -> None:
        self.source, self.network, self.integer_io = source, source.network, integer_io
        ports = (*self.network.inputs, *self.network.outputs)
        computed = {name for name, tensor in self.network.tensors.items() if tensor.kind != "constant"}
        self.builder = Builder({*computed, *(port.name for port in ports)})
        self.carried: dict[str, Carried] = {}
        for tensor in self.network.constants:
            assert tensor.integers is not None
            low, high = (int(tensor.integers.min()), int(tensor.integers.max())) if tensor.integers.size else (0, 0)
            self.carried[tensor.name] = Carried(tensor.name, tensor.shape, low, high, integers=tensor.integers)
        opsets = dict(source.model.graph.opset_imports)
        self.floats = Floats(self.builder, self.network, self.carried.__getitem__, opsets)
        self.in_float64: list[str] = []

    def written(self) -> IntegerModel:
        graph = self.source.model.graph
        self._inputs({name_of(value): value for value in graph.inputs})
        steps = {step.output: step for step in self.network.steps}
        unrounded = {part.last.output: part for part in self.network.unrounded}
        floats = {part.node for part in self.network.float_parts if not (self.integer_io and part.is_tail)}
        for node in graph:
            for value in node.outputs:
                name = name_of(value) if value.name else ""
                if name in steps:
                    self._step(steps[name])
                elif name in unrounded:
                    self._operations(unrounded[name].operations)
                elif name in self.network.tensors and name not in self.carried:
                    self.builder.source = self.network.tensors[name].source
                    self.carried[name] = self.floats.quantized(value, self.network.tensors[name])
            if (node.name or name_of(node.outputs[0])) in floats:
                self.builder.source = None
                self.floats.copy(node)
        self.builder.source = None
        if self.integer_io:
            self._check_ends()
            self.floats.ends()
        else:
            self.floats.outputs(self.source.model)
        kept = (CONTRACT_KEY, VERSION_KEY)
        metadata = {key: text for key, text in self.source.model.metadata_props.items() if key in kept}
        model = onnx_ir.Model(self.builder.graph, ir_version=IR_VERSION, producer_name="tqt-onnx", metadata_props=metadata)
        return IntegerModel(model, tuple(self.in_float64))

    def _inputs(self, values: Mapping[str, onnx_ir.Value]) -> None:
        for port in self.network.inputs:
            if not self.integer_io:
                self.floats.input(values[port.name])
            elif port.tensor is not None:
                self.carried[port.tensor] = self.floats.given(self.network.tensors[port.tensor], values[port.name])

    def _check_ends(self) -> None:
        """Refuses outputs that do not follow from the integers that leave the network, and float parts."""
        parts = {part.node: part.is_tail for part in self.network.float_parts}
        for node in self.source.model.graph:
            name = node.name or name_of(node.outputs[0])
            read = node.inputs if parts.get(name, False) else ()
            ends = [value for value in node.outputs if value.is_graph_output()]
            for value in (*read, *ends):
                above = None if value is None or constant(value) is not None else value.producer()
                if above is None or above.op_type == "DequantizeLinear" or (above.name or name_of(above.outputs[0])) in parts:
                    continue
                raise UnsupportedError(
                    f"target integer: node {name!r}: with integer_io, what leaves the network must be integers of a tensor. "
                    f"Received: {name_of(above.outputs[0])!r}, which {above.op_type} computes and nothing rounds"
                )

    def _step(self, step: Step) -> None:
        tensor = self.network.tensors[step.output]
        operations, result = list(step.operations), step.result
        while operations and operations[-1].op == "Relu" and operations[-1].output == result and tensor.lower >= 0:
            result = operations.pop().inputs[0]  # rounding is monotone and keeps 0: the lower bound does it (L2)
        self._operations(operations)
        self.builder.source = step.source
        value = requantize(self.builder, self.carried[result], step.shift, tensor)
        value = self.builder.named(value, tensor.name)
        self.carried[tensor.name] = Carried(tensor.name, tensor.shape, tensor.lower, tensor.upper, value)

    def _operations(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if operation.output not in self.carried:
                self.builder.source = operation.source
                self.carried[operation.output] = self._operation(operation)

    def _operation(self, operation: Operation) -> Carried:
        write = OPERATIONS.get(operation.op)
        if write is None:
            raise UnsupportedError(
                f"target integer: layer {operation.node!r}: one of {', '.join(sorted(OPERATIONS))} is expected. "
                f"Received: {operation.op}"
            )
        what = f"{operation.op} {operation.node!r}"
        operands = [
            shifted(self.builder, self.carried[name], places, what)
            for name, places in zip(operation.inputs, operation.shifts, strict=True)
        ]
        found = write(self.builder, operation, operands)
        if found.value is not None and found.value.dtype == F64:
            self.in_float64.append(operation.node)
        return found
