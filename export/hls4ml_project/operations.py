"""Operations of a step as nodes of hls4ml's dialect, and constants with the `Quant` that says their type (H3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ...kernels import fixed_point
from ..integers.network import IntegerNetwork, Operation
from ..qonnx_dialect.quant import quant_bits
from .file import CHANNELS_LAST, GraphFile, Shape
from .layout import Held, brought, channels_last, permuted, plain, reshaped
from .steps import constant_bits, dense_kernel, spatial_pads

Integers = npt.NDArray[np.int64]
Values = Mapping[str, Held]
"""Tensor, or output of an operation in front -> where it is in the file."""


@dataclass(frozen=True, slots=True)
class Types:
    """What the script sets in hls4ml beside what the file says.

    Attributes:
        inputs: input of the file -> its type: that of the `Quant` behind it.
        layers: layer -> `accum`, the narrowest type that holds every partial sum, and `bias`, where there is none: zeros of that
            type, since conversions of hls4ml's default type fail far from 1.
        latency_only: layers that hls4ml cannot share multipliers in (`Resource`): depthwise ones.
        parallel_only: layer -> why hls4ml cannot stream it (`io_stream`).
    """

    inputs: dict[str, str] = field(default_factory=dict)
    layers: dict[str, dict[str, str]] = field(default_factory=dict)
    latency_only: list[str] = field(default_factory=list)
    parallel_only: dict[str, str] = field(default_factory=dict)


def fixed_type(bits: int, exponent: int, *, signed: bool, rounded: bool = False) -> str:
    """A type of hls4ml: width, and bits in front of the binary point."""
    mode = ",RND_CONV,SAT" if rounded else ""
    return f"{'' if signed else 'u'}fixed<{bits},{bits + exponent}{mode}>"


@dataclass(frozen=True, slots=True)
class OperationWriter:
    """Writes operations that `hls4ml_limits` let pass.

    Attributes:
        network: that they belong to.
        file: what is written.
        types: for the script.
    """

    network: IntegerNetwork
    file: GraphFile
    types: Types

    def write(self, operation: Operation, values: Values) -> Held:
        """What an operation computes, not rounded."""
        return _WRITERS[operation.op](self, operation, values)

    def constant(self, layer: str, integers: Integers, exponent: int, bits: int = 0, signed: bool = True) -> str:
        """Integers on a grid, and the `Quant` that says so."""
        numbers = self.file.constant(f"{layer}_constant", fixed_point.dequantize(integers, exponent))
        width = bits or constant_bits(integers)
        return self.file.quant(f"{layer}_constant_quant", numbers, integers.shape, bits=width, signed=signed, exponent=exponent)

    def _parameter(self, name: str, integers: Integers) -> str:
        """A constant of the network, its elements rearranged; biases and slopes as wide as their numbers."""
        tensor = self.network.tensors[name]
        narrowed = tensor.role in {"bias", "alpha"}
        bits, signed = (constant_bits(integers), True) if narrowed else (quant_bits(tensor), tensor.signed)
        return self.constant(tensor.value, integers, tensor.exponent, bits, signed)

    def _integers(self, name: str) -> Integers | None:
        tensor = self.network.tensors.get(name)
        return None if tensor is None else tensor.integers

    def _accumulate(self, operation: Operation, layer: str) -> None:
        """Types inside a layer, where a bound of its sums is known."""
        if operation.accumulator_bits is not None:
            accumulator = fixed_type(max(operation.accumulator_bits, 2), operation.exponent, signed=True)
            bias = {} if len(operation.inputs) > 2 else {"bias": accumulator}
            self.types.layers[layer] = {"accum": accumulator, **bias}

    def _conv(self, operation: Operation, values: Values) -> Held:
        shape, inputs = batch_one(operation.shape), operation.inputs
        held = brought(self.file, operation.node, values[inputs[0]], channels_last(len(shape)))
        weights = self._integers(inputs[1])
        assert weights is not None, operation.node
        kernel, group = dense_kernel(weights, operation.attributes)
        arguments = [held.name, self._parameter(inputs[1], np.moveaxis(kernel, 1, -1))]
        if len(inputs) > 2:
            bias = self._integers(inputs[2])
            assert bias is not None, operation.node
            arguments.append(self._parameter(inputs[2], bias.reshape(-1)))
        result = Held("", shape, channels_last(len(shape)))
        settings = {
            "kernel_shape": list(kernel.shape[2:]),
            "strides": list(operation.attributes["strides"]),
            "pads": list(operation.attributes["pads"]),
            "dilations": [1] * (len(shape) - 2),
            "group": group,
        }
        name = self.file.node("Conv", operation.node, arguments, result.stored, domain=CHANNELS_LAST, **settings)
        self._accumulate(operation, name)
        if group > 1:
            self.types.latency_only.append(name)
        return Held(name, result.shape, result.order)

    def _matmul(self, operation: Operation, values: Values) -> Held:
        """MatMul, and Add where there is a bias: hls4ml reads no Gemm."""
        shape, inputs = batch_one(operation.shape), operation.inputs
        held, weights = values[inputs[0]], self._integers(inputs[1])
        assert weights is not None, operation.node
        weights = weights.T if operation.attributes.get("transB") else weights
        weights = weights if held.rows is None else weights[held.rows]
        name = self.file.node("MatMul", operation.node, [held.name, self._parameter(inputs[1], weights)], shape)
        self._accumulate(operation, name)
        bias = self._integers(inputs[2]) if len(inputs) > 2 else None
        if bias is not None and bias.any():
            full = np.broadcast_to(bias, shape)[0]
            name = self.file.node("Add", f"{operation.node}_bias", [name, self._parameter(inputs[2], full)], shape)
        return Held(name, shape, plain(len(shape)))

    def _binary(self, operation: Operation, values: Values) -> Held:
        """Two tensors of one shape, or one and a constant, which is written out to the full shape: C++ does not broadcast.

        The sum with zero and the product with one are left out: hls4ml removes them together with the rounding behind them.
        """
        sides = [values.get(name) for name in operation.inputs]
        place = next(held for held in sides if held is not None)
        if self._is_neutral(operation):
            return place
        order = channels_last(len(place.shape)) if place.origin is None and len(place.shape) > 2 else place.order
        lead = place if place.origin is not None and None in sides else brought(self.file, operation.node, place, order)
        names = []
        for name, side in zip(operation.inputs, sides, strict=True):
            if side is place:
                names.append(lead.name)
            elif side is not None:
                names.append(brought(self.file, f"{name}_to_{operation.node}", side, lead.order).name)
            else:
                names.append(self._spread(name, lead))
        written = self.file.node(operation.op, operation.node, names, lead.stored)
        return Held(written, lead.shape, lead.order, lead.origin)

    def _is_neutral(self, operation: Operation) -> bool:
        """Whether a constant second operand, or one of two that may be exchanged, changes nothing."""
        unit = {"Add": 0, "Sub": 0, "Mul": 1}.get(operation.op)
        names = operation.inputs[1:] if operation.op == "Sub" else operation.inputs
        constants = [self.network.tensors[name] for name in names if self._integers(name) is not None]
        numbers = [fixed_point.dequantize(item.integers, item.exponent) for item in constants if item.integers is not None]
        return unit is not None and any(bool((array == unit).all()) for array in numbers)

    def _spread(self, name: str, held: Held) -> str:
        integers = self._integers(name)
        assert integers is not None, name
        full = np.broadcast_to(integers, held.shape).transpose(held.order)[0]
        return self._parameter(name, full if held.rows is None else full[held.rows])

    def _max_pool(self, operation: Operation, values: Values) -> Held:
        """Where nothing is negative, padding is zeros in front: hls4ml pads unsigned data with half of the largest number."""
        shape, attributes = batch_one(operation.shape), operation.attributes
        held = brought(self.file, operation.node, values[operation.inputs[0]], channels_last(len(shape)))
        pads = list(attributes["pads"])
        source = self.network.tensors.get(operation.inputs[0])
        if any(pads) and source is not None and source.lower >= 0:
            held, pads = self._padded(f"{operation.node}_pad", held, pads), [0] * len(pads)
        result = Held("", shape, channels_last(len(shape)))
        settings = {name: list(attributes[name]) for name in ("kernel_shape", "strides", "dilations")}
        name = self.file.node("MaxPool", operation.node, [held.name], result.stored, domain=CHANNELS_LAST, pads=pads, **settings)
        if settings["kernel_shape"] != settings["strides"] or any(pads):
            self.types.parallel_only[name] = "windows of a max pool that overlap, leave gaps or are padded"
        return Held(name, result.shape, result.order)

    def _padded(self, layer: str, held: Held, pads: list[int]) -> Held:
        """Zeros around the spatial axes of a tensor that is held channels last."""
        spatial = len(pads) // 2
        sizes = [size + pads[axis] + pads[axis + spatial] for axis, size in enumerate(held.shape[2:])]
        result = Held("", (*held.shape[:2], *sizes), held.order)
        width = self.file.constant(f"{layer}_width", np.array([0, *pads[:spatial], 0, 0, *pads[spatial:], 0], np.int64))
        name = self.file.node("Pad", layer, [held.name, width], result.stored, mode="constant")
        return Held(name, result.shape, result.order)

    def _pad(self, operation: Operation, values: Values) -> Held:
        rank = len(operation.shape)
        held = brought(self.file, operation.node, values[operation.inputs[0]], channels_last(rank))
        pads = spatial_pads(operation, rank)
        assert pads is not None, operation.node
        return self._padded(operation.node, held, pads)

    def _concat(self, operation: Operation, values: Values) -> Held:
        """Two at a time: hls4ml joins no more."""
        rank = len(operation.shape)
        order = channels_last(rank) if rank > 2 else plain(rank)
        axis = operation.attributes["axis"] % rank
        parts = [brought(self.file, f"{name}_to_{operation.node}", values[name], order) for name in operation.inputs]
        joined = parts[0]
        for count, part in enumerate(parts[1:]):
            shape = tuple(size + part.shape[axis] * (place == axis) for place, size in enumerate(joined.shape))
            result = Held("", shape, order)
            layer = operation.node if count == len(parts) - 2 else f"{operation.node}_part"
            name = self.file.node("Concat", layer, [joined.name, part.name], result.stored, axis=order.index(axis))
            joined = Held(name, shape, order)
        return joined

    def _reshape(self, operation: Operation, values: Values) -> Held:
        return reshaped(self.file, operation.node, values[operation.inputs[0]], batch_one(operation.shape))

    def _transpose(self, operation: Operation, values: Values) -> Held:
        held = values[operation.inputs[0]]
        held = held if held.origin is None else brought(self.file, operation.node, held, held.order)
        return permuted(held, operation.attributes["perm"])

    def _identity(self, operation: Operation, values: Values) -> Held:
        return values[operation.inputs[0]]


_WRITERS: Final[dict[str, Callable[[OperationWriter, Operation, Values], Held]]] = {
    "Add": OperationWriter._binary,
    "Concat": OperationWriter._concat,
    "Conv": OperationWriter._conv,
    "Flatten": OperationWriter._reshape,
    "Gemm": OperationWriter._matmul,
    "Identity": OperationWriter._identity,
    "MatMul": OperationWriter._matmul,
    "Max": OperationWriter._binary,
    "MaxPool": OperationWriter._max_pool,
    "Min": OperationWriter._binary,
    "Mul": OperationWriter._binary,
    "Pad": OperationWriter._pad,
    "Reshape": OperationWriter._reshape,
    "Squeeze": OperationWriter._reshape,
    "Sub": OperationWriter._binary,
    "Transpose": OperationWriter._transpose,
    "Unsqueeze": OperationWriter._reshape,
}
"""Operator -> what writes it; `hls4ml_limits` refuses the others."""


def batch_one(shape: tuple[int | None, ...]) -> Shape:
    """The shape of one example with the batch in front."""
    return (1, *(0 if size is None else size for size in shape[1:]))
