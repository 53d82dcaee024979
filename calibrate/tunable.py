"""Layers whose weights can be adjusted, and what they see at some of the places they look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import Quantizer, attribute, constant, name_of, only_consumer

Array = npt.NDArray[Any]

MOST_WEIGHTS: Final = 1 << 24
"""Layers of more weights are left as they are: a layer takes nine float64 of each, 1.2 GB here (`kernels.reconstruct`)."""


@dataclass(frozen=True)
class TunableLayer:
    """A Conv, Gemm or MatMul with weights of its own.

    Attributes:
        node: the operator.
        weight: its second input, an initializer that nothing else reads.
        bias: what is added per output channel, an initializer that nothing else reads; None where there is none.
        low: what the activation behind clips at, from below; minus infinity where there is none.
        high: from above; infinity where there is none.
    """

    node: onnx_ir.Node
    weight: onnx_ir.Value
    bias: onnx_ir.Value | None
    low: float
    high: float

    @property
    def groups(self) -> int:
        """Groups of channels that do not see each other."""
        return int(attribute(self.node, "group", 1)) if self.node.op_type == "Conv" else 1

    @property
    def places(self) -> int:
        """Spatial axes."""
        return weights_of(self).ndim - 2 if self.node.op_type == "Conv" else 0

    def stacked(self, array: Array) -> Array:
        """Weights in the operator's layout as [G, K, O]."""
        if self.node.op_type == "Conv":
            return array.reshape(self.groups, len(array) // self.groups, -1).swapaxes(1, 2)
        return (array.T if attribute(self.node, "transB", 0) else array)[None]

    def unstacked(self, stacked: Array, shape: Sequence[int]) -> Array:
        """The inverse of `stacked`."""
        if self.node.op_type == "Conv":
            return np.ascontiguousarray(stacked.swapaxes(1, 2)).reshape(shape)
        return np.ascontiguousarray(stacked[0].T if attribute(self.node, "transB", 0) else stacked[0])


def weights_of(layer: TunableLayer) -> Array:
    """The float weights, in the operator's layout."""
    array = constant(layer.weight)
    assert array is not None
    return array


def tunable_layers(model: onnx_ir.Model, quantizers: Mapping[str, Quantizer]) -> dict[onnx_ir.Node, TunableLayer]:
    """All layers that tuning can improve.

    Others keep what calibration gives them: weights that several layers read or that share a threshold, transposed
    convolutions, products of two computed tensors, and more than `MOST_WEIGHTS` weights.

    Args:
        model: lowered float graph.
        quantizers: by value name.
    """
    sizes = Counter(quantizer.group for quantizer in quantizers.values())
    found = {}
    for node in model.graph:
        layer = _layer(node)
        if layer is None or _size(layer.weight) > MOST_WEIGHTS:
            continue
        quantizer = quantizers.get(name_of(layer.weight))
        if quantizer is not None and quantizer.role == "weight" and quantizer.signed and sizes[quantizer.group] == 1:
            found[node] = layer
    return found


def _layer(node: onnx_ir.Node) -> TunableLayer | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain or len(node.inputs) < 2:
        return None
    data, weight = node.inputs[0], node.inputs[1]
    array = constant(weight)
    if data is None or data.is_initializer() or weight is None or array is None or not _own(weight):
        return None
    if node.op_type == "Conv" and attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    if node.op_type != "Conv" and (
        array.ndim != 2 or attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
    ):
        return None
    outputs = array.shape[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else array.shape[1]
    inside = node.inputs[2] if len(node.inputs) > 2 else None
    if inside is not None:
        if _own(inside) and _size(inside) == outputs:
            return TunableLayer(node, weight, inside, *_bounds(node.outputs[0]))
        return TunableLayer(node, weight, None, -math.inf, math.inf)  # what is clipped has an addend that is not known here
    last = _passed_on(node.outputs[0])
    reader = only_consumer(last)
    if reader is not None and reader.op_type == "Add":
        channels_last = array.ndim - 2 if node.op_type == "Conv" else 0
        for value in reader.inputs:
            if value is not None and value is not last and _own(value) and _is_per_channel(value, outputs, channels_last):
                return TunableLayer(node, weight, value, *_bounds(reader.outputs[0]))
    return TunableLayer(node, weight, None, *_bounds(last))


def _own(value: onnx_ir.Value) -> bool:
    return value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output() and not value.is_graph_input()


def _size(value: onnx_ir.Value) -> int:
    array = constant(value)
    return -1 if array is None else int(array.size)


def _is_per_channel(value: onnx_ir.Value, outputs: int, places: int) -> bool:
    """Whether a constant adds one number per output channel, behind which come so many spatial axes."""
    array = constant(value)
    if array is None or array.size != outputs:
        return False
    return outputs == 1 or (array.ndim > places and array.shape[array.ndim - places - 1] == outputs)


def _passed_on(value: onnx_ir.Value) -> onnx_ir.Value:
    """The value behind operators that only pass it on: lowering requantizes a layer without bias in an Identity."""
    while (reader := only_consumer(value)) is not None and reader.op_type == "Identity":
        value = reader.outputs[0]
    return value


def _bounds(value: onnx_ir.Value) -> tuple[float, float]:
    """What the one operator behind clips at."""
    reader = only_consumer(_passed_on(value))
    if reader is not None and reader.op_type == "Relu":
        return 0.0, math.inf
    if reader is not None and reader.op_type == "Clip":
        limits = [constant(limit) for limit in (*reader.inputs, None, None)[1:3]]
        low, high = (None if limit is None else float(limit.reshape(-1)[0]) for limit in limits)
        return -math.inf if low is None else low, math.inf if high is None else high
    return -math.inf, math.inf


def places_of(layer: TunableLayer, data: Array) -> tuple[int, ...]:
    """How many places per image a layer looks at along each axis, for data in the operator's layout."""
    if layer.node.op_type != "Conv":
        return data.shape[1:-1]
    kernel, strides, dilations, pads = _geometry(layer)
    rank = layer.places
    return tuple(
        max(0, (data.shape[2 + i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1)
        for i in range(rank)
    )


def seen_at(layer: TunableLayer, data: Array, images: Array, places: Array) -> Array:
    """What a layer multiplies by its weights at some places.

    Args:
        layer: the layer.
        data: one batch, in the operator's layout.
        images: int [P], rows of the batch.
        places: int [P], flat index of the place within the image.

    Returns:
        float32 [G, P, K].
    """
    shape = places_of(layer, data)
    where = np.unravel_index(places, shape) if shape else ()
    if layer.node.op_type != "Conv":
        return np.asarray(data[(images, *where)], np.float32)[None]
    kernel, strides, dilations, pads = _geometry(layer)
    rank = layer.places
    padded = np.pad(data, ((0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))))
    index: list[Any] = [images.reshape(-1, *([1] * rank)), slice(None)]
    for i in range(rank):
        taps = where[i][:, None] * strides[i] + np.arange(kernel[i]) * dilations[i]
        index.append(taps.reshape(len(images), *(kernel[i] if j == i else 1 for j in range(rank))))
    patches = padded[tuple(index)]  # [P, *kernel, C]: the indices' axes come first
    if rank:
        patches = np.moveaxis(patches, -1, 1)
    return np.ascontiguousarray(patches.reshape(len(images), layer.groups, -1).swapaxes(0, 1), np.float32)


def _geometry(layer: TunableLayer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    rank = layer.places
    ones = (1,) * rank
    return (
        weights_of(layer).shape[2:],
        attribute(layer.node, "strides", None) or ones,
        attribute(layer.node, "dilations", None) or ones,
        attribute(layer.node, "pads", None) or (0,) * (2 * rank),
    )
