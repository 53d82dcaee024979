"""A per-channel scale without a layer to go into becomes a layer: a depthwise 1x1 Conv.

    a = Relu(x)                                              a = Relu(x)
    y = BatchNormalization(a, gamma, beta, mean, var)   =>   y = Conv<group = C>(a, w[C,1,1,1], b[C])

    w = gamma / sqrt(var + epsilon),  b = beta - w * mean             float64, stored float32

The same for Mul or Div by a scalar or one number per channel, together with the constant terms around it:
`(x + a) * g` gives w = g, b = a * g. So Keras' Rescaling at the input and batch norms behind an activation get quantized
like any other layer. Batch norms in a row, small operators in a row, and batch norms behind terms become one layer. A constant
term *alone* stays an Add.

    y = BatchNormalization(x, ...)      x[n,C]          =>   y = Reshape(Conv<group = C>(Reshape(x, {-1,C,1,1}), w, b), {-1,C})

Vectors, and sequences [n,C,L], between two Reshapes (Unsqueeze and Squeeze). Zero padding in front goes into the new Conv:
the border is the batch norm of zero, which is the bias.

Left to functions (L12): scalar factors inside or behind a curve, as in `x * Sigmoid(1.7 * x)`.

Refused: tensors without a fixed channel dimension in axis 1, constants that are not per channel, what stands behind a Softmax
(it stays float, L8). Only float32; the layout must have been settled before (pass `sink-transposes`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, add_node, function_regions, name_of, only_consumer, remember_batch_norm, static_shape
from .affine_chain import Chain, Step, chain_from, data_position, place_behind, small_step
from .flow import tail_of
from .fold_batch_norm import batch_norm_step, fold_batch_norms
from .fold_pad import fold_zero_pad
from .rewriting import drop, inherited, is_op, refuse, set_constant, stored, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AffineToDepthwise:
    """Writes lone batch norms and constant factors as depthwise 1x1 convolutions.

    Attributes:
        batch_norms: False leaves batch norms alone, for a model that is to be retrained with them (B0).
    """

    name: ClassVar[str] = "affine-to-depthwise"
    batch_norms: bool = True

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place.

        Raises:
            UnsupportedError: a BatchNormalization in training mode.
        """
        modified = False
        tail = tail_of(model.graph)
        terms: set[onnx_ir.Node] = {node for region in function_regions(model.graph) for node in region.nodes}
        for node in list(model.graph):
            if node.graph is not model.graph or node in tail:
                continue
            if is_op(node, "BatchNormalization"):
                modified |= self.batch_norms and _batch_norm(model.graph, node)
            elif is_op(node, "Mul", "Div", "Add", "Sub"):
                modified |= node not in terms and _rewrite(model.graph, node, small_step, terms, self.batch_norms)
        return modified


def _batch_norm(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    place = place_behind(node.inputs[0])
    if place is not None and only_consumer(place.layer.output) is node:  # a layer made here, from a factor
        return fold_batch_norms(graph, node)
    return _rewrite(graph, node, lambda *_: batch_norm_step, set())


def _rewrite(
    graph: onnx_ir.Graph,
    node: onnx_ir.Node,
    steps: Callable[[int, int, int], Callable[[onnx_ir.Node], Step | None]],
    terms: set[onnx_ir.Node],
    batch_norms: bool = False,
) -> bool:
    """`terms` takes in the chains of nothing but terms: none of their nodes needs to be asked again, nor those of functions."""
    source = node.inputs[data_position(node)]
    shape = None if source is None else static_shape(source)
    if source is None or source.dtype != onnx_ir.DataType.FLOAT or shape is None or len(shape) not in (2, 3, 4) or shape[1] is None:
        return refuse(logger, node, "its input is not [n, C], [n, C, l] or [n, C, h, w] with C fixed")
    chain = chain_from(node, steps(len(shape), 1, shape[1]))
    if chain is None:
        return refuse(logger, node, "its constants are not one number per channel")
    if _is_term(chain) and batch_norms:
        chain = _with_batch_norms(chain)
    if _is_term(chain):
        terms.update(chain.nodes)
        return refuse(logger, node, "a term alone stays an Add")
    _write(graph, chain, source, shape)
    return True


def _is_term(chain: Chain) -> bool:
    return chain.scale_like is None and bool((chain.scale == 1).all())


def _with_batch_norms(terms: Chain) -> Chain:
    """Terms and the batch norms behind them as one: `s * (x + a) + t`. Factors are a layer where batch norms are kept (B0)."""
    last = terms.nodes[-1]
    reader = only_consumer(last.outputs[0])
    norms = None if reader is None or reader.inputs[0] is not last.outputs[0] else chain_from(reader, batch_norm_step)
    if norms is None:
        return terms
    return Chain((*terms.nodes, *norms.nodes), norms.scale * terms.scale, norms.scale * terms.shift + norms.shift)


def _write(graph: onnx_ir.Graph, chain: Chain, source: onnx_ir.Value, shape: tuple[int | None, ...]) -> None:
    """Puts the Conv in the place of the chain, under the names of its last node."""
    channels = len(chain.scale)
    scale_like, shift_like = chain.scale_like, chain.shift_like
    normalizes = any(is_op(member, "BatchNormalization") for member in chain.nodes)
    node = chain.collapse()
    result, metadata = node.outputs[0], inherited(node)
    label = name_of(result)
    attributes: dict[str, int | list[int]] = {
        "group": channels,
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
    }
    image = source if len(shape) == 4 else _moved(graph, node, source, f"{label}__image", shape, forth=True)
    conv = onnx_ir.node("Conv", [image, scale_like], attributes, name=node.name, metadata_props=metadata)
    value = conv.outputs[0]
    value.name = f"{label}__conv"
    graph.insert_before(node, conv)
    if normalizes:
        remember_batch_norm(conv, "it is a batch norm without a layer in front")
    if len(shape) < 4:
        value.shape, value.type = image.shape, source.type
        value = _moved(graph, node, value, f"{label}__back", shape, forth=False)
    take_over(result, value)
    drop(node)
    set_constant(graph, conv, 1, stored(chain.scale, np.float32).reshape(channels, 1, 1, 1), scale_like, fallback=f"{label}__scale")
    if chain.shift.any():
        set_constant(graph, conv, 2, stored(chain.shift, np.float32), shift_like, fallback=f"{label}__bias")
    pad = source.producer() if len(shape) == 4 else None
    while pad is not None and is_op(pad, "Pad") and fold_zero_pad(graph, pad):
        pad = conv.inputs[0].producer() if conv.inputs[0] is not None else None


def _moved(
    graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value, name: str, shape: tuple[int | None, ...], *, forth: bool
) -> onnx_ir.Value:
    """A vector or sequence of that shape as an image, or back."""
    if len(shape) == 3:
        op_type, operand = ("Unsqueeze" if forth else "Squeeze"), [2]
    else:
        op_type, operand = "Reshape", [-1, *(dim for dim in shape[1:] if dim is not None), *([1, 1] if forth else [])]
    constant = add_initializer(graph, f"{name}__shape", np.asarray(operand, np.int64))
    moved = add_node(graph, op_type, [value, constant], name, before=node, like=value, metadata=inherited(node))
    if value.shape is not None:
        dims = list(value.shape)
        wide, narrow = [*dims[:2], *[1] * (4 - len(dims)), *dims[2:]], [*dims[:2], *dims[3:]][: len(shape)]
        moved.shape = onnx_ir.Shape(wide if forth else narrow)
    return moved
