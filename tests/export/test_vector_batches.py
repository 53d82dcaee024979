"""Target `vectors`: a batch that is computed at once is written as if its examples had been run one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, given, settings
from quantized_networks import quantized_network
from random_networks import Network, networks
from vector_reader import Array, net, rows

from tqt_onnx.export import Source, VectorsExporter
from tqt_onnx.export.vector_files.batches import rows_are_examples
from tqt_onnx.verbs.export import make_source
from tqt_onnx.verbs.sources import Feeder


def counted(model: onnx_ir.Model, data: Any, size: int | None = None) -> tuple[Source, list[int]]:
    """A source whose examples come in batches of `size`, and how many examples the oracle is given each time."""
    feeder = Feeder(model, data)
    source, given = make_source(model, "m", feeder), []

    def oracle(feeds: Mapping[str, Array]) -> Any:
        given.append(len(next(iter(feeds.values()))))
        return source.oracle(feeds)

    return replace(source, oracle=oracle, examples=source.examples if size is None else lambda: feeder.feeds(size)), given


def files(source: Source, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    VectorsExporter().write(source, folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_its_examples(name: str, layer: int, tmp_path: Path) -> None:
    model, data = quantized(name, layer), examples(19)
    whole, at_once = counted(model, data)
    single, alone = counted(model, data, 1)
    assert files(whole, tmp_path / "batch") == files(single, tmp_path / "single")
    assert (at_once, alone) == ([16, 3], [1] * 19)


G = "g (float[N,4,3] x) => "
SETS = [{"x": rows(16, 4, 3)}, {"x": rows(5, 4, 3)}]
MIXED = {
    "the batch is the second axis": (
        f"{G}(float[4,N,2] y) {{ t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w) }}",
        {"w": (3, 2)},
    ),
    "rows of several examples one behind another": (
        G + "(float[M,5] y) <int64[2] flat = {-1, 12}, int64[2] half = {-1, 24}> "
        "{ a = Reshape(x, flat) b = Concat<axis = 0>(a, a) c = Reshape(b, half) y = MatMul(c, w) }",
        {"w": (24, 5)},
    ),
    "many rows for each example": (
        G + "(float[M,2] y) <int64[2] flat = {-1, 3}> { r = Reshape(x, flat) y = MatMul(r, w) }",
        {"w": (3, 2)},
    ),
    "a float part that is quantized again": (G + "(float[N,4,2] y) { s = Sin(x) t = Mul(s, s) y = MatMul(t, w) }", {"w": (3, 2)}),
}


@pytest.mark.parametrize("case", MIXED)
def test_what_mixes_examples_is_run_one_by_one(case: str, tmp_path: Path) -> None:
    model = net(MIXED[case][0], MIXED[case][1], SETS[0])
    source, given = counted(model, SETS[1])
    assert not rows_are_examples(source.network)
    written = files(source, tmp_path / "v")
    assert given == [1] * 5
    single, _ = counted(model, SETS[1], 1)
    assert written == files(single, tmp_path / "single")


MOVES = {
    "Transpose": ({"perm": [0, 2, 1]}, {"perm": [1, 0, 2]}),
    "Gather": ({"axis": 1}, {"axis": -3}),
    "Slice": ({"axes": [1, 2]}, {"axes": [-3]}),
    "Squeeze": ({"axes": [1]}, {}),
    "Unsqueeze": ({"axes": [1]}, {"axes": [0]}),
    "Concat": ({"axis": -1}, {"axis": 0}),
    "Pad": ({"pads": [0, 1, 1, 0, 0, 0]}, {"pads": [0, 0, 0, 1, 0, 0]}),
    "Tile": ({"repeats": [1, 2, 1]}, {"repeats": [2, 1, 1]}),
    "Resize": ({"scales": [1.0, 2.0, 2.0]}, {"scales": [2.0, 1.0, 1.0]}),
    "Relu": ({}, None),
    "Erf": (None, {}),
}


@pytest.mark.parametrize("op", MOVES)
def test_operations_that_move_examples(op: str) -> None:
    """The same operation along other axes, and along the first one."""
    model = net(G + "(float[N,4,3] y) { y = Relu(x) }", {}, SETS[0])
    network = make_source(model, "m", None).network
    step = next(step for step in network.steps if step.operations)
    for attributes, expected in zip(MOVES[op], (True, False), strict=True):
        if attributes is not None:
            operation = replace(step.operations[-1], op=op, attributes=attributes)
            moved = replace(network, steps=(replace(step, operations=(operation,)),))
            assert rows_are_examples(moved) is expected


@pytest.mark.parametrize(
    ("op", "right", "result", "expected"),
    [
        ("Add", (None, 4, 3), (None, 4, 3), True),
        ("Add", (None, 3), (None, 4, 3), False),  # one axis of examples along another
        ("Add", (None, None, 3), (None, 4, 3), False),
        ("MatMul", (None, 3, 2), (None, 4, 2), True),
        ("MatMul", (3, None), (None, 4, None), False),
        ("MatMul", (None, 3), (None, 4, 3), False),  # sums over examples
        ("Conv", (None, 4, 3), (None, 4, 3), False),  # weights that are computed
    ],
)
def test_operations_of_two_computed_tensors(op: str, right: Any, result: Any, expected: bool) -> None:
    model = net(G + "(float[N,4,3] y) { y = Relu(x) }", {}, SETS[0])
    network = make_source(model, "m", None).network
    step = next(step for step in network.steps if step.operations)
    other = replace(next(iter(network.tensors.values())), name="other", shape=right)
    operation = replace(step.operations[-1], op=op, inputs=(*step.operations[-1].inputs, "other"), shape=result, attributes={})
    found = replace(network, steps=(replace(step, operations=(operation,)),), tensors={**network.tensors, "other": other})
    assert rows_are_examples(found) is expected


def test_random_networks_in_batches(tmp_path: Path) -> None:
    """Whatever is computed at once is what its examples are alone."""
    seen = []

    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(network=networks())
    def every(network: Network) -> None:
        model = quantized_network(network)
        if model is None:
            return
        source = make_source(model, "m", None)
        if rows_are_examples(source.network):
            whole = source.oracle(network.inputs)
            count = len(next(iter(network.inputs.values())))
            single = [source.oracle({name: x[i : i + 1] for name, x in network.inputs.items()}) for i in range(count)]
            for name, integers in whole.items():
                np.testing.assert_array_equal(integers, np.concatenate([each[name] for each in single]), err_msg=name)
        seen.append(rows_are_examples(source.network))

    every()
    assert sum(seen) > 15, seen
