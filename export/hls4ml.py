"""Target `hls4ml`: QONNX in the dialect of hls4ml 1.3, its settings, and a script that builds the project (H3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from ..ir import UnsupportedError
from ..kernels import fixed_point
from .base import Source
from .hls4ml_project.graph import NetworkWriter
from .hls4ml_project.limits import check_network
from .integers.network import IntegerNetwork

SCRIPT: Final = "build.py"
CONFIG: Final = "config.json"
GOLDEN: Final = "golden.npz"

SCHEMA: Final = "tqt_onnx.hls4ml/1"
"""Name and version of what `config.json` holds."""


@dataclass(frozen=True)
class Hls4mlExporter:
    """The network for hls4ml, up to the last layer that computes in integers."""

    name: ClassVar[str] = "hls4ml"
    summary: ClassVar[str] = "QONNX in hls4ml's dialect, channels last, with settings and a build script"
    reader: ClassVar[str] = "hls4ml 1.3, for Vitis HLS and Vivado HLS"
    rounding: ClassVar[str] = "half_even"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        check_network(source.network)
        _written(source.network)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        network, ends = source.network, outputs_of(source.network)
        writer, values = _written(network)
        model = writer.file.model(list(zip(values, ends.values(), strict=True)))
        (folder / f"{source.name}.onnx").write_bytes(model.SerializeToString())
        inputs = dict(zip(writer.types.inputs, (port.name for port in network.inputs), strict=True))
        settings: dict[str, Any] = {
            "schema": SCHEMA,
            "model": f"{source.name}.onnx",
            "contract": network.contract,
            "inputs": [{"layer": layer, "name": name, "type": writer.types.inputs[layer]} for layer, name in inputs.items()],
            "outputs": [
                {"name": name, "exponent": network.tensors[tensor].exponent, "shape": list(network.tensors[tensor].shape[1:])}
                for tensor, name in ends.items()
            ],
            "precisions": writer.types.layers,
            "latency_only": writer.types.latency_only,
            "parallel_only": writer.types.parallel_only,
        }
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        script = (Path(__file__).parent / "hls4ml_project" / "build.py").read_text(encoding="utf-8")
        (folder / SCRIPT).write_text(script, encoding="utf-8")
        notes = [f"python {SCRIPT} in this folder builds the project"]
        if source.examples is not None:
            np.savez(folder / GOLDEN, allow_pickle=False, **golden(source, ends))
            notes.append(f"{SCRIPT} compares its outputs with {GOLDEN}")
        tail = [part.node for part in network.float_parts]
        if tail:
            notes.append(f"cut off, for the host to compute: {', '.join(tail)}; outputs are {', '.join(ends.values())}")
        return tuple(notes)


def outputs_of(network: IntegerNetwork) -> dict[str, str]:
    """Integer tensor -> name of the output of the file: the network's own, or where a float tail was cut off, the tensor's."""
    named = {port.tensor: port.name for port in network.outputs if port.tensor is not None}
    return {tensor: named.get(tensor, network.tensors[tensor].value) for tensor in network.ends}


def _written(network: IntegerNetwork) -> tuple[NetworkWriter, list[str]]:
    """The network in a file, and the values that are its outputs.

    Raises:
        UnsupportedError: two outputs, or an input and an output, are the same numbers; hls4ml would give both one name.
    """
    ends = outputs_of(network)
    writer = NetworkWriter(network, ends.values())
    values = [writer.output(tensor) for tensor in ends]
    inputs = {writer.held[port.tensor].name: port.name for port in network.inputs if port.tensor is not None}
    for name, value in zip(ends.values(), values, strict=True):
        source = writer.file.behind(value, {"Reshape", "Transpose"})
        if source in inputs:
            raise UnsupportedError(
                f"target hls4ml: output {name!r}: must be computed by a layer. Received: input {inputs[source]!r}"
            )
    twice = [(port.name, port.tensor) for port in network.outputs if port.tensor is not None]
    seen: dict[str, str] = {}
    for name, what in [*twice, *zip(ends.values(), values, strict=True)]:
        if seen.setdefault(what, name) != name:
            raise UnsupportedError(
                f"target hls4ml: output {name!r}: must be numbers of its own. Received: those of {seen[what]!r}, perhaps reshaped"
            )
    return writer, values


def golden(source: Source, ends: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Inputs and outputs of the user's examples as real numbers, batch first: `input:NAME`, `output:NAME`."""
    assert source.examples is not None
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for feeds in source.examples():
        found = source.oracle(feeds)
        for name, array in feeds.items():
            parts.setdefault(f"input:{name}", []).append(np.asarray(array, np.float32))
        for tensor, name in ends.items():
            exponent = source.network.tensors[tensor].exponent
            parts.setdefault(f"output:{name}", []).append(fixed_point.dequantize(found[tensor], exponent))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
