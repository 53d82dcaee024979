"""`parameters.json` and `weights/*.npy`: everything that a network in integers consists of (H6), for any reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..integers.description import describe_float_part, describe_port, describe_step, describe_tensors, describe_unrounded
from ..integers.network import IntegerNetwork
from ..vector_files.memory_files import safe_stem, storage

SCHEMA: Final = "tqt_onnx.parameters/1"
"""Name and version of what is written."""

FILE: Final = "parameters.json"
WEIGHTS: Final = "weights"


def write_parameters(network: IntegerNetwork, folder: Path, rounding: str) -> None:
    """Writes `parameters.json`, and one `.npy` file for each constant, in the smallest NumPy type of its bits.

    Args:
        network: what is described.
        folder: exists.
        rounding: how results are rounded: by the name of `check --rounding`.
    """
    (folder / WEIGHTS).mkdir(exist_ok=True)
    constants = network.constants
    files = {
        tensor.name: f"{WEIGHTS}/{safe_stem(place, len(constants), tensor.name)}.npy" for place, tensor in enumerate(constants)
    }
    for tensor in network.constants:
        assert tensor.integers is not None
        np.save(folder / files[tensor.name], tensor.integers.astype(storage(tensor.bits, tensor.signed)), allow_pickle=False)
    described = _described(network, files, rounding)
    (folder / FILE).write_text(json.dumps(described, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _described(network: IntegerNetwork, files: Mapping[str, str], rounding: str) -> dict[str, Any]:
    tensors = describe_tensors(network, rounding)
    return {
        "schema": SCHEMA,
        "contract": network.contract,
        "rounding": rounding,
        "inputs": [describe_port(port) for port in network.inputs],
        "outputs": [describe_port(port) for port in network.outputs],
        "ends": list(network.ends),
        "tensors": [{**described, "file": files.get(name)} for name, described in tensors.items()],
        "layers": [describe_step(step, network.tensors[step.output]) for step in network.steps],
        "unrounded": [describe_unrounded(part) for part in network.unrounded],
        "float_parts": [describe_float_part(part) for part in network.float_parts],
    }
