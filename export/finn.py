"""Target `finn`: QONNX for FINN, and the thresholds that keep ties to even (H4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import onnx
import onnx_ir

from .base import Source
from .finn_model.dialect import to_finn
from .finn_model.graph import kind_of, threshold_model
from .finn_model.limits import check_network
from .finn_model.thresholds import ThresholdTable, described, threshold_tables
from .integers.network import IntegerNetwork
from .qonnx_dialect.file import check_size, with_batch_one, write_file
from .qonnx_dialect.quant import QuantForm, check_constants, is_bounded, write_quants

SCHEMA: Final = "tqt_onnx.finn_thresholds/1"
"""Name and version of `thresholds.json`."""


@dataclass(frozen=True)
class FinnExporter:
    """The network as FINN's conversion reads it, as its streamlining leaves it, and the thresholds of both."""

    name: ClassVar[str] = "finn"
    summary: ClassVar[str] = "QONNX for FINN, and the same with tie-corrected thresholds"
    reader: ClassVar[str] = "FINN"
    rounding: ClassVar[str] = "half_up"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        """As `Exporter.check`."""
        check_network(source.network)
        check_constants(source.network, self.name)
        edges = sum(table.even.size for table in threshold_tables(source.network).values())
        check_size(self._model(source), self.name, more=np.dtype(np.float32).itemsize * edges)

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        """As `Exporter.write`."""
        network = source.network
        write_file(self._model(source), folder / f"{source.name}.onnx")
        tables = threshold_tables(network)
        onnx.save(threshold_model(network, tables, source.name), folder / f"{source.name}.multithreshold.onnx")
        (folder / "thresholds").mkdir()
        entries = []
        for index, (tensor, table) in enumerate(tables.items()):
            file = f"thresholds/{index:03d}.npy"
            np.save(folder / file, table.even)
            entries.append(described(tensor, table, network, file))
        text = {
            "schema": SCHEMA,
            "inputs": _ends(network, inputs=True),
            "outputs": _ends(network, inputs=False),
            "tensors": entries,
        }
        (folder / "thresholds.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
        return _notes(source, tables)

    def _model(self, source: Source) -> onnx_ir.Model:
        """What FINN's conversion is given, but for its opset."""
        model = with_batch_one(source.model, self.name)
        write_quants(model, source.network, QuantForm(biases="plain"))
        to_finn(model)
        return model


def _ends(network: IntegerNetwork, *, inputs: bool) -> list[dict[str, object]]:
    """What the host rounds to integers, and what it gets: names in the threshold model, widths and scales."""
    if inputs:
        named = [(port.name, network.tensors[port.tensor]) for port in network.inputs if port.tensor is not None]
    else:
        named = [(end, network.tensors[end]) for end in network.ends]
    return [
        {"name": name, "value": tensor.value, "type": kind_of(tensor), "exponent": tensor.exponent, "shape": list(tensor.shape)}
        for name, tensor in named
    ]


def _notes(source: Source, tables: Mapping[str, ThresholdTable]) -> tuple[str, ...]:
    name = source.name
    moved = sum(table.moved for table in tables.values())
    count = sum(table.even.size for table in tables.values())
    notes = [
        f"FINN's own conversion of {name}.onnx rounds ties up; {moved} of {count} thresholds differ in {name}.multithreshold.onnx, "
        "which rounds as the model does",
    ]
    tensors = [source.network.tensors[name] for name in tables]
    bounded = [tensor.value for tensor in tensors if is_bounded(tensor)]
    if bounded:
        notes.append(
            f"{name}.onnx bounds {len(bounded)} tensors by a Clip ({bounded[0]}, ...), for which FINN has no layer; "
            f"{name}.multithreshold.onnx bounds them by their thresholds"
        )
    tails = [part.node for part in source.network.float_parts]
    if tails:
        notes.append(f"left to the host, in floating point: {', '.join(tails)}")
    return tuple(notes)
