"""Every operation of the target `integer` alone in onnxruntime, against a second reading in NumPy: kinds, borders, types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from integer_reader import run_operation
from integer_runs import evaluate, given

from tqt_onnx.export import Operation
from tqt_onnx.export.integer_onnx.elementwise import shifted
from tqt_onnx.export.integer_onnx.graph import Builder, Carried
from tqt_onnx.export.integer_onnx.model import OPERATIONS
from tqt_onnx.export.integers.network import MOVES, SUMS
from tqt_onnx.ir import UnsupportedError

RANGES = {"u8": (0, 255), "s8": (-128, 127), "s16": (-32768, 32767), "wide": (-(1 << 40), 1 << 40)}
STORED = {"u8": np.uint8, "s8": np.int8, "s16": np.int32, "wide": np.float64}


def numbers(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random integers of the whole range, both ends among them."""
    low, high = RANGES[kind]
    drawn = np.random.default_rng(seed).integers(low, high, shape, endpoint=True)
    drawn.reshape(-1)[:2] = low, high
    return drawn


def check(
    op: str,
    inputs: list[tuple[str, tuple[int, ...], bool]],
    attributes: dict[str, Any] | None = None,
    shifts: tuple[int, ...] | None = None,
    bound: int | None = None,
) -> onnx_ir.Graph:
    """One operation; inputs are (kind, shape, whether it is a constant)."""
    builder, feeds, operands, arrays = Builder(set()), {}, [], []
    names = tuple(f"x{place}" for place in range(len(inputs)))
    for place, (kind, shape, is_constant) in enumerate(inputs):
        array = numbers(kind, shape, place)
        arrays.append(array)
        if is_constant:
            operands.append(Carried(names[place], shape, int(array.min()), int(array.max()), integers=array))
        else:
            feeds[names[place]] = array.astype(STORED[kind])
            operands.append(given(builder, names[place], feeds[names[place]], *RANGES[kind]))
    places = shifts or (0,) * len(inputs)
    expected = run_operation(op, [array << shift for array, shift in zip(arrays, places, strict=True)], attributes or {})
    operation = Operation(op, "n", None, names, places, "y", 0, (None, *expected.shape[1:]), attributes or {}, bound)
    aligned = [shifted(builder, x, shift, "n") for x, shift in zip(operands, places, strict=True)]
    found = OPERATIONS[op](builder, operation, aligned)
    assert found.value is not None
    assert found.low <= expected.min()
    assert expected.max() <= found.high
    for result in evaluate(builder, {"out": found.value}, feeds):
        np.testing.assert_array_equal(result["out"].astype(np.int64), expected)
    return builder.graph


def window(kernel: tuple[int, ...], **other: Any) -> dict[str, Any]:
    spatial = len(kernel)
    ones = [1] * spatial
    return {"kernel_shape": list(kernel), "strides": ones, "dilations": ones, "pads": [0] * 2 * spatial, "group": 1} | other


CONVOLUTIONS = {
    "2-D": ((2, 6, 9, 8), (4, 6, 3, 3), window((3, 3), pads=[1, 0, 2, 1])),
    "strides": ((2, 3, 9, 8), (5, 3, 3, 2), window((3, 2), strides=[2, 3], pads=[1, 1, 1, 1])),
    "dilations": ((1, 3, 9, 12), (2, 3, 3, 3), window((3, 3), dilations=[2, 3])),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), window((3, 3), group=3, pads=[1] * 4)),
    "depthwise": ((2, 6, 7, 7), (6, 1, 3, 3), window((3, 3), group=6, pads=[1] * 4, strides=[2, 1])),
    "depthwise, two filters": ((2, 3, 7, 7), (6, 1, 3, 3), window((3, 3), group=3, pads=[0, 1, 1, 0])),
    "1-D": ((2, 4, 11), (3, 4, 5), window((5,), pads=[2, 1], strides=[2])),
    "3-D": ((1, 2, 4, 5, 6), (3, 2, 2, 2, 2), window((2, 2, 2), pads=[1, 0, 0, 0, 1, 0])),
    "1x1": ((2, 40, 3, 3), (7, 40, 1, 1), window((1, 1))),
}

TRANSPOSED = {
    "stride 2": ((2, 3, 4, 5), (3, 4, 4, 4), window((4, 4), strides=[2, 2], pads=[1] * 4, output_padding=[0, 0])),
    "stride 1": ((2, 3, 4, 5), (3, 4, 3, 3), window((3, 3), pads=[1] * 4, output_padding=[0, 0])),
    "gaps": ((1, 2, 3, 3), (2, 2, 2, 2), window((2, 2), strides=[3, 4], output_padding=[0, 0])),
    "output padding": ((2, 2, 4, 4), (2, 3, 3, 3), window((3, 3), strides=[2, 3], pads=[1] * 4, output_padding=[1, 2])),
    "dilations": (
        (1, 2, 4, 4),
        (2, 3, 3, 2),
        window((3, 2), strides=[2, 1], dilations=[2, 3], pads=[1, 0, 2, 1], output_padding=[0, 0]),
    ),
    "groups": ((2, 6, 3, 3), (6, 2, 3, 3), window((3, 3), strides=[2, 2], group=3, output_padding=[1, 0])),
    "depthwise": ((2, 4, 3, 3), (4, 1, 2, 2), window((2, 2), strides=[2, 2], group=4, output_padding=[0, 0])),
    "cropped": ((1, 2, 5, 5), (2, 2, 2, 2), window((2, 2), strides=[2, 2], pads=[3, 2, 2, 4], output_padding=[0, 0])),
    "1-D": ((2, 3, 6), (3, 2, 4), window((4,), strides=[3], pads=[1, 2], output_padding=[1])),
}


@pytest.mark.parametrize("weights", ["s8", "u8"])
@pytest.mark.parametrize("x", ["u8", "s8"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, x: str, weights: str) -> None:
    shape, kernel, attributes = CONVOLUTIONS[case]
    check("Conv", [(x, shape, False), (weights, kernel, True), ("s16", (kernel[0],), True)], attributes)
    check("Conv", [(x, shape, False), (weights, kernel, True)], attributes)


@pytest.mark.parametrize("x", ["u8", "s8"])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolutions(case: str, x: str) -> None:
    shape, kernel, attributes = TRANSPOSED[case]
    bias = kernel[1] * attributes["group"]
    check("ConvTranspose", [(x, shape, False), ("s8", kernel, True), ("s16", (bias,), True)], attributes)


@pytest.mark.parametrize("second", ["s8", "u8"])
@pytest.mark.parametrize("first", ["u8", "s8"])
@pytest.mark.parametrize("is_constant", [True, False])
def test_matrix_products(first: str, second: str, is_constant: bool) -> None:
    for flags in ({"transA": 0, "transB": 0}, {"transA": 0, "transB": 1}):
        shape = (4, 9) if flags["transB"] else (9, 4)
        check("Gemm", [(first, (3, 9), False), (second, shape, is_constant), ("s16", (4,), True)], flags)
    if is_constant:
        check("Gemm", [(first, (9, 3), False), (second, (9, 4), True)], {"transA": 1, "transB": 0})
    for left, right in (((2, 3, 9), (9, 4)), ((2, 5, 3, 9), (2, 5, 9, 4)), ((3, 9), (9,))):
        check("MatMul", [(first, left, False), (second, right, is_constant)])
    check("MatMul", [(first, (4, 9), True), (second, (2, 9, 3), False)])


def test_sums_beyond_int32_with_their_bias_are_float64_and_exact() -> None:
    builder = Builder(set())
    x = given(builder, "x", np.full((1, 2), 255, np.uint8), 0, 255)
    bias = np.array([(1 << 31) - 2, -(1 << 31)], np.int64)
    weights = np.array([[127, -128], [127, -128]], np.int64)
    operands = [
        x,
        Carried("w", (2, 2), -128, 127, integers=weights),
        Carried("b", (2,), int(bias.min()), int(bias.max()), integers=bias),
    ]
    operation = Operation("Gemm", "n", None, ("x", "w", "b"), (0, 0, 0), "y", 0, (None, 2), {}, None)
    found = OPERATIONS["Gemm"](builder, operation, operands)
    assert found.value is not None
    for result in evaluate(builder, {"out": found.value}, {"x": np.full((1, 2), 255, np.uint8)}):
        assert result["out"].tolist() == [[2 * 255 * 127 + (1 << 31) - 2, -2 * 255 * 128 - (1 << 31)]]
    assert found.low <= -2 * 255 * 128 - (1 << 31)
    assert found.high >= 2 * 255 * 127 + (1 << 31) - 2


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min"])
@pytest.mark.parametrize(
    ("first", "second"), [("u8", "u8"), ("u8", "s8"), ("s8", "s8"), ("s16", "s8"), ("s16", "s16"), ("wide", "u8")]
)
def test_two_operands(op: str, first: str, second: str) -> None:
    for shape in ((2, 3, 4), (4,), (1, 3, 1)):
        for is_constant in (False, True):
            check(op, [(first, (2, 3, 4), False), (second, shape, is_constant)])
    if op != "Mul":
        check(op, [(first, (2, 5), False), (second, (2, 5), False)], shifts=(3, 0))
        check(op, [(first, (2, 5), False), (second, (5,), True)], shifts=(0, 7))


def test_sums_of_scales_far_apart_are_float64() -> None:
    graph = check("Add", [("u8", (2, 5), False), ("s8", (2, 5), False)], shifts=(0, 30))
    assert any(node.op_type == "Cast" and node.attributes["to"].as_int() == onnx_ir.DataType.DOUBLE for node in graph)
    with pytest.raises(UnsupportedError, match=r"beyond 2\^53"):
        check("Add", [("u8", (2, 5), False), ("s8", (2, 5), False)], shifts=(0, 47))


def test_maxima_of_three() -> None:
    for op in ("Max", "Min"):
        check(op, [("u8", (2, 5), False), ("s8", (2, 5), False), ("s16", (5,), True)])


@pytest.mark.parametrize("kind", RANGES)
def test_bounds(kind: str) -> None:
    check("Relu", [(kind, (2, 9), False)])
    for low, high in ((0, 6), (-3, None), (None, 3), (None, None), (-(1 << 60), 1 << 60), (5, 200), (-200, -3)):
        check("Clip", [(kind, (2, 99), False)], {"low": low, "high": high})


@pytest.mark.parametrize("kind", RANGES)
def test_maxima_of_windows(kind: str) -> None:
    for attributes in (
        window((2, 2), strides=[2, 2]),
        window((3, 3), pads=[1, 1, 2, 1]),
        window((2, 3), dilations=[2, 1], pads=[1, 0, 0, 2], strides=[1, 2]),
    ):
        check("MaxPool", [(kind, (2, 3, 8, 9), False)], attributes)
    check("MaxPool", [(kind, (2, 3, 8), False)], window((3,), pads=[1, 2]))


def test_the_padding_of_a_max_pool_is_no_zero_even_where_all_numbers_are_negative() -> None:
    """And a Pad of zeros in front of one stays zeros: onnxruntime joins a Pad without axes with the pool behind it."""
    builder = Builder(set())
    x = given(builder, "x", np.full((1, 1, 4, 4), -7, np.int8), -128, 127)
    pads = {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "mode": "constant", "value": 0}
    padded = OPERATIONS["Pad"](builder, Operation("Pad", "p", None, ("x",), (0,), "p", 0, (None, 1, 6, 6), pads), [x])
    attributes = window((2, 2), pads=[1] * 4)
    pool = Operation("MaxPool", "m", None, ("p",), (0,), "m", 0, (None, 1, 7, 7), attributes)
    found = OPERATIONS["MaxPool"](builder, pool, [padded])
    alone = OPERATIONS["MaxPool"](builder, Operation("MaxPool", "a", None, ("x",), (0,), "a", 0, (None, 1, 5, 5), attributes), [x])
    assert found.value is not None and alone.value is not None
    feeds = {"x": np.full((2, 1, 4, 4), -7, np.int8)}
    for result in evaluate(builder, {"out": found.value, "only": alone.value}, feeds):
        assert (result["only"] == -7).all()
        assert (result["out"][:, :, 2:5, 2:5] == -7).all()
        assert (result["out"][:, :, [0, 1, 5, 6]] == 0).all()


@pytest.mark.parametrize(("kind", "first", "entries"), [("s8", -128, 256), ("u8", 0, 256), ("s8", -130, 300)])
def test_tables(kind: str, first: int, entries: int) -> None:
    for low, high in ((0, 255), (-128, 127), (-300, 300)):
        values = np.random.default_rng(entries).integers(low, high, entries, endpoint=True).tolist()
        check("Table", [(kind, (2, 300), False)], {"first": first, "entries": values})


MOVED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("Identity", (2, 3), {}),
    ("Transpose", (2, 3, 4, 5), {"perm": [0, 2, 3, 1]}),
    ("Reshape", (2, 3, 4), {"shape": [-1, 6, 2]}),
    ("Reshape", (2, 3, 4), {"shape": [0, -1], "allowzero": 0}),
    ("Flatten", (2, 3, 4), {"axis": 1}),
    ("Flatten", (2, 3, 4), {"axis": 2}),
    ("Squeeze", (2, 1, 4, 1), {"axes": [1, 3]}),
    ("Squeeze", (2, 1, 4, 1), {}),
    ("Unsqueeze", (2, 4), {"axes": [1, 3]}),
    ("Tile", (2, 3, 4), {"repeats": [1, 2, 3]}),
    ("Gather", (2, 5, 4), {"indices": [4, 0, 0, -1], "axis": 1}),
    ("Gather", (2, 5, 4), {"indices": [[1, 2], [3, 0]], "axis": 2}),
    ("Gather", (2, 5, 4), {"indices": 3, "axis": 1}),
    ("Slice", (2, 9, 7), {"starts": [1, -1], "ends": [8, -(1 << 40)], "axes": [1, 2], "steps": [3, -2]}),
    ("Slice", (2, 9, 7), {"starts": [0, 2], "ends": [1, 1 << 40]}),
    ("Pad", (2, 3, 4, 4), {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "constant", "value": 0}),
    ("Pad", (2, 3, 4, 4), {"pads": [1, 2, 0, 1], "axes": [2, 3], "mode": "constant", "value": -1000}),
    ("Pad", (2, 3, 4, 4), {"pads": [1, 2, 0, 1], "axes": [2, 3], "mode": "reflect"}),
    ("Pad", (2, 3, 4, 4), {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "edge"}),
    ("Pad", (2, 3, 4, 4), {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "wrap"}),
    ("DepthToSpace", (2, 12, 2, 3), {"blocksize": 2, "mode": "DCR"}),
    ("DepthToSpace", (2, 12, 2, 3), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (2, 3, 4, 6), {"blocksize": 2}),
    ("Resize", (2, 3, 4, 5), {"scales": [1.0, 1.0, 2.0, 3.0]}),
]


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("place", range(len(MOVED)))
def test_moves(place: int, kind: str) -> None:
    op, shape, attributes = MOVED[place]
    if (op, kind) == ("Resize", "wide"):
        with pytest.raises(UnsupportedError, match="target integer: Resize 'n'"):
            check(op, [(kind, shape, False)], attributes)
    else:
        check(op, [(kind, shape, False)], attributes)


def test_concatenations_meet_in_a_type_that_holds_all() -> None:
    for kinds in (("u8", "u8"), ("u8", "s8"), ("s8", "s16", "u8"), ("wide", "u8")):
        check("Concat", [(kind, (2, 3, 4), False) for kind in kinds], {"axis": 1}, shifts=tuple(range(len(kinds))))


def test_every_operation_of_networks_is_written() -> None:
    assert set(OPERATIONS) == MOVES | SUMS | {"Add", "Sub", "Mul", "Max", "Min", "Relu", "Clip", "MaxPool", "Table"}


def test_what_integer_kernels_do_not_take_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"layer 'n': Conv: .* factors of 8 bits. Received: 'x0' with integers from -32768"):
        check("Conv", [("s16", (1, 2, 4, 4), False), ("s8", (3, 2, 3, 3), True)], window((3, 3)), bound=1 << 20)
    with pytest.raises(UnsupportedError, match=r"weights of a convolution must be constant. Received: 'x1', which is computed"):
        check("Conv", [("u8", (1, 2, 4, 4), False), ("s8", (3, 2, 3, 3), False)], window((3, 3)))
    with pytest.raises(UnsupportedError, match=r"alpha and beta are 1.*Received: alpha = 2"):
        check("Gemm", [("u8", (1, 2), False), ("s8", (2, 3), True)], {"alpha": 2.0})


def test_sums_beyond_int32_are_refused_with_layer_limit_and_value() -> None:
    taps = (1 << 31) // (255 * 128) + 1
    weights = np.full((taps, 1), -128, np.int64)
    builder = Builder(set())
    x = given(builder, "x", np.zeros((1, taps), np.uint8), 0, 255)
    operation = Operation("MatMul", "fc", None, ("x", "w"), (0, 0), "y", 0, (None, 1), {}, None)
    with pytest.raises(
        UnsupportedError, match=rf"layer 'fc': MatMul: .* int32, at most 2147483647.*sums of up to {taps * 255 * 128}"
    ):
        OPERATIONS["MatMul"](builder, operation, [x, Carried("w", (taps, 1), -128, -128, integers=weights)])
    fewer = Carried("w", (taps - 1, 1), -128, -128, integers=weights[1:])
    x = given(builder, "z", np.zeros((1, taps - 1), np.uint8), 0, 255)
    assert OPERATIONS["MatMul"](builder, operation, [x, fewer]).magnitude <= (1 << 31) - 1
