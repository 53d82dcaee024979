"""Random small networks for the fuzzer: every operator of the road, odd shapes, ties by construction, extreme scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]

RECTIFIERS = ("none", "relu", "relu6", "leaky")
"""What may follow a sum."""


@dataclass
class Network:
    """A float model, an input that lies on half steps of the input grid, and how thresholds are perturbed."""

    model: onnx_ir.Model
    inputs: dict[str, Array]
    layer_bits: int
    weight_bits: int
    activation_bits: int
    relu_bits: int
    unsigned_input: bool
    offsets: list[int]
    method: str
    parallel: bool

    def __repr__(self) -> str:
        graph = onnx.printer.to_text(onnx_ir.to_proto(self.model).graph)
        bits = f"{self.layer_bits}/{self.weight_bits}/{self.activation_bits}/{self.relu_bits}"
        how = f"{self.method}, {'parallel' if self.parallel else 'sequential'}"
        return f"bits {bits}, unsigned {self.unsigned_input}, offsets {self.offsets}, {how}\n{graph}"


@dataclass
class _Builder:
    rng: np.random.Generator
    scale: int
    large_biases: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    values: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    """Name and (channels, height, width) of every image so far."""

    def constant(self, array: Array) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int) -> str:
        """Integers of up to 8 bits on a power-of-two grid: products meet half steps of the next grid all the time."""
        grid = int(self.rng.integers(-9, -3))
        top = int(self.rng.choice([1, 7, 40, 128]))
        integers = self.rng.integers(-top, top + 1, shape)
        return self.constant(np.ldexp(integers.astype(np.float32), grid).astype(np.float32))

    def bias(self, channels: int) -> str:
        """Large ones make the sums of their layer inexact in float32: it must be named, and what follows stay exact."""
        values = self.rng.integers(-300, 300, channels).astype(np.float32)
        if self.large_biases:
            values *= np.float32(2**11)
        return self.constant(np.ldexp(values, self.scale - int(self.rng.integers(4, 12))).astype(np.float32))

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def leaky(self, value: str) -> str:
        """One of the ways to write it; slopes of few and of many bits, beyond 1, below 0, at the edges of 10 bits (L3)."""
        slope = float(self.rng.choice([0.1, 0.2, 0.3, 0.25, 0.01, 0.5, 0.999, 1.0, 1.5, 3.3, -0.25, -1.0, 0.0, 2.0**-14]))
        if not -1 <= slope <= 1 or self.rng.integers(2):
            return self.node("LeakyRelu", [value], alpha=slope)
        scaled = self.node("Mul", [self.constant(np.full((1, 1, 1, 1), slope, np.float32)), value])
        return self.node("Max", [scaled, value])

    def rectify(self, value: str, kind: str) -> str:
        if kind == "leaky":
            return self.leaky(value)
        if kind == "relu":
            return self.node("Relu", [value])
        if kind == "relu6":
            limit = np.float32(np.ldexp(6.0, self.scale))
            return self.node("Clip", [value, self.constant(np.float32(0.0)), self.constant(limit)])
        if kind == "clip":
            bounds = (bound * np.float32(2.0**self.scale) for bound in (np.float32(-0.3), np.float32(0.7)))
            return self.node("Clip", [value, *(self.constant(np.asarray(bound)) for bound in bounds)])
        return value


def _out(size: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Networks of 1 to 7 steps from an NHWC input to images or logits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([*[0] * 10, 3, -7, 20, -20, 60, -60, 94, -94]))
    channels, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    builder = _Builder(rng, scale, large_biases=draw(st.sampled_from([False, False, False, True])))
    unsigned = draw(st.booleans())
    start = builder.node("Transpose", ["x"], perm=[0, 3, 1, 2])
    builder.values.append((start, (channels, height, width)))
    for _ in range(draw(st.integers(1, 7))):
        _step(draw, builder)
    outputs = [_end(draw, builder)]
    if len(builder.values) > 1 and draw(st.sampled_from([False, False, True])):  # what others read may be an output, too
        outputs += [value for value in [draw(st.sampled_from(builder.values[1:]))] if value[0] != outputs[0][0]]
    graph = helper.make_graph(
        builder.nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", height, width, channels])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sizes]) for name, sizes in outputs],
        builder.constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    low = 0 if unsigned else -300
    halves = rng.integers(low, 300, (draw(st.integers(1, 3)), height, width, channels))
    inputs = {"x": np.ldexp(halves.astype(np.float32), scale - 7).astype(np.float32)}
    return Network(
        model=onnx_ir.from_proto(proto),
        inputs=inputs,
        layer_bits=draw(st.sampled_from([16, 32])),
        weight_bits=draw(st.sampled_from([8, 8, 4, 5])),
        activation_bits=draw(st.sampled_from([8, 8, 8, 6])),
        relu_bits=draw(st.sampled_from([8, 8, 8, 5])),
        unsigned_input=unsigned,
        offsets=draw(st.lists(st.sampled_from([0, 0, 0, -1, -2, 1, 3]), min_size=1, max_size=6)),
        method=draw(st.sampled_from(["max", "max", "mse", "klj"])),
        parallel=draw(st.booleans()),
    )


def _step(draw: st.DrawFn, builder: _Builder) -> None:
    """One more operator on a value drawn from all so far: forks, residuals and several readers come about by themselves."""
    value, (channels, height, width) = builder.values[-1 if draw(st.booleans()) else draw(st.integers(0, len(builder.values) - 1))]
    kind = draw(
        st.sampled_from(
            [
                "conv",
                "conv",
                "depthwise",
                "deconv",
                "add",
                "add",
                "concat",
                "max",
                "average",
                "relu",
                "relu6",
                "clip",
                "constant",
                "pad",
                "square",
                "leaky",
                "blocks",
                "slice",
                "gather",
                "split",
                "resize",
                "edges",
                "tile",
                "pairs",
                "pairs",
                "map",
                "slopes",
                "curve",
            ]
        )
    )
    makers = {
        "blocks": _blocks,
        "deconv": _transposed,
        "edges": _edges,
        "gather": _gather,
        "map": _map,
        "pairs": _pair,
        "resize": _resize,
        "slice": _slice,
        "slopes": _slopes,
        "split": _split,
        "tile": _tile,
    }
    if kind in ("conv", "depthwise"):
        _convolution(draw, builder, value, (channels, height, width), depthwise=kind == "depthwise")
    elif kind in ("add", "concat"):
        partners = [
            entry for entry in builder.values if entry[1][1:] == (height, width) and (kind == "concat" or entry[1][0] == channels)
        ]
        other, (more, _, _) = partners[draw(st.integers(0, len(partners) - 1))]
        if kind == "add":
            total = builder.rectify(builder.node("Add", [value, other]), draw(st.sampled_from(RECTIFIERS)))
            builder.values.append((total, (channels, height, width)))
        else:
            _concat(draw, builder, (value, other), (channels, more, height, width))
    elif kind == "constant":
        _constant(draw, builder, value, (channels, height, width))
    elif kind in ("max", "average"):
        _pool(draw, builder, value, (channels, height, width), kind)
    elif kind == "pad":
        pads = draw(st.tuples(*[st.integers(0, 1)] * 4))
        amounts = builder.constant(np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64))
        shape = (channels, height + pads[0] + pads[2], width + pads[1] + pads[3])
        builder.values.append((builder.node("Pad", [value, amounts]), shape))
    elif kind == "square":
        turned = builder.node("Transpose", [value], perm=[0, 1, 3, 2])
        builder.values.append((turned, (channels, width, height)))
    elif kind in ("leaky", "curve"):
        made = builder.leaky(value) if kind == "leaky" else _curve(draw, builder, value)
        builder.values.append((made, (channels, height, width)))
    elif kind in makers:
        makers[kind](draw, builder, value, (channels, height, width))
    else:
        builder.values.append((builder.rectify(value, kind), (channels, height, width)))


def _pair(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Two tensors element by element, of one shape or broadcast: products, differences, maxima, minima; what rectifies follows."""
    channels, height, width = shape
    fitting = [
        entry for entry in builder.values if all(length in (1, whole) for length, whole in zip(entry[1], shape, strict=True))
    ]
    other = fitting[draw(st.integers(0, len(fitting) - 1))][0]
    products = ["Mul"] * 3 if abs(builder.scale) <= 20 else []  # of the others float32 itself overflows
    op = draw(st.sampled_from([*products, "Sub", "Max", "Min"]))
    inputs = [value, other] if draw(st.booleans()) else [other, value]
    made = builder.rectify(builder.node(op, inputs), draw(st.sampled_from(RECTIFIERS)))
    builder.values.append((made, (channels, height, width)))


def _map(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """A tensor and a constant of its shape, or with one number per position, channel or row, or one altogether."""
    channels, height, width = shape
    forms = [shape, (1, height, width), (channels, 1, 1), (1, height, 1), (1, 1, 1)]
    constant = builder.weights(1, *draw(st.sampled_from(forms)))
    op = draw(st.sampled_from(["Mul", "Add", "Sub", "Max", "Min"]))
    inputs = [value, constant] if draw(st.booleans()) else [constant, value]
    made = builder.rectify(builder.node(op, inputs), draw(st.sampled_from(RECTIFIERS)))
    builder.values.append((made, (channels, height, width)))


def _slopes(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """A parametric relu with one slope per channel or per element, on either side of 1 (L3)."""
    form = shape if draw(st.booleans()) else (shape[0], 1, 1)
    low, high = draw(st.sampled_from([(-0.5, 1.0), (1.0, 3.0), (-0.5, 2.0)]))
    slopes = builder.constant(builder.rng.uniform(low, high, form).astype(np.float32))
    builder.values.append((builder.node("PRelu", [value, slopes]), shape))


def _curve(draw: st.DrawFn, builder: _Builder, value: str) -> str:
    """A function of one number that becomes a table (L12): one operator, or several that read the value more than once."""
    kind = draw(st.sampled_from(["Sigmoid", "Tanh", "Softsign", "Abs", "Neg", "Elu", "Softplus", "swish", "hard swish", "shrink"]))
    if kind == "swish":
        return builder.node("Mul", [value, builder.node("Sigmoid", [value])])
    if kind == "hard swish":
        three, zero, six = (builder.constant(np.float32(np.ldexp(number, builder.scale))) for number in (3.0, 0.0, 6.0))
        gate = builder.node("Clip", [builder.node("Add", [value, three]), zero, six])
        return builder.node(
            "Mul", [value, builder.node("Mul", [gate, builder.constant(np.float32(np.ldexp(1 / 6, -builder.scale)))])]
        )
    if kind == "shrink":
        return builder.node("Sub", [value, builder.node("Tanh", [value])])
    return builder.node(kind, [value])


def _gather(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Channels in any order, some of them twice, counted from either end."""
    channels, height, width = shape
    positions = draw(st.lists(st.integers(-channels, channels - 1), min_size=1, max_size=4))
    picked = builder.node("Gather", [value, builder.constant(np.array(positions, np.int64))], axis=1)
    builder.values.append((picked, (len(positions), height, width)))


def _slice(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Every n-th element of one or two axes, forwards or backwards, with starts and ends from either side and far beyond."""
    axes = draw(st.permutations([1, 2, 3]))[: draw(st.integers(1, 2))]
    starts, ends, steps, lengths = [], [], [], list(shape)
    for axis in axes:
        start, end, step = draw(
            st.tuples(
                st.integers(-9, 8), st.sampled_from([-(2**63), -3, -1, 1, 2, 5, 2**63 - 1]), st.sampled_from([1, 1, 2, -1, -2])
            )
        )
        length = len(range(shape[axis - 1])[start:end:step])
        if length == 0:
            start, end, step, length = 0, 2**63 - 1, 1, shape[axis - 1]
        starts.append(start), ends.append(end), steps.append(step)
        lengths[axis - 1] = length
    counted = [axis - 4 if draw(st.booleans()) else axis for axis in axes]
    inputs = [builder.constant(np.array(numbers, np.int64)) for numbers in (starts, ends, counted, steps)]
    builder.values.append((builder.node("Slice", [value, *inputs]), (lengths[0], lengths[1], lengths[2])))


def _split(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Two parts along any axis, both of which others may read."""
    axis = draw(st.integers(1, 3))
    length = shape[axis - 1]
    if length < 2:
        return
    first = draw(st.integers(1, length - 1))
    name = f"split{len(builder.nodes)}"
    sizes = builder.constant(np.array([first, length - first], np.int64))
    builder.nodes.append(helper.make_node("Split", [value, sizes], [f"{name}a", f"{name}b"], name=f"n_{name}", axis=axis))
    for part, size in (("a", first), ("b", length - first)):
        channels, height, width = (size if index == axis - 1 else other for index, other in enumerate(shape))
        builder.values.append((f"{name}{part}", (channels, height, width)))


def _resize(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """To the nearest element at any size; interpolated by whole factors."""
    channels, height, width = shape
    if max(height, width) > 6:
        return
    mode, coordinates = draw(st.sampled_from(["nearest", "nearest", "linear"])), draw(st.sampled_from(["asymmetric", "half_pixel"]))
    if mode == "nearest":
        sizes = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    else:
        sizes = (height * draw(st.integers(1, 3)), width * draw(st.integers(1, 2)))
    scales = np.array([1, 1, *(np.float32(new) / np.float32(old) for new, old in zip(sizes, shape[1:], strict=True))], np.float32)
    if any(int(old * float(scale)) != new for old, scale, new in zip(shape[1:], scales[2:], sizes, strict=True)):
        return  # the scale, rounded, does not reach the size
    rounding = draw(st.sampled_from(["floor", "round_prefer_floor", "ceil"]))
    made = builder.node(
        "Resize",
        [value, "", builder.constant(scales)],
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    builder.values.append((made, (channels, *sizes)))


def _edges(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Borders of the image's own elements, or of a number."""
    channels, height, width = shape
    mode = draw(st.sampled_from(["edge", "reflect", "constant"]))
    most = [2 if mode != "reflect" else min(2, length - 1) for length in (height, width)]
    pads = [draw(st.integers(0, longest)) for longest in most * 2]
    inputs = [value, builder.constant(np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64))]
    if mode == "constant":
        number = draw(st.sampled_from([-1.0, 0.3, 0.5, 2.0, 1.7]))
        inputs.append(builder.constant(np.float32(np.ldexp(number, builder.scale))))
    padded = builder.node("Pad", inputs, mode=mode)
    builder.values.append((padded, (channels, height + pads[0] + pads[2], width + pads[1] + pads[3])))


def _tile(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """The image twice along one axis."""
    axis = draw(st.integers(1, 3))
    if max(shape) > 6:
        return
    repeats = [2 if index == axis else 1 for index in range(4)]
    channels, height, width = (length * times for length, times in zip(shape, repeats[1:], strict=True))
    builder.values.append((builder.node("Tile", [value, builder.constant(np.array(repeats, np.int64))]), (channels, height, width)))


def _blocks(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Blocks of an image become channels, or channels blocks, where the sizes allow it."""
    channels, height, width = shape
    if channels % 4 == 0:
        mode = draw(st.sampled_from(["DCR", "CRD"]))
        made = builder.node("DepthToSpace", [value], blocksize=2, mode=mode)
        builder.values.append((made, (channels // 4, height * 2, width * 2)))
    elif height % 2 == 0 and width % 2 == 0 and channels <= 3:
        builder.values.append((builder.node("SpaceToDepth", [value], blocksize=2), (channels * 4, height // 2, width // 2)))


def _concat(draw: st.DrawFn, builder: _Builder, pair: tuple[str, str], sizes: tuple[int, int, int, int]) -> None:
    """Along channels, or rows or columns where the two have as many channels."""
    channels, more, height, width = sizes
    axis = draw(st.sampled_from([1, 1, 2, 3])) if channels == more else 1
    shape = {1: (channels + more, height, width), 2: (channels, 2 * height, width), 3: (channels, height, 2 * width)}[axis]
    if max(shape) <= 12:
        builder.values.append((builder.node("Concat", list(pair), axis=axis), shape))


def _constant(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Plus an image of its own, a number per channel or one number."""
    sizes = draw(st.sampled_from([(1, *shape), (1, shape[0], 1, 1), ()]))
    numbers = np.ldexp(builder.rng.integers(-99, 100, sizes).astype(np.float32), builder.scale - 6).astype(np.float32)
    operands = [value, builder.constant(np.asarray(numbers))]
    total = builder.node("Add", operands[:: draw(st.sampled_from([1, -1]))])
    builder.values.append((builder.rectify(total, draw(st.sampled_from(RECTIFIERS))), shape))


def _convolution(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int], *, depthwise: bool) -> None:
    channels, height, width = shape
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = list(draw(st.tuples(*[st.integers(0, 1)] * 4)))
    strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2)]))
    out = (
        _out(height, kernel[0], strides[0], dilations[0], pads[0] + pads[2]),
        _out(width, kernel[1], strides[1], dilations[1], pads[1] + pads[3]),
    )
    if min(out) < 1:
        return
    group = channels if depthwise else 2 if channels % 2 == 0 and draw(st.booleans()) else 1
    produced = group * draw(st.integers(1, 2)) if group > 1 else draw(st.integers(1, 5))
    inputs = [value, builder.weights(produced, channels // group, *kernel)]
    if draw(st.booleans()):
        inputs.append(builder.bias(produced))
    made = builder.node(
        "Conv", inputs, kernel_shape=list(kernel), pads=pads, strides=list(strides), dilations=list(dilations), group=group
    )
    made = builder.rectify(made, draw(st.sampled_from(RECTIFIERS)))
    builder.values.append((made, (produced, *out)))


def _transposed(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int]) -> None:
    """Strides above and below the kernel, cut at any end, longer by output_padding, in groups."""
    channels, height, width = shape
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides = draw(pairs), draw(pairs)
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 2)]))
    beyond = [draw(st.integers(0, max(stride, dilation) - 1)) for stride, dilation in zip(strides, dilations, strict=True)]
    pads = list(draw(st.tuples(*[st.integers(0, 1)] * 4)))
    sizes = zip((height, width), kernel, strides, dilations, beyond, pads[:2], pads[2:], strict=True)
    out = [(size - 1) * s + (k - 1) * d + 1 + more - begin - end for size, k, s, d, more, begin, end in sizes]
    if min(out) < 1 or max(out) > 12:
        return
    group = draw(st.sampled_from([1, channels, 2 if channels % 2 == 0 else 1]))
    each = draw(st.integers(1, 2 if group > 1 else 4))
    inputs = [value, builder.weights(channels, each, *kernel)]
    if draw(st.booleans()):
        inputs.append(builder.bias(group * each))
    options = {"kernel_shape": list(kernel), "strides": list(strides), "dilations": list(dilations), "pads": pads, "group": group}
    made = builder.node("ConvTranspose", inputs, output_padding=beyond, **options)
    made = builder.rectify(made, draw(st.sampled_from(RECTIFIERS)))
    builder.values.append((made, (group * each, out[0], out[1])))


def _pool(draw: st.DrawFn, builder: _Builder, value: str, shape: tuple[int, int, int], kind: str) -> None:
    channels, height, width = shape
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = [draw(st.integers(0, size - 1)) if size > 1 else 0 for size in (kernel * 2)]
    if kind == "average" and draw(st.booleans()):
        pads = [0, 0, 0, 0]
    options = {"count_include_pad": draw(st.integers(0, 1))} if kind == "average" else {}
    out = (
        _out(height, kernel[0], strides[0], 1, pads[0] + pads[2]),
        _out(width, kernel[1], strides[1], 1, pads[1] + pads[3]),
    )
    if min(out) < 1:
        return
    op = "MaxPool" if kind == "max" else "AveragePool"
    made = builder.node(op, [value], kernel_shape=list(kernel), strides=list(strides), pads=pads, **options)
    builder.values.append((made, (channels, *out)))


def _end(draw: st.DrawFn, builder: _Builder) -> tuple[str, tuple[int, ...]]:
    value, (channels, height, width) = builder.values[-1]
    kind = draw(st.sampled_from(["image", "image", "dense", "global", "softmax"]))
    if not any(node.op_type == "Conv" for node in builder.nodes) and kind == "image":
        kind = "dense"  # else there may be nothing to quantize
    if kind == "image":
        if value.startswith("transpose0"):
            return builder.node("Relu", [value]), (channels, height, width)
        return value, (channels, height, width)
    if kind == "global":
        value, height, width = builder.node("GlobalAveragePool", [value]), 1, 1
    flat = builder.node("Reshape", [value, builder.constant(np.array([-1, channels * height * width], np.int64))])
    inputs = [flat, builder.weights(channels * height * width, 3)]
    if draw(st.booleans()):
        inputs.append(builder.bias(3))
    logits = builder.node("Gemm" if len(inputs) == 3 else "MatMul", inputs)
    return (builder.node("Softmax", [logits]) if kind == "softmax" else logits), (3,)
