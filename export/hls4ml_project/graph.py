"""An integer network as QONNX in the dialect of hls4ml 1.3 (H3).

Every rounding is one `Quant`, which hls4ml turns into the type of the layer in front of it: `AP_RND_CONV` is Q1, `AP_SAT` is Q2.
Bounds below those of the type (relu6) cannot be written as Clip, which hls4ml does not read; two saturating sums hold them:

    min(q, u) = sat(q + (p - u)) - (p - u)        q of a type that ends at p
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...ir import integer_bounds
from ..integers.network import IntegerNetwork, Operation, Step, Tensor
from ..qonnx_dialect.quant import quant_bits
from .file import GraphFile
from .layout import Held, brought, plain
from .operations import OperationWriter, Types, batch_one, fixed_type
from .steps import COPIES, FENCED, clipped_bounds, split_rectifiers


class NetworkWriter:
    """Writes the steps of a network that `hls4ml_limits` let pass, batch 1.

    Args:
        network: the network.
        outputs: what outputs will be called.

    Attributes:
        file: what is written.
        types: for the script.
        held: tensor of the network -> where it is in the file.
    """

    def __init__(self, network: IntegerNetwork, outputs: Iterable[str]) -> None:
        self.network = network
        self.file = GraphFile(outputs)
        self.types = Types()
        self.operations = OperationWriter(network, self.file, self.types)
        self.held: dict[str, Held] = {}
        for port in network.inputs:
            if port.tensor is not None:
                self._input(port.name, network.tensors[port.tensor])
        for step in network.steps:
            self._step(step)

    def output(self, tensor: str) -> str:
        """A tensor with its elements in the network's order; returns the value's name in the file.

        A Reshape at the end is left out: hls4ml removes it from arrays, and fails where it streams one.
        """
        held = self.held[tensor]
        ordered = brought(self.file, self.network.tensors[tensor].value, held, plain(len(held.shape)))
        return self.file.behind(ordered.name, {"Reshape"})

    def _input(self, name: str, tensor: Tensor) -> None:
        shape = batch_one(tensor.shape)
        given = self.file.input(name, shape)
        self.types.inputs[given] = fixed_type(quant_bits(tensor), tensor.exponent, signed=tensor.signed, rounded=True)
        start = Held(given, shape, plain(len(shape)))
        self.held[tensor.name] = self._rounded(f"{given}_quant", start, tensor)

    def _step(self, step: Step) -> None:
        operations, low, high = split_rectifiers(step)
        values = dict(self.held)
        for operation in operations:
            written = self.operations.write(operation, values)
            inner = operation.op in FENCED and operation is not operations[-1]
            values[operation.output] = self._fenced(operation, written) if inner else written
        tensor = self.network.tensors[step.output]
        last = operations[-1].output if operations else step.operations[0].inputs[0] if step.operations else step.result
        lower, upper = clipped_bounds(tensor, low, high, step.shift)
        held = values[last]
        if all(item.op in COPIES for item in operations) and self._is_typed_alike(step, tensor, lower, upper):
            self.held[tensor.name] = held
            return
        exponent = operations[-1].exponent if operations else self.network.tensors[last].exponent  # a Clip's own grid may be finer
        dropped = tensor.exponent - exponent
        if dropped > self._width(step, operations):
            held = self._typed(f"{tensor.value}_wide", held, bits=dropped + 1, signed=True, exponent=exponent)
        self.held[tensor.name] = self._bounded(tensor, self._rounded(f"{tensor.value}_quant", held, tensor), lower, upper)

    def _width(self, step: Step, operations: tuple[Operation, ...]) -> int:
        """Bits that what is rounded has at least; the types that hls4ml ships cannot drop more than there are."""
        bits = operations[-1].accumulator_bits if operations else None
        return min(quant_bits(self.network.tensors[name]) for name in step.reads) if bits is None else bits

    def _fenced(self, operation: Operation, held: Held) -> Held:
        """What is not rounded, in a type that holds it: hls4ml would join it with what follows, in types that do not."""
        bits = operation.accumulator_bits
        assert bits is not None, operation.node
        return self._typed(f"{operation.node}_sum", held, bits=max(bits, 2), signed=True, exponent=operation.exponent)

    def _is_typed_alike(self, step: Step, tensor: Tensor, lower: int, upper: int) -> bool:
        """Whether what a copy reads has the type that it computes, and its bounds hold already."""
        read = [self.network.tensors[name] for name in step.reads]
        same = all(
            (quant_bits(item), item.signed, item.exponent) == (quant_bits(tensor), tensor.signed, tensor.exponent) for item in read
        )
        return same and all(lower <= item.lower and item.upper <= upper for item in read)

    def _rounded(self, layer: str, held: Held, tensor: Tensor) -> Held:
        return self._typed(layer, held, bits=quant_bits(tensor), signed=tensor.signed, exponent=tensor.exponent)

    def _typed(self, layer: str, held: Held, *, bits: int, signed: bool, exponent: int) -> Held:
        name = self.file.quant(layer, held.name, held.stored, bits=bits, signed=signed, exponent=exponent)
        return held.like(name)

    def _bounded(self, tensor: Tensor, held: Held, lower: int, upper: int) -> Held:
        """Bounds inside those of the type."""
        lowest, highest = integer_bounds(quant_bits(tensor), tensor.signed)
        offset = 0
        if lower == 0 and tensor.signed:
            layer = f"{tensor.value}_relu"
            name = self.file.node("Relu", layer, [held.name], held.stored)
            held = self._rounded(f"{layer}_quant", held.like(name), tensor)
            lowest = 0
        for room, edge in ((highest - upper, "upper"), (lowest - lower, "lower")):
            if room:
                held = self._moved(tensor, held, room - offset, edge)
                offset = room
        return self._moved(tensor, held, -offset, "bounded") if offset else held

    def _moved(self, tensor: Tensor, held: Held, distance: int, word: str) -> Held:
        """The sum with a constant, saturated."""
        layer = f"{tensor.value}_{word}"
        constant = self.operations.constant(layer, np.full(held.stored[1:], distance, np.int64), tensor.exponent)
        name = self.file.node("Add", layer, [held.name, constant], held.stored)
        return self._rounded(f"{layer}_quant", held.like(name), tensor)
