"""Sizes of an input that a later operator pins down: a MatMul behind a Flatten counts its features, a Squeeze wants 1.

A *pin* is a tensor of the graph and what its dimensions must be for one image: the size of one axis, or the product of all.
TensorFlow's shape inference tells which sizes of the input give that. They never get smaller with the input, so the
fitting ones are an interval, found by bisection. Where a product is pinned and two sizes are open, height equals width.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from ...ir import ModelError
from ..frozen import GraphDef
from ..nodes import ancestors, make_node
from .cut import import_graph

logger = logging.getLogger(__name__)

LARGEST: Final = 4096
"""Largest size looked for."""

Shape = list[int | None]


@dataclass(frozen=True)
class _Pin:
    """What must hold for one image at a tensor.

    Attributes:
        tensor: name.
        axis: of the tensor, or None for the product of all but the first.
        value: that it must have.
        because: the operator that says so.
        features: whether a MatMul counts them.
    """

    tensor: str
    axis: int | None
    value: int
    because: str
    features: bool = False


@dataclass(frozen=True)
class Fit:
    """Sizes of an input's open axes that fit a pin.

    Attributes:
        axes: the open axes, all of the same size.
        low: smallest size that fits.
        high: largest size that fits.
        because: the operator that says so.
    """

    axes: tuple[int, ...]
    low: int
    high: int
    because: str


def pinned_sizes(graph_def: GraphDef, name: str, shape: Shape) -> list[Fit]:
    """What the graph says about the open axes of placeholder `name`, exact fits first.

    Args:
        graph_def: placeholder shapes are as far known as they are.
        name: of the placeholder.
        shape: its shape, batch included, None for open dimensions.
    """
    open_axes = tuple(axis for axis, dim in enumerate(shape) if axis > 0 and dim is None)
    if not open_axes:
        return []
    graph = import_graph(name, graph_def)
    fits: list[Fit] = []
    for pin in _pins(graph, name):
        groups = [open_axes] if pin.axis is None else [(axis,) for axis in open_axes]
        for axes in groups:
            fit = _search(graph_def, name, shape, axes, pin)
            if fit is not None:
                logger.debug("%s: %s pins axes %s to %d..%d", name, pin.because, axes, fit.low, fit.high)
                fits.append(fit)
    return sorted(fits, key=lambda fit: fit.high - fit.low)


def contradiction(graph: Any, name: str) -> str | None:
    """Why placeholder `name` cannot have the shape that it has; None where nothing speaks against it.

    A Reshape may make several rows of an image, one for each anchor, where no MatMul behind it counts the features.

    Args:
        graph: a `tf.Graph` in which the shape of the placeholder is known.
        name: of the placeholder.
    """
    for pin in _pins(graph, name):
        shape = graph.get_tensor_by_name(pin.tensor).shape
        dims = None if shape.rank is None else shape.as_list()[1:] if pin.axis is None else [shape[pin.axis]]
        if dims is None or None in dims:
            continue
        size = math.prod(dims)
        rows = pin.axis is None and not pin.features and pin.value > 0 and size % pin.value == 0
        if size != pin.value and not rows:
            return f"{pin.because} takes {pin.value} {'numbers of an image' if pin.axis is None else 'columns'}, and gets {size}"
    return None


def _pins(graph: Any, name: str) -> Iterator[_Pin]:
    """Pins behind the placeholder, nearest first."""
    seen: set[str] = set()
    pending = deque([graph.get_operation_by_name(name)])
    while pending:
        operation = pending.popleft()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        because = f"{operation.type} {operation.name!r}"
        if operation.type == "Reshape":
            count = _flattened(operation)
            if count is not None:
                features = operation.outputs[0].shape.rank == 2 and _features(operation.outputs[0]) is not None
                yield _Pin(operation.inputs[0].name, None, count, because, features)
        elif operation.type == "Squeeze" and operation.inputs[0].shape.rank is not None:
            for axis in operation.get_attr("squeeze_dims"):
                if operation.inputs[0].shape[axis] is None:
                    yield _Pin(operation.inputs[0].name, axis, 1, because)
        elif operation.type == "Conv2DBackpropInput":
            yield from _deconvolution(operation, because)
        pending.extend(consumer for output in operation.outputs for consumer in output.consumers())


def _flattened(operation: Any) -> int | None:
    """How many numbers of one image a Reshape takes, where it keeps images apart and says so."""
    before = operation.inputs[0].shape
    target = tf.get_static_value(operation.inputs[1], partial=True)
    if before.rank is None or before.rank < 2 or target is None or len(target) < 2:
        return None
    rest = [None if dim is None or int(dim) < 0 else int(dim) for dim in target[1:]]
    known = [dim for dim in rest if dim is not None]
    per_pixel = len(rest) == 1 and known and before[-1] == known[0]  # [-1, classes]: a row per pixel
    if len(known) == len(rest) and not per_pixel and 0 not in known:
        return math.prod(known)
    return _features(operation.outputs[0]) if len(rest) == 1 and not known else None


def _features(tensor: Any) -> int | None:
    """The features that the MatMul behind a flattened tensor takes."""
    for _ in range(8):
        consumers = tensor.consumers()
        if len(consumers) != 1:
            return None
        operation = consumers[0]
        if operation.type == "MatMul" and operation.inputs[0] is tensor:
            size = operation.inputs[1].shape[1 if operation.get_attr("transpose_b") else 0]
            return None if size is None else int(size)
        if operation.type not in ("Identity", "Relu", "Relu6"):
            return None
        tensor = operation.outputs[0]
    return None


def _deconvolution(operation: Any, because: str) -> Iterator[_Pin]:
    """A transposed convolution of constant target size says how large its operand is."""
    target, kernel = tf.get_static_value(operation.inputs[0], partial=True), operation.inputs[1].shape
    if target is None or len(target) != 4 or operation.get_attr("data_format") != b"NHWC" or kernel.rank != 4:
        return
    padding, dilations = operation.get_attr("padding"), operation.get_attr("dilations")
    for axis in (1, 2):
        stride, size = operation.get_attr("strides")[axis], target[axis]
        if size is None or kernel[axis - 1] is None or padding not in (b"SAME", b"VALID"):
            continue
        reach = (kernel[axis - 1] - 1) * dilations[axis] + 1
        columns = -(-int(size) // stride) if padding == b"SAME" else (int(size) - reach) // stride + 1
        yield _Pin(operation.inputs[2].name, axis, columns, because)


def _search(graph_def: GraphDef, name: str, shape: Shape, axes: tuple[int, ...], pin: _Pin) -> Fit | None:
    """The interval of sizes that fit, by bisection from both sides."""
    measured: dict[int, int | None] = {}
    part = _part(graph_def, pin.tensor)

    def measure(size: int) -> int | None:
        if size not in measured:
            measured[size] = _measure(part, name, [size if axis in axes else dim for axis, dim in enumerate(shape)], pin)
        return measured[size]

    if measure(LARGEST) is None or measure(LARGEST) == measure(LARGEST - 1) == measure(LARGEST // 2):
        return None  # the pin does not depend on these axes alone
    low = _first(lambda size: (measure(size) or 0) >= pin.value)
    high = _first(lambda size: (measure(size) or 0) > pin.value) - 1
    return Fit(axes, low, high, pin.because) if low <= high and measure(low) == pin.value and high < LARGEST else None


def _first(holds: Callable[[int], bool]) -> int:
    low, high = 1, LARGEST + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _part(graph_def: GraphDef, tensor: str) -> GraphDef:
    """What the tensor is computed from, with weights that have a shape but no values, to be imported often."""
    nodes = {node.name: node for node in graph_def.node}
    kept = ancestors(nodes, [tensor], stop=set())
    part = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for name in kept:
        value = nodes[name].attr["value"].tensor if nodes[name].op == "Const" else None
        if value is not None and value.dtype == tf.float32.as_datatype_enum and len(value.tensor_shape.dim) > 0:
            stand_in = make_node(name, "Placeholder", [], dtype=tf.float32)
            stand_in.attr["shape"].shape.CopyFrom(value.tensor_shape)
            part.node.append(stand_in)
        else:
            part.node.append(nodes[name])
    return part


def _measure(part: GraphDef, name: str, shape: Sequence[int | None], pin: _Pin) -> int | None:
    """What a pin finds for one size of the input; None where TensorFlow cannot tell or the input is too small."""
    for node in part.node:
        if node.name == name:
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    try:
        found = import_graph(name, part).get_tensor_by_name(pin.tensor).shape
    except ModelError:
        return None
    if found.rank is None:
        return None
    dims = found.as_list()[1:] if pin.axis is None else [found[pin.axis]]
    return None if None in dims else math.prod(dims)
