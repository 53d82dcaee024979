"""Batch normalization behind a compute layer goes into its weight and bias (B1).

    c = Conv(x, w, b)
    y = BatchNormalization(c, gamma, beta, mean, var)      =>      y = Conv(x, s*w, s*b + (beta - s*mean))

    s = gamma / sqrt(var + epsilon)          per output channel, in float64; the result is stored in the weight's type

Conv and ConvTranspose of any group, Gemm, MatMul of rank 2 (which becomes Gemm).
Batch norms in a row are folded at once, so that the weight is rounded once. A batch norm without a layer in front is for
`affine-into-next` or `affine-to-depthwise`. Where there was one, the layer's node remembers what it was folded from (in memory
only), so that retraining can train it (B2).

Refused: parameters that are not constant, a sum with other readers or that is a graph output.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import (
    SOURCE_KEY,
    FoldedBatchNorm,
    ModelError,
    UnsupportedError,
    attribute,
    constant,
    name_of,
    only_consumer,
    remember_batch_norm,
)
from ..kernels.batch_norm import as_affine
from .affine_chain import Step, chain_from, fold_chain, place_behind
from .layers import Layer
from .rewriting import Float64, is_op, refuse, rewrite_each

logger = logging.getLogger(__name__)

_PARAMETERS = ("gamma", "beta", "mean", "variance")


@dataclass(frozen=True)
class FoldBatchNorm:
    """Folds BatchNormalization into the layer in front."""

    name: ClassVar[str] = "fold-batch-norm"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place.

        Raises:
            UnsupportedError: a node in training mode.
            ModelError: a variance that is not positive with epsilon added.
        """
        return rewrite_each(model.graph, fold_batch_norms, "BatchNormalization")


def fold_batch_norms(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Folds the batch norms that begin at `node` into the layer in front."""
    if batch_norm_affine(node) is None:
        return refuse(logger, node, "its parameters are not constant")
    place = place_behind(node.inputs[0])
    if place is None:
        return refuse(logger, node, "there is no compute layer with constant weights in front")
    if only_consumer(place.layer.output) is not node:
        return refuse(logger, node, f"{place.layer.output.name!r} has other readers or is a graph output")
    if place.axis != 1 or not place.layer.takes_bias:
        return refuse(logger, node, "the layer's output channels are not known to be axis 1")
    chain = chain_from(node, batch_norm_step)
    assert chain is not None
    folded: FoldedBatchNorm | str = f"{len(chain.nodes)} batch norms in a row were folded into it"
    if len(chain.nodes) == 1:
        folded = _record(place.layer, node)
    remember_batch_norm(fold_chain(graph, place.layer, chain), folded)
    return True


def _record(layer: Layer, norm: onnx_ir.Node) -> FoldedBatchNorm:
    """Layer and batch norm as they are."""
    arrays, names = {}, {}
    for name, value in zip(_PARAMETERS, norm.inputs[1:5], strict=True):
        array = constant(value)
        assert array is not None
        arrays[name], names[name] = array, name_of(value)
    if layer.bias is not None:
        names["bias"] = name_of(layer.node.inputs[2])
    source = norm.metadata_props.get(SOURCE_KEY, "").rpartition("/")[2]
    return FoldedBatchNorm(
        layer.weight, layer.bias, **arrays, epsilon=epsilon_of(norm), unbiased=source.startswith("FusedBatchNorm"), names=names
    )


def batch_norm_step(node: onnx_ir.Node) -> Step | None:
    """Reads a BatchNormalization as a step of a chain; None for other nodes."""
    affine = batch_norm_affine(node) if is_op(node, "BatchNormalization") else None
    return None if affine is None else (0, *affine)


def batch_norm_affine(node: onnx_ir.Node) -> tuple[Float64, Float64] | None:
    """A batch norm as `scale * x + shift`: float64, shape [channels]; None where its parameters are not constant.

    Raises:
        UnsupportedError: training mode.
        ModelError: variance + epsilon is not positive somewhere, or a parameter is not finite.
    """
    if attribute(node, "training_mode", 0):
        raise UnsupportedError(
            f"BatchNormalization node {node.name!r} normalizes with batch statistics; an inference graph is expected. "
            "Received: training_mode=1"
        )
    arrays = [constant(value) for value in node.inputs[1:5]]
    parameters = [array for array in arrays if array is not None]
    if len(parameters) != 4:
        return None
    gamma, beta, mean, variance = parameters
    epsilon = epsilon_of(node)
    denominator = variance.astype(np.float64) + epsilon
    if not (denominator > 0).all():
        raise ModelError(
            f"BatchNormalization node {node.name!r}: variance + epsilon must be positive. Received: {float(denominator.min())}"
        )
    return as_affine(gamma, beta, mean, variance, epsilon)


def epsilon_of(node: onnx_ir.Node) -> float:
    """What a batch norm adds to the variance."""
    return float(attribute(node, "epsilon", 1e-5))
