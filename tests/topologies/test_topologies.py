"""Every topology: its quantizers are those of its golden, whatever nodes are called and branches are ordered; and it is exact.

`golden/*.txt` are written by `TQT_ONNX_REGENERATE=1 python -m pytest tests/topologies` and reviewed by hand: each says why it is
right. How to read them: `support/quantizer_structure.py`.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import topology_chains
import topology_concats
import topology_forks
import topology_sums
from quantizer_structure import Structure, merged_pairs
from topologies import TOPOLOGIES
from whole_road import record, take

from tqt_onnx.passes import BitWidths, annotate, insert_qdq, islands, lower, optimize
from tqt_onnx.verbs.convert import convert

assert all((topology_chains, topology_concats, topology_forks, topology_sums))  # importing them fills the table

GOLDEN = Path(__file__).parent / "golden"
LAYERS = (16, 32)
NAMES = pytest.mark.parametrize("name", TOPOLOGIES)


def file_of(name: str) -> Path:
    return GOLDEN / (re.sub(r"\W+", "_", name) + ".txt")


@functools.cache
def converted(name: str, flipped: bool = False) -> onnx_ir.Model:
    return convert(TOPOLOGIES[name].function(flipped=flipped)).model


def structure(model: onnx_ir.Model, layer: int, *, positive: bool) -> Structure:
    """Its quantizers, whatever their scales: no data is needed. Nothing but a Softmax may stay float."""
    bits = BitWidths(layer=layer, unsigned_input=positive)  # type: ignore[arg-type]
    lowered = model.clone()
    optimize(lowered)
    lower(lowered, bits.contract, unsigned_input=positive)
    assert [island.op_type for island in islands(lowered) if not island.expected] == []
    graph = annotate(lowered, bits)
    quantized = insert_qdq(lowered, graph.decide({group: float(-index) / 4 for index, group in enumerate(graph.groups())}))
    assert merged_pairs(quantized) == []
    return Structure(quantized)


def renamed(model: onnx_ir.Model, seed: int) -> onnx_ir.Model:
    """The same graph with every node and every inner value called at random."""
    result = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))
    graph = result.graph
    kept = {value.name for value in (*graph.inputs, *graph.outputs)}
    every = (*graph.initializers.values(), *(value for node in graph for value in node.outputs))
    values = [value for value in every if value.name not in kept]
    labels = iter(np.random.default_rng(seed).permutation(10 * (len(values) + len(graph))))
    for value in values:
        old, value.name = value.name, f"n{next(labels)}"
        if old in graph.initializers:
            del graph.initializers[old]
            graph.initializers[value.name] = value
    for node in graph:
        node.name = f"n{next(labels)}"
        node.metadata_props.clear()
    return result


@NAMES
def test_quantizers_are_those_of_the_golden(name: str) -> None:
    row = TOPOLOGIES[name]
    parts = [f"layer{layer}\n\n{structure(converted(name), layer, positive=row.positive).text()}" for layer in LAYERS]
    text = "\n\n".join([name, row.why, *parts]) + "\n"
    if os.environ.get("TQT_ONNX_REGENERATE"):
        file_of(name).write_text(text, encoding="utf-8")
    assert text == file_of(name).read_text(encoding="utf-8")


def test_every_golden_has_its_topology() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {file_of(name).name for name in TOPOLOGIES}


@NAMES
def test_structure_decides_not_names(name: str) -> None:
    positive = TOPOLOGIES[name].positive
    for layer in LAYERS:
        expected = structure(converted(name), layer, positive=positive).text()
        assert structure(renamed(converted(name), seed=layer), layer, positive=positive).text() == expected


@pytest.mark.parametrize(
    "name", [name for name, row in TOPOLOGIES.items() if {"add", "add_n", "concat"} & set(row.build.__code__.co_names)]
)
def test_the_order_of_operands_changes_nothing(name: str) -> None:
    positive = TOPOLOGIES[name].positive
    for layer in LAYERS:
        one, other = (structure(converted(name, flipped), layer, positive=positive).fingerprint() for flipped in (False, True))
        assert one == other


@NAMES
def test_every_engine_computes_the_same_integers(name: str) -> None:
    row = TOPOLOGIES[name]
    journey = take(row.function(), row.images(), bits=BitWidths(unsigned_input=row.positive))
    journey.assert_exact()
    for quantization in journey.quantizations.values():
        assert merged_pairs(quantization.model) == []
    record("topologies", name, journey)
