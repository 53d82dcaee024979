"""`parameters.json` and `weights/*.npy`: everything that a network in integers consists of (H6), for any reader."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from .network import IntegerNetwork, Operation, Port, Step, Tensor

SCHEMA: Final = "tqt_onnx.parameters/1"
"""Name and version of what is written."""

FILE: Final = "parameters.json"
WEIGHTS: Final = "weights"

_WIDTHS: Final = (8, 16, 32, 64)
_LONGEST: Final = 80
"""Characters of a tensor's name in its file's name."""


def write_parameters(network: IntegerNetwork, folder: Path, rounding: str) -> None:
    """Writes `parameters.json`, and one `.npy` file for each constant, in the smallest NumPy type of its bits.

    Args:
        network: what is described.
        folder: exists.
        rounding: how results are rounded: by the name of `check --rounding`.
    """
    (folder / WEIGHTS).mkdir(exist_ok=True)
    files = {tensor.name: f"{WEIGHTS}/{_file_name(place, tensor.name)}" for place, tensor in enumerate(network.constants)}
    for tensor in network.constants:
        assert tensor.integers is not None
        np.save(folder / files[tensor.name], tensor.integers.astype(storage(tensor)), allow_pickle=False)
    described = _network(network, files, rounding)
    (folder / FILE).write_text(json.dumps(described, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def storage(tensor: Tensor) -> np.dtype[Any]:
    """The smallest NumPy integer type of a tensor's bits and sign."""
    bits = next(width for width in _WIDTHS if width >= tensor.bits)
    return np.dtype(f"{'int' if tensor.signed else 'uint'}{bits}")


def _file_name(place: int, name: str) -> str:
    """Numbered, so that no two are equal, not even where case does not count; of characters that every file system takes."""
    return f"{place:04d}_{re.sub('[^A-Za-z0-9_-]+', '_', name)[:_LONGEST]}.npy"


def _network(network: IntegerNetwork, files: Mapping[str, str], rounding: str) -> dict[str, Any]:
    copies = {step.output for step in network.steps if step.is_copy}
    return {
        "schema": SCHEMA,
        "contract": network.contract,
        "rounding": rounding,
        "inputs": [_port(port) for port in network.inputs],
        "outputs": [_port(port) for port in network.outputs],
        "ends": list(network.ends),
        "tensors": [
            _tensor(tensor, files.get(tensor.name), None if tensor.kind == "constant" or tensor.name in copies else rounding)
            for tensor in network.tensors.values()
        ],
        "layers": [_step(step, network.tensors[step.output]) for step in network.steps],
        "float_parts": [
            {"node": part.node, "op": part.op, "reason": part.reason, "is_tail": part.is_tail} for part in network.float_parts
        ],
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "tensor": port.tensor, "shape": list(port.shape)}


def _tensor(tensor: Tensor, file: str | None, rounding: str | None) -> dict[str, Any]:
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
        "file": file,
    }


def _step(step: Step, output: Tensor) -> dict[str, Any]:
    widths = [operation.accumulator_bits for operation in step.operations]
    return {
        "name": step.name,
        "source": step.source,
        "reads": list(step.reads),
        "operations": [_operation(operation) for operation in step.operations],
        "result": step.result,
        "shift": step.shift,
        "lower": output.lower,
        "upper": output.upper,
        "output": step.output,
        "accumulator_bits": max((width for width in widths if width is not None), default=None),
    }


def _operation(operation: Operation) -> dict[str, Any]:
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
