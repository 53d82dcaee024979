"""Operations in forms that no model here has: networks put together by hand, compiled, `==` the second reading of their steps."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_programs import build, raw_run, write_network
from integer_reader import run_step

from tqt_onnx.export import IntegerNetwork, Operation, Port, Step, Tensor
from tqt_onnx.export.c import translate
from tqt_onnx.ir import UnsupportedError

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(11)
LARGE = np.array([2**31 - 1, -(2**31), 10**9, -(10**9), 5, -7])


def tensor(name: str, shape: tuple[int, ...], bits: int = 8, integers: Array | None = None, *, signed: bool = True) -> Tensor:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    sizes = shape if integers is not None else (None, *shape)
    return Tensor(name, name, "input" if integers is None else "constant", None, None, bits, signed, 0, low, high, sizes, integers)


def constant(name: str, shape: tuple[int, ...], bits: int = 8) -> Tensor:
    return tensor(name, shape, bits, RNG.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape))


def network(inputs: list[Tensor], operations: list[Operation], result: Tensor, shift: int) -> IntegerNetwork:
    """One step that ends in `result`."""
    step = Step("layer", None, tuple(operations), operations[-1].output if operations else inputs[0].name, "y", shift)
    ports = tuple(Port(item.name, item.name, item.shape) for item in inputs if item.kind == "input")
    tensors = {item.name: item for item in (*inputs, result)}
    return IntegerNetwork("layer32", tensors, (step,), ports, (Port("y", "y", result.shape),), ("y",), ())


def compare(made: IntegerNetwork, folder: Path, count: int = 6, *, constant: bool = False) -> Array:
    """Compiles, runs on drawn integers with the extremes among them, and compares; only where it is `constant` says y nothing."""
    write_network(made, folder)
    feeds: dict[str, Array] = {}
    for port in made.inputs:
        item = made.tensors[port.name]
        feeds[port.name] = RNG.integers(item.lower, item.upper + 1, (count, *[int(n or 0) for n in item.shape[1:]]))
        feeds[port.name][0], feeds[port.name][1] = item.lower, item.upper
    constants = {item.name: item.integers for item in made.constants}
    (step,) = made.steps
    output = made.tensors["y"]
    expected = np.concatenate(
        [run_step(asdict(step), {**constants, **{k: v[i : i + 1] for k, v in feeds.items()}}, asdict(output)) for i in range(count)]
    )
    program = build(folder)
    found = raw_run(program, [feeds[port.name] for port in made.inputs], [made.tensors[port.name] for port in made.inputs], output)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert (np.unique(expected).size == 1) == constant
    return expected


def op(
    name: str, inputs: list[Tensor], shape: tuple[int, ...], *, shifts: tuple[int, ...] | None = None, **attributes: Any
) -> Operation:
    names = tuple(item.name for item in inputs)
    return Operation(name, name, None, names, shifts or (0,) * len(names), f"{name}_out", 0, (None, *shape), attributes)


def window(kernel: list[int], pads: list[int], strides: list[int], dilations: list[int], **more: Any) -> dict[str, Any]:
    return {"kernel_shape": kernel, "pads": pads, "strides": strides, "dilations": dilations, **more}


def result(shape: tuple[int, ...], bits: int = 8, *, signed: bool = True) -> Tensor:
    made = tensor("y", shape, bits, signed=signed)
    return Tensor("y", "y", "computed", None, None, bits, signed, 0, made.lower, made.upper, made.shape)


def test_signals(tmp_path: Path) -> None:
    x, w, b = tensor("x", (4, 19)), constant("w", (6, 2, 3)), tensor("b", (6,), 32, LARGE)
    small = tensor("b", (6,), 32, RNG.integers(-5000, 5000, 6))
    for number, (bias, shift) in enumerate(((b, 25), (small, 9))):  # sums of 64 bits, of 32 bits
        conv = op("Conv", [x, w, bias], (6, 9), **window([3], [2, 1], [2], [2], group=2))
        folder = tmp_path / str(number)
        folder.mkdir()
        compare(network([x, w, bias], [conv], result((6, 9)), shift), folder)
        assert ("int64_t sum" in (folder / "net.c").read_text()) == (bias is b)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolutions(group: int, tmp_path: Path) -> None:
    x, w, b = tensor("x", (4, 3, 5), signed=False), constant("w", (4, 3, 3, 2)), constant("b", (3 * group,), 12)
    shape = (3 * group, 2 * 2 + 2 * 2 + 1 + 1 - 1, 4 * 3 + 1 + 1 - 2)
    up = op("ConvTranspose", [x, w, b], shape, **window([3, 2], [1, 0, 0, 2], [2, 3], [2, 1], group=group, output_padding=[1, 0]))
    compare(network([x, w, b], [up], result(shape), 8), tmp_path)


@pytest.mark.parametrize(("multiplier", "group"), [(1, 4), (2, 4), (3, 2)])
def test_grouped_convolutions(multiplier: int, group: int, tmp_path: Path) -> None:
    x, w = tensor("x", (4, 5, 4)), constant("w", (group * multiplier, 4 // group, 2, 3))
    shape = (group * multiplier, 6, 2)
    conv = op("Conv", [x, w], shape, **window([2, 3], [1, 0, 1, 1], [1, 2], [1, 1], group=group))
    relu = Operation("Relu", "relu", None, ("Conv_out",), (0,), "relu_out", 0, (None, *shape))
    compare(network([x, w], [conv, relu], result(shape, 8, signed=False), 6), tmp_path)


@pytest.mark.parametrize(
    ("left", "right", "shape"), [((2, 3, 4), (2, 4, 5), (2, 3, 5)), ((2, 3, 4), (1, 4, 5), (2, 3, 5)), ((3, 4), (4, 1), (3, 1))]
)
def test_products_of_computed_matrices(
    left: tuple[int, ...], right: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    a, b = tensor("a", left), tensor("b", right, signed=False)
    compare(network([a, b], [op("MatMul", [a, b], shape)], result(shape), 9), tmp_path)


@pytest.mark.parametrize(("turned", "bias"), [(0, (5,)), (1, (1, 5)), (0, ()), (1, (1,))])
def test_dense_layers(turned: int, bias: tuple[int, ...], tmp_path: Path) -> None:
    x, w, b = tensor("x", (7,), 16), constant("w", (5, 7) if turned else (7, 5), 16), constant("b", bias, 20)
    gemm = op("Gemm", [x, w, b], (5,), transA=0, transB=turned)
    compare(network([x, w, b], [gemm], result((5,), 16), 17), tmp_path)
    assert "int64_t sum" in (tmp_path / "net.c").read_text()


def test_sums_that_need_64_bits_and_left_shifts(tmp_path: Path) -> None:
    a, b = tensor("a", (3, 4), 16), tensor("b", (1, 4), 16, signed=False)
    add = op("Add", [a, b], (3, 4), shifts=(33, 0))
    sub = Operation("Sub", "sub", None, ("Add_out", "b"), (0, 20), "sub_out", 0, (None, 3, 4))
    compare(network([a, b], [add, sub], result((3, 4), 16), 34), tmp_path)


@pytest.mark.parametrize("shift", [-9, -3, 0, 40, 70])
def test_a_rescale(shift: int, tmp_path: Path) -> None:
    x = tensor("x", (9,), 16)
    compare(network([x], [], result((9,)), shift), tmp_path, constant=shift >= 40)


@pytest.mark.parametrize("shift", [62, 63, 64, 90])
def test_a_shift_that_leaves_nothing(shift: int, tmp_path: Path) -> None:
    """What is computed is not read: neither arguments nor constants nor variables may be left over, which is a warning."""
    x, z, w = tensor("x", (2, 4)), tensor("z", (2, 1)), constant("w", (3, 2, 1))
    conv = op("Conv", [x, w], (3, 4), **window([1], [0, 0], [1], [1], group=1))
    relu = Operation("Relu", "relu", None, ("Conv_out",), (0,), "relu_out", 0, (None, 3, 4))
    c = constant("c", (2, 1))
    for number, (inputs, operations, shape) in enumerate(
        [
            ([x], [], (2, 4)),
            ([x, z], [op("Mul", [x, z], (2, 4))], (2, 4)),
            ([x, c], [op("Add", [x, c], (2, 4))], (2, 4)),
            ([x, w], [conv], (3, 4)),
            ([x, w], [conv, relu], (3, 4)),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        compare(network(inputs, operations, result(shape), shift), folder, constant=True)


def test_operands_that_are_never_read(tmp_path: Path) -> None:
    """One that is always smaller, as an argument, a constant and a variable; an image of which nothing is left."""
    x, z, c = tensor("x", (2, 4), signed=False), tensor("z", (2, 4)), tensor("c", (2, 4), 8, -RNG.integers(2, 99, (2, 4)))
    below = Operation("Min", "below", None, ("z", "c"), (0, 0), "below_out", 0, (None, 2, 4))
    largest = Operation("Max", "largest", None, ("x", "below_out", "c"), (0, 0, 0), "largest_out", 0, (None, 2, 4))
    for number, operations in enumerate([[op("Max", [x, c], (2, 4))], [below, largest]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        compare(network([x, z, c] if number else [x, c], operations, result((2, 4), signed=False), 0), folder)
    pads = {"pads": [0, 0, -4, 0, 0, 3], "mode": "constant", "value": 5}
    filled = network([x], [op("Pad", [x], (2, 3), **pads)], result((2, 3)), 0)
    code = write_network(filled, tmp_path)
    assert "(void)x_q;" in code
    found = raw_run(build(tmp_path), [np.zeros((1, 2, 4))], [x], result((2, 3)))
    assert found.tolist() == [5] * 6


def of_batch(item: Tensor, count: int) -> Tensor:
    return replace(item, shape=(count, *item.shape[1:]))


@pytest.mark.parametrize("name", ["Conv", "depthwise", "grouped", "ConvTranspose", "MaxPool", "signal"])
def test_windows_over_a_fixed_batch(name: str, tmp_path: Path) -> None:
    """Three examples in one run: each is computed from its own."""
    x, length = tensor("x", (4, 5, 4)), 3
    one = window([2, 3], [1, 0, 1, 1], [1, 2], [1, 1])
    operation, operands, shape = {
        "Conv": (
            op("Conv", [x, w := constant("w", (3, 4, 2, 3)), b := constant("b", (3,), 12)], (), **one, group=1),
            [w, b],
            (3, 6, 2),
        ),
        "depthwise": (op("Conv", [x, w := constant("w", (4, 1, 2, 3))], (), **one, group=4), [w], (4, 6, 2)),
        "grouped": (op("Conv", [x, w := constant("w", (6, 2, 2, 3))], (), **one, group=2), [w], (6, 6, 2)),
        "ConvTranspose": (
            op("ConvTranspose", [x, w := constant("w", (4, 3, 2, 3))], (), **one, group=1, output_padding=[0, 0]),
            [w],
            (3, 4, 8),
        ),
        "MaxPool": (op("MaxPool", [x], (), **one), [], (4, 6, 2)),
        "signal": (
            op("Conv", [tensor("x", (1, 9)), w := constant("w", (2, 1, 3))], (), **window([3], [0, 0], [2], [1], group=1)),
            [w],
            (2, 4),
        ),
    }[name]
    x = tensor("x", (1, 9)) if name == "signal" else x
    shift = 0 if name == "MaxPool" else 7
    output = result(shape)
    made = network([x, *operands], [replace(operation, shape=(None, *shape))], output, shift)
    fixed = replace(
        made,
        tensors={key: item if item.kind == "constant" else of_batch(item, length) for key, item in made.tensors.items()},
        steps=tuple(
            replace(step, operations=tuple(replace(part, shape=(length, *shape)) for part in step.operations))
            for step in made.steps
        ),
    )
    code = write_network(fixed, tmp_path)
    assert "BATCH = 3" in code
    given = RNG.integers(-128, 128, (2 * length, *[int(n or 0) for n in x.shape[1:]]))
    constants = {item.name: item.integers for item in made.constants}
    expected = run_step(asdict(made.steps[0]), {**constants, "x": given}, asdict(output))
    assert len({row.tobytes() for row in expected}) == len(expected)
    found = raw_run(build(tmp_path), [given], [x], output)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_largest_of_three_with_a_clip(tmp_path: Path) -> None:
    x = [tensor("a", (2, 3)), tensor("b", (3,), 8), constant("c", (2, 1))]
    largest = op("Max", x, (2, 3), shifts=(1, 0, 3))
    clip = Operation("Clip", "clip", None, ("Max_out",), (0,), "clip_out", 0, (None, 2, 3), {"low": None, "high": 77})
    smallest = Operation("Min", "min", None, ("clip_out", "a", "b"), (0, 0, 2), "min_out", 0, (None, 2, 3))
    low = Operation("Clip", "low", None, ("min_out",), (0,), "low_out", 0, (None, 2, 3), {"low": -50, "high": 1 << 62})
    compare(network(x, [largest, clip, smallest, low], result((2, 3)), 1), tmp_path, 20)


def test_parts_of_unlike_scales_and_a_table(tmp_path: Path) -> None:
    a, b = tensor("a", (2, 3), 6), constant("b", (1, 2, 2), 4)
    joined = op("Concat", [a, b], (2, 5), shifts=(0, 2), axis=-1)
    first, entries = -32, RNG.integers(-128, 128, 64).tolist()
    table = Operation("Table", "t", None, ("Concat_out",), (0,), "t_out", 0, (None, 2, 5), {"first": first, "entries": entries})
    compare(network([a, b], [joined, table], result((2, 5)), 0), tmp_path)


def test_a_table_reads_nothing_else_even_where_an_input_is_out_of_range(tmp_path: Path) -> None:
    """An integer of 6 bits comes in a byte; what the host must not give is looked up, too, at the nearest entry."""
    a = tensor("a", (3,), 6)
    table = op("Table", [a], (3,), first=-32, entries=list(range(-32, 32)))
    write_network(network([a], [table], result((3,)), 0), tmp_path)
    given = np.array([[-128, 127, 5]])
    found = raw_run(build(tmp_path), [given], [a], result((3,)))
    assert found.tolist() == [-32, 31, 5]


def test_a_move_in_front_of_sums_and_behind_them(tmp_path: Path) -> None:
    """Nothing is rounded between the operations of a step: what other loops read is kept in full width."""
    x, w, c = tensor("x", (3, 4)), constant("w", (4, 4), 8), constant("c", (4, 1), 16)
    product = op("MatMul", [x, w], (3, 4))
    turned = Operation("Transpose", "t", None, ("MatMul_out",), (0,), "t_out", 0, (None, 4, 3), {"perm": [0, 2, 1]})
    added = Operation("Add", "a", None, ("t_out", "c"), (0, 0), "a_out", 0, (None, 4, 3))
    padded = Operation(
        "Pad",
        "p",
        None,
        ("a_out",),
        (0,),
        "p_out",
        0,
        (None, 6, 4),
        {"pads": [0, 1, 0, 0, 1, 1], "mode": "constant", "value": -777},
    )
    compare(network([x, w, c], [product, turned, added, padded], result((6, 4)), 6), tmp_path)


@pytest.mark.parametrize(("start", "end", "step", "length"), [(-9, -99, -1, 1), (9, -99, -2, 3), (-9, 99, 3, 2), (-2, 1, -1, 2)])
def test_slices_beyond_both_ends(start: int, end: int, step: int, length: int, tmp_path: Path) -> None:
    x = tensor("x", (3, 5))
    part = op("Slice", [x], (3, length), starts=[start], ends=[end], axes=[-1], steps=[step])
    compare(network([x], [part], result((3, length)), 0), tmp_path)


def test_limits_name_layer_and_value() -> None:
    x, w = tensor("x", (2, 4, 4, 4)), constant("w", (2, 2, 2, 2, 2))
    volume = op("Conv", [x, w], (2, 3, 3, 3), **window([2] * 3, [0] * 6, [1] * 3, [1] * 3, group=1))
    with pytest.raises(
        UnsupportedError, match=r"target c: layer 'Conv': Conv: windows over 1 or 2 axes .* Received: \[1, 2, 4, 4, 4\]"
    ):
        translate("net", network([x, w], [volume], result((2, 3, 3, 3)), 0))
    a = tensor("a", (3,), 16)
    with pytest.raises(UnsupportedError, match=r"target c: layer 'Add' \(Add\): .* needs 77 bits"):
        translate("net", network([a], [op("Add", [a, a], (3,), shifts=(60, 0))], result((3,)), 0))
    for shift, bits in ((46, None), (47, 64)):  # below 2^62 all is 0 behind a shift by 63; beyond it is not
        made = network([a], [op("Add", [a, a], (3,), shifts=(shift, 0))], result((3,)), 63)
        if bits is None:
            translate("net", made)
            continue
        with pytest.raises(UnsupportedError, match=r"target c: layer 'Add' \(Add\): .* needs 64 bits; .* up to 2\^62"):
            translate("net", made)
    with pytest.raises(UnsupportedError, match=r"target c: layer 'Cast': Cast has no form in C"):
        translate("net", network([a], [op("Cast", [a], (3,))], result((3,)), 0))
    spread = Operation("Reshape", "r", None, ("a",), (0,), "r_out", 0, (None, 1), {"shape": [-1, 1]})
    with pytest.raises(UnsupportedError, match=r"target c: layer 'r': one example gives \[3, 1\], the model says \[None, 1\]"):
        translate("net", network([a], [spread], result((1,)), 0))
    with pytest.raises(UnsupportedError, match=r"target c: tensor 'a': C arrays have fixed sizes"):
        translate("net", network([replace(a, shape=(None, None))], [], result((3,)), 0))
