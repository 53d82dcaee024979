"""Names, literals, loops over positions and the plan of memory: the parts of target `c` that need no compiler."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handoff_networks import NETWORKS, quantized
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.export.c import CExporter
from tqt_onnx.export.c_code import body
from tqt_onnx.export.c_code.kernels import Program, make_program
from tqt_onnx.export.c_code.loops import Nest, affine, by_axis, joined, strided
from tqt_onnx.export.c_code.memory import Memory, plan_memory
from tqt_onnx.export.c_code.names import Names, comment, identifier
from tqt_onnx.export.c_code.text import array
from tqt_onnx.export.c_code.types import Range, computed, literal, stored
from tqt_onnx.export.c_code.values import read_values
from tqt_onnx.ir import UnsupportedError
from tqt_onnx.verbs.export import make_source


@given(st.text())
def test_identifiers_are_identifiers(name: str) -> None:
    made = Names().make(name, "q")
    assert made.isascii() and made.isidentifier()
    assert "__" not in made and not made.startswith("_") and len(made) <= 63


@given(st.text(alphabet=st.sampled_from("*/\\?\n\r\0 \"'ab\u2028é")))
def test_comments_stay_comments(text: str) -> None:
    assert not set(comment(text)) & set("*\\?\n\r\0")
    assert comment(text).isascii() and comment(text).isprintable()


def test_names_are_given_once_even_in_capitals() -> None:
    names = Names()
    made = [names.make(name, "q") for name in ("a/b", "a_b", "A b", "a/b", "a_b_2", "int", "")]
    assert made == ["a_b_q", "a_b_2_q", "A_b_3_q", "a_b_4_q", "a_b_2_2_q", "int_q", "v_q"]
    assert identifier("8bit") == "v_8bit"
    assert identifier("x" * 99) == "x" * 48


def test_literals_and_types() -> None:
    assert literal(-(2**31)) == "(-2147483647 - 1)"
    assert literal(-(2**63), "int64_t") == "(-INT64_C(9223372036854775807) - 1)"
    assert [stored(Range(*ends)) for ends in ((-128, 127), (0, 255), (-1, 128), (0, 65535), (0, 2**32 - 1), (-1, 2**31))] == [
        "int8_t", "uint8_t", "int16_t", "uint16_t", "uint32_t", "int64_t",
    ]  # fmt: skip
    assert [computed(Range(-n, n), "x") for n in (2**31 - 1, 2**31)] == ["int32_t", "int64_t"]
    assert computed(Range(-(2**62), 2**62), "x") == "int64_t"
    for bits, ends in ((64, (-(2**62) - 1, 0)), (64, (0, 2**62 + 1)), (65, (-(2**63), 2**63))):
        with pytest.raises(
            UnsupportedError, match=rf"target c: layer 'x': .* needs {bits} bits; .* up to 2\^62 .* Received: up to"
        ):
            computed(Range(*ends), "layer 'x'")


@pytest.mark.parametrize(
    ("ctype", "low", "high", "count"),
    [
        ("int8_t", -8, 7, 1),
        ("int8_t", -128, 127, 400_001),
        ("uint8_t", 0, 255, 33),
        ("int16_t", 9, 9, 50),
        ("int32_t", -(2**31), 2**31 - 1, 20_000),
        ("uint32_t", 0, 2**32 - 1, 300),
        ("int64_t", -(2**63), 2**63 - 1, 300),
    ],
)
def test_arrays_are_written_in_parts(ctype: str, low: int, high: int, count: int) -> None:
    """Every number once, in order, as many on a line as there is room for, each as wide as the widest."""
    integers = np.random.default_rng(count).integers(low, high, count, endpoint=True)
    integers[:1], integers[-1:] = low, high
    parts = list(array("a_q", ctype, integers))
    assert max(map(len, parts)) < 1 << 20
    first, *lines, last = "".join(parts).splitlines()
    assert (first, last) == (f"static const {ctype} a_q[{count}] = {{", "};")
    numbers = [literal(int(number), ctype) for number in integers]
    width = max(map(len, numbers))
    room = max(1, 116 // (width + 2))
    rows = [numbers[start : start + room] for start in range(0, count, room)]
    assert lines == ["    " + ", ".join(number.rjust(width) for number in row) + "," for row in rows]


def test_constants_are_no_text_before_they_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = make_source(quantized("swish"), "net", None)
    monkeypatch.setattr(body, "array", None)
    CExporter().check(source)
    with pytest.raises(TypeError):
        CExporter().write(source, tmp_path)


def visited(nest: Nest) -> np.ndarray[Any, Any]:
    """Positions of every sequence, turn by turn."""
    rows = []
    for turns in itertools.product(*(range(axis.size) for axis in nest.axes)):
        row = list(nest.offsets)
        for turn, axis in zip(turns, nest.axes, strict=True):
            for place, stride in enumerate(axis.strides):
                row[place] += stride * turn if isinstance(stride, int) else stride[turn]
        rows.append(row)
    return np.array(rows).T


MOVES = {
    "transpose": np.arange(60).reshape(3, 4, 5).transpose(2, 0, 1),
    "slice": np.arange(60).reshape(3, 4, 5)[:, ::2, 3:0:-1],
    "repeat": np.arange(12).reshape(3, 4).repeat(2, 0).repeat(3, 1),
    "tile": np.tile(np.arange(12).reshape(3, 4), (1, 2)),
    "blocks": np.arange(64).reshape(2, 2, 4, 4).transpose(2, 0, 3, 1).reshape(8, 8),
    "one element": np.array([[7]]),
    "reversed": np.arange(9)[::-1],
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_loops_with_strides(name: str) -> None:
    source = MOVES[name].reshape(-1)
    nest = affine(np.stack([np.arange(source.size), source]))
    assert nest is not None
    np.testing.assert_array_equal(visited(nest), [np.arange(source.size), source])
    assert len(nest.axes) <= 4


def test_strides_are_found_without_a_look_at_every_run() -> None:
    """Both ways give the same loops, for any order of axes, parts of them, and parts repeated."""
    rng, several = np.random.default_rng(0), 0
    for _ in range(400):
        shape = rng.integers(1, 7, rng.integers(1, 5))
        source = np.arange(np.prod(shape)).reshape(shape).transpose(rng.permutation(len(shape)))
        source = source[tuple(slice(int(rng.integers(size)), None, int(rng.choice([-2, -1, 1, 1, 2]))) for size in source.shape)]
        if rng.integers(3) == 0:
            source = np.broadcast_to(source[..., :1], source.shape)
        places = np.arange(2 * source.size).reshape(source.shape[0], 2, *source.shape[1:])[:, 1]
        nest = strided([places, source])
        assert nest is not None
        assert nest == affine(np.stack([places.reshape(-1), source.reshape(-1)]))
        several += len(nest.axes) > 2
    assert several > 10
    bent = np.arange(64).reshape(4, 4, 4)
    bent[3, 2, 1] = 0
    assert strided([bent]) is None


@pytest.mark.parametrize("length", [1 << 10, (1 << 10) + 1, 5000])
def test_long_runs(length: int) -> None:
    source = np.concatenate([np.arange(length), 7 * length + np.arange(length)])
    nest = affine(source[None])
    assert nest is not None
    assert [(axis.size, axis.strides) for axis in nest.axes] == [(2, (7 * length,)), (length, (1,))]


@pytest.mark.parametrize(
    ("source", "tables"),
    [
        (np.arange(20).reshape(4, 5)[[3, 0, 0, 2]], 1),
        (np.pad(np.arange(20).reshape(4, 5), 2, mode="reflect"), 2),
        (np.pad(np.arange(20).reshape(4, 5), ((0, 0), (1, 2)), mode="edge"), 1),
        (np.array([[0, 1], [5, 3]]), 1),
    ],
)
def test_what_has_no_stride_has_a_table(source: np.ndarray[Any, Any], tables: int) -> None:
    sequences = np.stack([np.arange(source.size), source.reshape(-1)])
    assert affine(sequences) is None
    nest = by_axis(source)
    np.testing.assert_array_equal(visited(nest), sequences)
    assert sum(isinstance(stride, tuple) for axis in nest.axes for stride in axis.strides) == tables


def test_neighbouring_axes_are_one_loop_where_operands_allow_it() -> None:
    sizes = [
        [axis.size for axis in joined((1, 4, 5, 6), strides).axes]
        for strides in ([(0, 30, 6, 1)] * 2, [(0, 30, 6, 1), (0, 1, 0, 0)])
    ]
    assert sizes == [[120], [4, 30]]


def planned(name: str, layer: int) -> tuple[Program, Memory]:
    network = make_source(quantized(name, layer), "net", None).network
    program = make_program(read_values(network), network.ends)
    return program, plan_memory(program)


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_arrays_that_live_at_once_lie_apart(name: str, layer: int) -> None:
    program, memory = planned(name, layer)
    cells: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
    for value, place in memory.places.items():
        uses = [index for index, kernel in enumerate(program.kernels) if value in (*kernel.reads, *kernel.writes)]
        assert (place.first, place.last) == (uses[0], uses[-1]) and place.first < place.last
        assert place.elements == program.values[value].elements
        assert place.offset + place.elements <= memory.arenas[place.bits]
        for cell in range(place.offset, place.offset + place.elements):
            cells.setdefault((place.bits, cell), []).append((place.first, place.last, value))
    for lives in cells.values():
        for one, other in itertools.pairwise(sorted(lives)):
            assert one[1] < other[0], (one, other)
    assert memory.bytes <= memory.bytes_without_reuse


def test_memory_is_used_again_and_16_bit_accumulators_need_none() -> None:
    """Three images of 6 channels at once, that of the block's input, of its first layer and of its second: none in 16 bits."""
    _, memory = planned("residual", 16)
    assert dict(memory.arenas) == {8: 3 * 6 * 64}
    assert memory.bytes < memory.bytes_without_reuse


def test_a_layer_and_all_that_follows_element_by_element_is_one_function() -> None:
    program, _ = planned("leaky", 16)
    assert [kernel.title for kernel in program.kernels] == ["nchw", "conv", "conv2", "pool", "y"]
    assert len(program.kernels[1].nodes) == 8
    assert program.same["flat__q"] == "pool__q"
