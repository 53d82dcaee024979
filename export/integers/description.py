"""Tensors and steps of a network in integers as JSON takes them: the fields of `network`, under their names (H6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .network import FloatPart, IntegerNetwork, Operation, Port, Step, Tensor, Unrounded


def describe_tensors(network: IntegerNetwork, rounding: str) -> dict[str, dict[str, Any]]:
    """All that is known of each tensor but its integers.

    Args:
        network: whose tensors.
        rounding: of its steps; a tensor that is constant, or only copied from others, has none.
    """
    copies = {step.output for step in network.steps if step.is_copy}
    return {
        tensor.name: _tensor(tensor, None if tensor.kind == "constant" or tensor.name in copies else rounding)
        for tensor in network.tensors.values()
    }


def _tensor(tensor: Tensor, rounding: str | None) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "value": tensor.value,
        "source": tensor.source,
        "kind": tensor.kind,
        "role": tensor.role,
        "bits": tensor.bits,
        "signed": tensor.signed,
        "exponent": tensor.exponent,
        "lower": tensor.lower,
        "upper": tensor.upper,
        "shape": list(tensor.shape),
        "rounding": rounding,
    }


def describe_step(step: Step, output: Tensor) -> dict[str, Any]:
    """A step, the saturation of the tensor that it writes, and the widest accumulator it needs."""
    return {
        "name": step.name,
        "source": step.source,
        "reads": list(step.reads),
        "operations": [describe_operation(operation) for operation in step.operations],
        "result": step.result,
        "shift": step.shift,
        "lower": output.lower,
        "upper": output.upper,
        "output": step.output,
        "accumulator_bits": _widest(step.operations),
    }


def describe_unrounded(part: Unrounded) -> dict[str, Any]:
    """A step that ends at its result: real numbers are `result * 2^exponent`."""
    return {
        "name": part.last.node,
        "source": part.last.source,
        "reads": list(part.reads),
        "operations": [describe_operation(operation) for operation in part.operations],
        "result": part.last.output,
        "exponent": part.last.exponent,
        "accumulator_bits": _widest(part.operations),
    }


def _widest(operations: Sequence[Operation]) -> int | None:
    """The widest accumulator."""
    widths = [operation.accumulator_bits for operation in operations]
    return max((width for width in widths if width is not None), default=None)


def describe_operation(operation: Operation) -> dict[str, Any]:
    """One operator on integers."""
    return {
        "op": operation.op,
        "node": operation.node,
        "source": operation.source,
        "inputs": list(operation.inputs),
        "shifts": list(operation.shifts),
        "output": operation.output,
        "exponent": operation.exponent,
        "shape": list(operation.shape),
        "attributes": dict(operation.attributes),
        "bound": operation.bound,
        "accumulator_bits": operation.accumulator_bits,
    }


def describe_port(port: Port) -> dict[str, Any]:
    """An input or output of the network."""
    return {"name": port.name, "tensor": port.tensor, "shape": list(port.shape)}


def describe_float_part(part: FloatPart) -> dict[str, Any]:
    """What is computed in floating point, and why."""
    return {"node": part.node, "op": part.op, "reason": part.reason, "is_tail": part.is_tail}
