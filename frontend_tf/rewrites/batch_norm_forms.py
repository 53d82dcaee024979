"""The ways in which frameworks write an inference batch norm as small operators, read off a GraphDef.

    S = rsqrt(variance + epsilon) * gamma                       also gamma / sqrt(.), reciprocal(sqrt(.)), pow(., -0.5);
                                                                without gamma where it is 1 (scale=False)
    y = x * S + (beta - mean * S)                               `tf.nn.batch_normalization`, slim, Keras
    y = x * S + (-mean) * S,   x * S - mean * S                 center=False
    y = x * S - (mean * S - beta),   (x * S - mean * S) + beta
    y = (x - mean) * S + beta                                   as papers have it; `/ sqrt(variance + epsilon)` as well,
    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta    gamma in front or behind, beta by BiasAdd or not at all
    y = BatchNormWithGlobalNormalization(x, ...)                TensorFlow before version 0.8

Operands of sums and products come in either order; `mean`, `variance`, `gamma` and `beta` are constants, seen through
Identity and Reshape. Everything is read structurally: variance and mean come out as they are in the file, so that the fold
can be computed in float64 (B1) and retraining finds its parameters (B0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..nodes import Nodes, array_of, data_inputs, node_of, tensor_name

Array = npt.NDArray[Any]
_ADD: Final = ("AddV2", "Add")
_DIV: Final = ("RealDiv", "Div")


@dataclass(frozen=True)
class BatchNorm:
    """What a match has found: the tensor normalized, and the constants in whatever shape they broadcast from.

    Attributes:
        x: the tensor normalized.
        mean: moving mean.
        variance: moving variance, epsilon not added.
        gamma: None where there is none: ones.
        beta: None where there is none: zeros.
        epsilon: added to the variance.
    """

    x: str
    mean: Array
    variance: Array
    gamma: Array | None
    beta: Array | None
    epsilon: float


@dataclass(frozen=True)
class _Scale:
    """`gamma / sqrt(variance + epsilon)`."""

    variance: Array
    epsilon: float
    gamma: Array | None = None


def match(nodes: Nodes, node: Any) -> BatchNorm | None:
    """Reads `node` as the last operator of a batch norm, or None.

    The inner operators of a batch norm may match too, as one without beta or gamma: what they compute is the same.
    """
    if node.op == "BatchNormWithGlobalNormalization":
        return _global_normalization(nodes, node)
    for found in _distributed(nodes, node):
        return found
    core = _centred_first(nodes, node)
    if core is not None:
        return core
    for value, other in _operands(node, (*_ADD, "BiasAdd")):
        beta, inner = constant_behind(nodes, other), nodes[node_of(value)]
        core = None if beta is None else _centred_first(nodes, inner) or _distributed_without_beta(nodes, inner)
        if core is not None:
            return replace(core, beta=beta)
    return None


def _global_normalization(nodes: Nodes, node: Any) -> BatchNorm | None:
    """(x, mean, variance, beta, gamma)."""
    x, *parameters = data_inputs(node)
    mean, variance, beta, gamma = (constant_behind(nodes, tensor) for tensor in parameters)
    if mean is None or variance is None or beta is None or gamma is None or not _is_float32(node):
        return None
    scaled = node.attr["scale_after_normalization"].b
    return BatchNorm(x, mean, variance, gamma if scaled else None, beta, node.attr["variance_epsilon"].f)


def _distributed(nodes: Nodes, node: Any) -> Iterator[BatchNorm]:
    """`x * S + T` and `x * S - T'`, where the other term holds S too."""
    for product, term in _operands(node, _ADD):
        for x, tensor, scale in _scaled(nodes, product):
            shift = _shift(nodes, term, tensor)
            if shift is not None:
                yield BatchNorm(x, shift[0], scale.variance, scale.gamma, shift[1], scale.epsilon)
    found = _distributed_without_beta(nodes, node)
    if found is not None:
        yield found
    for product, term in _operands(node, ("Sub",))[:1]:
        inner = nodes[node_of(term)]
        for minuend, beta_tensor in _operands(inner, ("Sub",))[:1]:
            beta = constant_behind(nodes, beta_tensor)
            for x, tensor, scale in _scaled(nodes, product):
                mean = _constant_factor(nodes, minuend, tensor)
                if mean is not None and beta is not None:
                    yield BatchNorm(x, mean, scale.variance, scale.gamma, beta, scale.epsilon)


def _distributed_without_beta(nodes: Nodes, node: Any) -> BatchNorm | None:
    """`x * S - mean * S`."""
    for product, term in _operands(node, ("Sub",))[:1]:
        for x, tensor, scale in _scaled(nodes, product):
            mean = _constant_factor(nodes, term, tensor)
            if mean is not None:
                return BatchNorm(x, mean, scale.variance, scale.gamma, None, scale.epsilon)
    return None


def _centred_first(nodes: Nodes, node: Any) -> BatchNorm | None:
    """`(x - mean) * S` and its kin, without beta."""
    for inner, other in _operands(node, ("Mul",)):
        gamma = constant_behind(nodes, other)
        found = None if gamma is None else _normalized(nodes, nodes[node_of(inner)])
        if found is not None and found.gamma is None:
            return replace(found, gamma=gamma)
    return _normalized(nodes, node)


def _normalized(nodes: Nodes, node: Any) -> BatchNorm | None:
    """`centred * S` or `centred / sqrt(variance + epsilon)`."""
    pairs = [(inner, _scale(nodes, other)) for inner, other in _operands(node, ("Mul",))]
    pairs += [(inner, _deviation(nodes, other)) for inner, other in _operands(node, _DIV)[:1]]
    for inner, scale in pairs:
        centred = None if scale is None else _centred(nodes, nodes[node_of(inner)])
        if scale is None or centred is None:
            continue
        x, mean, gamma = centred
        if gamma is None or scale.gamma is None:
            return BatchNorm(x, mean, scale.variance, scale.gamma if gamma is None else gamma, None, scale.epsilon)
    return None


def _centred(nodes: Nodes, node: Any) -> tuple[str, Array, Array | None] | None:
    """`x - mean`, possibly times gamma, as (x, mean, gamma)."""
    for x, other in _operands(node, ("Sub",))[:1]:
        mean = constant_behind(nodes, other)
        return None if mean is None else (x, mean, None)
    for inner, other in _operands(node, ("Mul",)):
        gamma = constant_behind(nodes, other)
        for x, subtracted in _operands(nodes[node_of(inner)], ("Sub",))[:1] if gamma is not None else ():
            mean = constant_behind(nodes, subtracted)
            if mean is not None:
                return x, mean, gamma
    return None


def _scaled(nodes: Nodes, product: str) -> list[tuple[str, str, _Scale]]:
    """`x * S` as (x, tensor of S, what S is)."""
    found = [(x, tensor, _scale(nodes, tensor)) for x, tensor in _operands(nodes[node_of(product)], ("Mul",))]
    return [(x, tensor, scale) for x, tensor, scale in found if scale is not None]


def _scale(nodes: Nodes, tensor: str) -> _Scale | None:
    """`1 / sqrt(variance + epsilon)`, possibly times gamma."""
    node = nodes[node_of(tensor)]
    inverse = _inverse_deviation(nodes, node)
    if inverse is not None:
        return inverse
    for root, other in _operands(node, ("Mul",)):
        gamma, inner = constant_behind(nodes, other), _inverse_deviation(nodes, nodes[node_of(root)])
        if gamma is not None and inner is not None:
            return replace(inner, gamma=gamma)
    for numerator, denominator in _operands(node, _DIV)[:1]:
        gamma, inner = constant_behind(nodes, numerator), _deviation(nodes, denominator)
        if gamma is not None and inner is not None:
            return replace(inner, gamma=gamma)
    return None


def _inverse_deviation(nodes: Nodes, node: Any) -> _Scale | None:
    if node.op == "Rsqrt":
        return _variance_and_epsilon(nodes, node.input[0])
    if node.op in ("Reciprocal", "Inv"):
        return _deviation(nodes, node.input[0])
    return _power(nodes, node, -0.5)


def _deviation(nodes: Nodes, tensor: str) -> _Scale | None:
    """`sqrt(variance + epsilon)`."""
    node = nodes[node_of(tensor)]
    return _variance_and_epsilon(nodes, node.input[0]) if node.op == "Sqrt" else _power(nodes, node, 0.5)


def _power(nodes: Nodes, node: Any, wanted: float) -> _Scale | None:
    for base, other in _operands(node, ("Pow",))[:1]:
        exponent = constant_behind(nodes, other)
        if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == wanted:
            return _variance_and_epsilon(nodes, base)
    return None


def _variance_and_epsilon(nodes: Nodes, tensor: str) -> _Scale | None:
    for first, second in _operands(nodes[node_of(tensor)], _ADD):
        variance, epsilon = constant_behind(nodes, first), constant_behind(nodes, second)
        if variance is not None and epsilon is not None and epsilon.size == 1 and epsilon.ndim <= variance.ndim:
            return _Scale(variance, float(epsilon.reshape(())))
    return None


def _shift(nodes: Nodes, tensor: str, scale: str) -> tuple[Array, Array | None] | None:
    """`beta - mean * S`, `(-mean) * S` or `-(mean * S)`, with the same S, as (mean, beta)."""
    node = nodes[node_of(tensor)]
    for beta_tensor, product in _operands(node, ("Sub",))[:1]:
        beta, mean = constant_behind(nodes, beta_tensor), _constant_factor(nodes, product, scale)
        return None if beta is None or mean is None else (mean, beta)
    if node.op == "Neg":
        mean = _constant_factor(nodes, node.input[0], scale)
        return None if mean is None else (mean, None)
    negative = _factor(nodes, tensor, scale)
    if negative is None or nodes[node_of(negative)].op != "Neg":
        return None
    mean = constant_behind(nodes, nodes[node_of(negative)].input[0])
    return None if mean is None else (mean, None)


def _constant_factor(nodes: Nodes, tensor: str, scale: str) -> Array | None:
    factor = _factor(nodes, tensor, scale)
    return None if factor is None else constant_behind(nodes, factor)


def _factor(nodes: Nodes, tensor: str, scale: str) -> str | None:
    """The other factor where `tensor` is a product with `scale`."""
    for factor, other in _operands(nodes[node_of(tensor)], ("Mul",)):
        if tensor_name(other) == tensor_name(scale):
            return factor
    return None


def _operands(node: Any, ops: Sequence[str]) -> list[tuple[str, str]]:
    """Both orders of the operands of a float32 node of one of the kinds `ops`, the written one first; else nothing."""
    reads = data_inputs(node)
    if node.op not in ops or len(reads) != 2 or not _is_float32(node):
        return []
    return [(reads[0], reads[1]), (reads[1], reads[0])]


def _is_float32(node: Any) -> bool:
    return bool(node.attr["T"].type == tf.float32.as_datatype_enum)


def constant_behind(nodes: Nodes, tensor: str) -> Array | None:
    """The array behind a tensor that is a Const, seen through Identity and Reshape."""
    shapes: list[Array] = []
    node = nodes[node_of(tensor)]
    while node.op in ("Identity", "Reshape"):
        if node.op == "Reshape":
            shape = nodes[node_of(node.input[1])]
            if shape.op != "Const":
                return None
            shapes.append(array_of(shape))
        node = nodes[node_of(node.input[0])]
    if node.op != "Const":
        return None
    array: Array = array_of(node)
    for shape in reversed(shapes):
        try:
            array = array.reshape(shape)
        except ValueError:  # TensorFlow refuses such a graph when it is imported
            return None
    return np.asarray(array)
