"""Convolutions, matrix products and max pools: the loops around one element of the output, and those that compute it.

Every bound is a constant of the function, named in an `enum`: a compiler for hardware unrolls and pipelines only such loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from ..integers.network import Operation
from .body import Body, Unit, position, shifted
from .kernels import Kernel
from .loops import broadcast_strides
from .rounding import Expression
from .text import Text
from .types import computed, literal

_Axes = tuple[tuple[str, str, str], ...]

_AXES: Final[_Axes] = (("y", "HEIGHT", "row"), ("x", "WIDTH", "column"))
"""Of images: loop variable, what sizes are called, position in the input. Signals have the last one."""


def write_layer(unit: Unit, kernel: Kernel, text: Text) -> None:
    """The content of a function that begins with one of `Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `MaxPool`."""
    head = kernel.head
    assert head is not None
    if head.op in {"Gemm", "MatMul"}:
        _matrix(unit, kernel, head, text)
    else:
        _window(unit, kernel, head, text)


def _constants(text: Text, named: dict[str, int]) -> None:
    text.wrapped("enum { ", [f"{name} = {value}" for name, value in named.items()], " };")


def _body(unit: Unit, kernel: Kernel, text: Text, variables: tuple[str, ...]) -> Body:
    """Elements are found by the loop variables of the axes, "0" where there is no loop."""

    def index(shape: tuple[int, ...]) -> str:
        if shape == kernel.shape:
            return "n"
        strides = broadcast_strides(shape, kernel.shape)
        return position([(name, step) for name, step in zip(variables, strides, strict=True) if name != "0"])

    return Body(unit, kernel, text, index, {})


def _start(unit: Unit, head: Operation, body: Body, text: Text, bias: str) -> tuple[str, Expression]:
    """Declares the sum, with the bias at a given index in it where there is one; its type and itself."""
    integers = unit.program.values[head.output].integers
    ctype = computed(integers, f"layer {head.node!r} ({head.op})")
    first = unit.element(head.inputs[2], bias).text if len(head.inputs) > 2 else "0"
    name = body.fresh("sum")
    text.line(f"{ctype} {name} = {first};")
    return ctype, Expression(name, integers)


def _matrix(unit: Unit, kernel: Kernel, head: Operation, text: Text) -> None:
    """`sum_k left[i, k] right[k, j] + bias`, for every matrix of a stack."""
    shape, (left, right) = kernel.shape, (unit.program.values[name].shape for name in head.inputs[:2])
    turned = [bool(head.attributes.get(name)) for name in ("transA", "transB")]
    depth = left[-2] if turned[0] else left[-1]
    _constants(text, {"ROWS": shape[-2], "COLUMNS": shape[-1], "DEPTH": depth})
    stack: list[tuple[str, int | str]] = [(f"stack_{axis}", size) for axis, size in enumerate(shape[:-2])]
    sizes = [*stack, ("i", "ROWS"), ("j", "COLUMNS")]
    variables = tuple(name if size != 1 else "0" for (name, _), size in zip(sizes, shape, strict=True))
    with text.loops(entry for entry, length in zip(sizes, shape, strict=True) if length != 1):
        _running_number(text, kernel.shape, variables, ("ROWS", "COLUMNS"))
        body = _body(unit, kernel, text, variables)
        bias = body.index(unit.program.values[head.inputs[2]].shape) if len(head.inputs) > 2 else ""
        ctype, total = _start(unit, head, body, text, bias)
        places = []
        for own, is_turned, axes in ((left, turned[0], (variables[-2], "k")), (right, turned[1], ("k", variables[-1]))):
            outer, inner = reversed(axes) if is_turned else axes
            above = (*own[:-2], 1, 1)
            steps = broadcast_strides(above, (*shape[:-2], 1, 1))[:-2]
            terms = [(name, step * own[-2] * own[-1]) for name, step in zip(variables, steps, strict=False) if name != "0"]
            terms += [(name, step) for name, step in ((outer, own[-1]), (inner, 1)) if name != "0"]
            places.append(position(terms))
        with text.loops([("k", "DEPTH")]):
            factors = [body.unit.element(name, place).text for name, place in zip(head.inputs, places, strict=False)]
            text.line(f"{total.text} += ({ctype}){factors[0]} * {factors[1]};")
        body.write(total)


def _running_number(text: Text, shape: tuple[int, ...], variables: tuple[str, ...], names: tuple[str, ...]) -> None:
    """`n`, the position of the element in an array of the shape of the output."""
    sizes = [str(length) for length in shape[: len(shape) - len(names)]] + list(names)
    found = "0"
    for name, size in zip(variables, sizes, strict=True):
        if found != "0":
            found = f"({found}) * {size}" if " + " in found else f"{found} * {size}"
        if name != "0":
            found = name if found == "0" else f"{found} + {name}"
    text.line(f"const int n = {found};")


def _window(unit: Unit, kernel: Kernel, head: Operation, text: Text) -> None:
    """A window that slides over one or two axes; what lies outside is left out."""
    a, x = head.attributes, unit.program.values[head.inputs[0]].shape
    axes = _AXES[2 - len(a["kernel_shape"]) :]
    shape, pooled = kernel.shape, head.op == "MaxPool"
    channel = ("c", "CHANNELS") if pooled else ("o", "FILTERS")
    named = {"BATCH": shape[0]} if shape[0] > 1 else {}
    named[channel[1]] = shape[1]
    if not pooled:
        named |= {"FILTERS_PER_GROUP": shape[1] // a["group"], "CHANNELS": x[1] // a["group"]}
    for place, (_, size, _) in enumerate(axes):
        named |= {f"OUT_{size}": shape[2 + place], size: x[2 + place], f"KERNEL_{size}": a["kernel_shape"][place]}
        named |= {f"STRIDE_{size}": a["strides"][place], f"DILATION_{size}": a["dilations"][place], f"PAD_{size}": a["pads"][place]}
    _constants(text, named)
    outer = [channel, *((name, f"OUT_{size}") for name, size, _ in axes)]
    batch = [("b", "BATCH")] if shape[0] > 1 else []
    outer = [*batch, *outer]
    with text.loops(outer):
        variables = (*(() if batch else ("0",)), *(name for name, _ in outer))
        _running_number(text, shape, variables, tuple(size for _, size in outer))
        body = _body(unit, kernel, text, variables)
        total = _largest(unit, head, body, axes) if pooled else _products(unit, head, body, axes)
        body.write(total)


def _largest(unit: Unit, head: Operation, body: Body, axes: _Axes) -> Expression:
    """The largest element of a window; it begins with what no element is smaller than."""
    integers = unit.program.values[head.inputs[0]].integers
    ctype, text, x = computed(integers, "a maximum"), body.text, unit.program.values[head.inputs[0]].shape
    name = body.fresh("largest")
    text.line(f"{ctype} {name} = {literal(integers.low, ctype)};")
    with _taps(text, head, unit, axes):
        text.line(f"const {ctype} other = {unit.element(head.inputs[0], _nested([*_image(x, 'c'), *_places(axes)])).text};")
        with text.block(f"if (other > {name})"):
            text.line(f"{name} = other;")
    return shifted(Expression(name, integers), head.shifts[0])


def _products(unit: Unit, head: Operation, body: Body, axes: _Axes) -> Expression:
    """A sum over the channels of a group and the taps of a window."""
    ctype, total = _start(unit, head, body, body.text, "o")
    text, a = body.text, head.attributes
    x = unit.program.values[head.inputs[0]].shape
    transposed = head.op == "ConvTranspose"
    channels, per_group = x[1] // a["group"], unit.program.values[head.output].shape[1] // a["group"]
    channel = "c" if a["group"] == 1 else "o" if channels == per_group == 1 else "channel"
    if a["group"] == 1 and channels == 1:
        channel = "0"
    with text.loops([("c", "CHANNELS")] if channels > 1 else []):
        if channel == "channel":
            text.line(f"const int channel = o / FILTERS_PER_GROUP{' * CHANNELS + c' if channels > 1 else ''};")
        with _taps(text, head, unit, axes):
            taps = [(f"k{name}", f"KERNEL_{size}") for name, size, _ in axes]
            own = [(channel, ""), ("o" if a["group"] == 1 else "(o % FILTERS_PER_GROUP)", "FILTERS_PER_GROUP")]
            kernel = own if transposed else [("o", ""), ("c" if channels > 1 else "0", "CHANNELS")]
            factors = [
                unit.element(head.inputs[1], _nested([*kernel, *taps])).text,
                unit.element(head.inputs[0], _nested([*_image(x, channel), *_places(axes)])).text,
            ]
            text.line(f"{total.text} += ({ctype}){factors[0]} * {factors[1]};")
    return total


def _image(x: tuple[int, ...], channel: str) -> list[tuple[str, str]]:
    """The channel, in the example that the loops are at where a run has several."""
    return [("b", ""), (channel, str(x[1]))] if x[0] > 1 else [(channel, "")]


def _places(axes: _Axes) -> list[tuple[str, str]]:
    return [(place, size) for _, size, place in axes]


def _nested(parts: list[tuple[str, str]]) -> str:
    """`(first * SIZE + second) * SIZE + third`."""
    found = parts[0][0]
    for name, size in parts[1:]:
        found = name if found == "0" else f"({found}) * {size} + {name}" if " " in found else f"{found} * {size} + {name}"
    return found


@contextmanager
def _taps(text: Text, head: Operation, unit: Unit, axes: _Axes) -> Iterator[None]:
    """Loops over the taps of a window that lie inside the input."""
    x, y = (unit.program.values[name].shape for name in (head.inputs[0], head.output))
    with ExitStack() as stack:
        for place, (name, size, where) in enumerate(axes):
            a = {key: head.attributes[key][place] for key in ("kernel_shape", "strides", "dilations", "pads")}
            stack.enter_context(text.loops([(f"k{name}", f"KERNEL_{size}")]))
            if head.op == "ConvTranspose":
                text.line(f"const int {where}_steps = {name} + PAD_{size} - k{name} * DILATION_{size};")
                with text.block(
                    f"if ({where}_steps < 0 || {where}_steps % STRIDE_{size} != 0 || {where}_steps / STRIDE_{size} >= {size})"
                ):
                    text.line("continue;")
                text.line(f"const int {where} = {where}_steps / STRIDE_{size};")
                continue
            text.line(f"const int {where} = {name} * STRIDE_{size} + k{name} * DILATION_{size} - PAD_{size};")
            last = (y[2 + place] - 1) * a["strides"] + (a["kernel_shape"] - 1) * a["dilations"] - a["pads"]
            if a["pads"] > 0 or last >= x[2 + place]:
                with text.block(f"if ({where} < 0 || {where} >= {size})"):
                    text.line("continue;")
        yield
