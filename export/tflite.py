"""Target `tflite`: TFLite int8, through TF's converter, contract `layer32` (L11, H7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import onnx_ir

from ..ir import UnsupportedError
from .base import Source
from .integers.network import SUMS, IntegerNetwork, Step, Tensor
from .tflite_checks.audit import KERNELS, MOVED, audit, worker
from .tflite_checks.weights import held_weights

_ACCUMULATOR: Final = (1 << 31) - 1
_BITS: Final = 8
_LEAST_EXPONENT: Final = -27
"""255 steps of 2^-28 are less than the 1e-6 to which TF's converter widens a narrower quantizer."""
_BOUNDED: Final = frozenset({"Relu", "Clip", "Identity"})


@dataclass(frozen=True)
class TfliteExporter:
    """One int8 operator of TFLite for each layer, with the model's integers and powers of two.

    Attributes:
        narrow_weights: whether weights of -128 become -127; otherwise they are refused.
    """

    name: ClassVar[str] = "tflite"
    summary: ClassVar[str] = "TFLite int8 for one example at a time, float32 at its ends"
    reader: ClassVar[str] = "TensorFlow Lite"
    rounding: ClassVar[str] = "half_away"
    needs_data: ClassVar[bool] = False

    narrow_weights: bool = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        network = source.network
        if network.contract != "layer32":
            raise UnsupportedError(
                f"target tflite: layer {network.steps[0].name!r}: its sum and its bias are rounded to 16 bits each; integer "
                "kernels add a 32-bit bias to the sum and round once, which is the contract layer32 (L11); "
                f"quantize with --layer-bits 32. Received: {network.contract}"
            )
        network.require_integers(self.name)
        for port in network.inputs:
            if port.shape[0] not in (None, 1):
                raise UnsupportedError(
                    f"target tflite: input {port.name!r} is fixed to several examples; the file takes one at a time, so an open "
                    f"batch or one of 1 is expected. Received: {port.shape[0]}"
                )
        for tensor in network.tensors.values():
            _check_scale(tensor)
        for step in network.steps:
            _check_widths(step, network)
            _check_operations(step)
        held_weights(network, narrow=self.narrow_weights)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        held = held_weights(source.network, narrow=self.narrow_weights)
        weights = {one.tensor.value: (one.integers, one.scale) for one in held.values()}
        operators = source.write_tflite(folder / f"{source.name}.tflite", weights)
        audit(source.network, held, operators)
        return tuple(_notes(source.network, {one.step: one.clipped for one in held.values() if one.clipped}))

    def changed_model(self, source: Source) -> onnx_ir.Model:
        """As `ChangesModel.changed_model`: the model with the weights that are written."""
        if not self.narrow_weights:
            return source.model
        changed = {
            one.tensor.value: one for one in held_weights(source.network, narrow=self.narrow_weights).values() if one.clipped
        }
        if not changed:
            return source.model
        lowered, graph = source.lowered()
        for name, held in changed.items():
            lowered.graph.initializers[name].const_value = onnx_ir.tensor(held.reals, name=name)
        return source.quantized(lowered, graph)


def _check_scale(tensor: Tensor) -> None:
    if tensor.role != "bias" and tensor.exponent < _LEAST_EXPONENT:
        raise UnsupportedError(
            f"target tflite: tensor {tensor.name!r}: TF's converter widens quantizers that span less than 1e-6; a scale of "
            f"2^{_LEAST_EXPONENT} or more is expected. Received: 2^{tensor.exponent}"
        )


def _check_widths(step: Step, network: IntegerNetwork) -> None:
    for name in (*step.reads, step.output):
        tensor = network.tensors[name]
        if tensor.bits > _BITS and tensor.role != "bias":
            what = "the rounded sum of a leaky relu" if tensor.role in {"alpha", "accumulator", "activation"} else "a tensor"
            raise UnsupportedError(
                f"target tflite: layer {step.name!r}: {name!r} is {what} of {tensor.bits} bits; tensors of at most 8 bits are "
                f"expected. Received: {tensor.bits} bits"
            )


def _check_operations(step: Step) -> None:
    working = worker(step)
    names = [operation.op for operation in step.operations]
    for operation in step.operations:
        if operation.op not in KERNELS and operation.op not in MOVED:
            raise UnsupportedError(
                f"target tflite: layer {operation.node!r}: {operation.op} has no int8 form. Received: {operation.op}"
            )
        if operation.op in SUMS and operation.bound is None:
            raise UnsupportedError(
                f"target tflite: layer {operation.node!r}: nothing bounds its sums; constant weights, and one bias for each output "
                f"channel, are expected. Received: {operation.op}"
            )
        if operation.bound is not None and operation.bound > _ACCUMULATOR:
            raise UnsupportedError(
                f"target tflite: layer {operation.node!r}: a partial sum can reach {operation.bound}; accumulators have 32 bits. "
                f"Received: {operation.accumulator_bits} bits"
            )
    if working is None:
        return
    behind = step.operations[step.operations.index(working) + 1 :]
    if any(operation.op not in _BOUNDED for operation in behind) or sum(name in KERNELS for name in names) > 1:
        raise UnsupportedError(
            f"target tflite: layer {step.name!r}: {' -> '.join(names)} with one rounding behind all of them; every operator of "
            "TFLite rounds its own result, so one layer with a rectifier or bounds behind it is expected. "
            f"Received: {len(names)} operators"
        )


def _notes(network: IntegerNetwork, clipped: dict[str, int]) -> Iterator[str]:
    if clipped:
        listed = ", ".join(f"{step} ({count})" for step, count in clipped.items())
        yield f"Weights of -128 were written as -127, which changes the network: {listed}."
    if network.float_parts:
        listed = ", ".join(f"{part.node} ({part.op})" for part in network.float_parts)
        yield f"Behind the last DEQUANTIZE TFLite computes in floating point: {listed}."
    if any(operation.op == "Table" for step in network.steps for operation in step.operations):
        yield "Functions are tables of 256 entries: DEQUANTIZE, MUL, CAST and SUB make the position, GATHER takes the int8 entry."
