"""The manifest of golden vectors: what each file holds, and what each step computes."""

from __future__ import annotations

from typing import Any, Final

from ..base import Source
from ..integers.description import describe_float_part, describe_port, describe_step, describe_tensors, describe_unrounded
from .files import Recorder

SCHEMA: Final = "tqt_onnx.vectors/1"
"""Name and version of what is written."""


def manifest(source: Source, recorder: Recorder, examples_per_run: int, rounding: str) -> dict[str, Any]:
    """Everything that a test bench needs, as JSON takes it."""
    network = source.network
    tensors = describe_tensors(network, rounding)
    layers = [describe_step(step, network.tensors[step.output]) for step in network.steps]
    return {
        "schema": SCHEMA,
        "model": source.name,
        "contract": network.contract,
        "rounding": rounding,
        "examples": recorder.runs * examples_per_run,
        "examples_per_run": examples_per_run,
        "order": "C: the last axis fastest; runs of the network one behind the other along the first axis",
        "inputs": [{**describe_port(port), "float": recorder.described_floats(port.name)} for port in network.inputs],
        "outputs": [describe_port(port) for port in network.outputs],
        "ends": list(network.ends),
        "given": [tensor.name for tensor in network.tensors.values() if tensor.kind == "from_float"],
        "tensors": [{**tensors[name], **recorder.described(tensor)} for name, tensor in network.tensors.items()],
        "layers": [{**layer, "rounding": tensors[layer["output"]]["rounding"]} for layer in layers],
        "unrounded": [describe_unrounded(part) for part in network.unrounded],
        "float_parts": [describe_float_part(part) for part in network.float_parts],
    }
