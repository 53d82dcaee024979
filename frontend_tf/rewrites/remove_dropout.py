"""Dropout -> nothing: at inference it hands on its input.

    x / keep * floor(keep + uniform)                         ->   x     (TensorFlow 1)
    x * (1 / keep) * cast(uniform >= rate)                   ->   x     (1.13 to 2.8)
    select(uniform >= rate, x * (1 / keep), 0)               ->   x     (TensorFlow 2, Keras)

A mask is a tensor made of nothing but random numbers, constants and scalars, compared or rounded down. The factor in front of
it is dropped with it when it is `1 / keep` by its value. A `keep` that is fed gets a number of its own for that: a factor that
is `1 / keep` then is computed from the same placeholder, and a constant is not.
"""

from __future__ import annotations

import logging
import operator
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from ..nodes import PLACEHOLDERS, ancestors, array_of, constant_of, data_inputs, node_of
from .surgery import Surgery

logger = logging.getLogger(__name__)

RANDOM_UNIFORM: Final = frozenset(
    {"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2", "StatefulUniform", "RandomUniformInt"}
)
_SELECTS: Final = frozenset({"SelectV2", "Select"})
_COMPARISONS: Final = frozenset({"GreaterEqual", "Greater", "Less", "LessEqual"})
_SCALAR_OPS: Final[Mapping[str, Callable[..., float]]] = {
    "Const": float,
    **dict.fromkeys(PLACEHOLDERS, float),
    **dict.fromkeys(("Identity", "Cast"), float),
    **dict.fromkeys(("Add", "AddV2"), operator.add),
    "Sub": operator.sub,
    "Mul": operator.mul,
    **dict.fromkeys(("RealDiv", "Div"), operator.truediv),
    **dict.fromkeys(("Reciprocal", "Inv"), lambda value: 1.0 / value),
}
_LONGEST_SCALAR: Final = 32
"""Nodes that compute a keep probability; more than any framework writes."""

_THROUGH: Final = frozenset({"Cast", "Identity", "Reshape"})
_TOLERANCE: Final = 1e-4
"""Of keep times 1/keep: both were rounded to float32."""


def remove_dropout(surgery: Surgery) -> bool:
    """Makes the last node of every dropout an Identity of what dropout is applied to."""
    noise = _made_of_random(surgery.nodes)
    changed = False
    for name, node in list(surgery.nodes.items()):
        if name in surgery.inputs or not noise:
            continue
        found = _match(surgery.nodes, noise, node)
        if found is not None:
            logger.debug("%s: dropout %r hands on %r", surgery.where, name, found)
            surgery.become(name, [found])
            changed = True
    return changed


def _made_of_random(nodes: Mapping[str, Any]) -> set[str]:
    """Nodes computed from uniform random numbers."""
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for tensor in data_inputs(node):
            readers.setdefault(node_of(tensor), []).append(name)
    found: set[str] = set()
    pending = [name for name, node in nodes.items() if node.op in RANDOM_UNIFORM]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(readers.get(name, ()))
    return found


def _match(nodes: Mapping[str, Any], noise: set[str], node: Any) -> str | None:
    """The tensor that dropout, whose last node may be `node`, is applied to."""
    reads = data_inputs(node)
    if node.op in _SELECTS and len(reads) == 3:
        keep = _mask(nodes, noise, reads[0])
        other = constant_of(nodes, reads[2])
        zero = (other is not None and not np.any(other)) or nodes[node_of(reads[2])].op == "ZerosLike"
        return _unscaled(nodes, reads[1], keep) if keep is not None and zero else None
    if node.op == "Mul" and len(reads) == 2:
        for tensor, mask in (reads, reversed(reads)):
            keep = _mask(nodes, noise, mask)
            if keep is not None and node_of(tensor) not in noise:
                return _unscaled(nodes, tensor, keep)
    return None


def _mask(nodes: Mapping[str, Any], noise: set[str], tensor: str) -> float | None:
    """The share that a mask keeps; None where the tensor is no mask."""
    node = _behind(nodes, tensor)
    if node.name not in noise:
        return None
    reads = data_inputs(node)
    if node.op in _COMPARISONS:
        for index, bound in enumerate(reads):
            if node_of(bound) in noise:
                continue
            value = _scalar(nodes, bound)
            above = (node.op in ("GreaterEqual", "Greater")) == (index == 1)  # uniform >= bound, or bound <= uniform
            return None if value is None else 1.0 - value if above else value
        return None
    if node.op == "Floor":
        total = _behind(nodes, reads[0])
        if total.op in ("Add", "AddV2"):
            for tensor_read in data_inputs(total):
                if node_of(tensor_read) not in noise:
                    return _scalar(nodes, tensor_read)
    return None


def _behind(nodes: Mapping[str, Any], tensor: str) -> Any:
    node = nodes[node_of(tensor)]
    while node.op in _THROUGH:
        node = nodes[node_of(node.input[0])]
    return node


def _scalar(nodes: Mapping[str, Any], tensor: str) -> float | None:
    """The value of a scalar, computed with a made-up number for each placeholder; None where it is no scalar."""
    array = constant_of(nodes, tensor)
    if array is not None:
        return float(array.reshape(())) if array.size == 1 else None
    behind = [nodes[name] for name in ancestors(nodes, [tensor], stop=set())]
    if len(behind) > _LONGEST_SCALAR or any(node.op not in _SCALAR_OPS or not _may_be_scalar(node) for node in behind):
        return None
    known: dict[str, float] = {}
    try:
        return _computed(nodes, node_of(tensor), known)
    except (ArithmeticError, ValueError, TypeError, RecursionError):  # no number, or no scalar that TensorFlow would take
        return None


def _computed(nodes: Mapping[str, Any], name: str, known: dict[str, float]) -> float:
    if name not in known:
        node = nodes[name]
        if node.op == "Const":
            known[name] = float(array_of(node).reshape(()))
        elif node.op in PLACEHOLDERS:
            known[name] = random.Random(name).uniform(0.1, 0.9)
        else:
            known[name] = _SCALAR_OPS[node.op](*(_computed(nodes, node_of(tensor), known) for tensor in data_inputs(node)))
    return known[name]


def _may_be_scalar(node: Any) -> bool:
    if node.op == "Const":
        tensor: Any = node.attr["value"].tensor
        return all(dim.size == 1 for dim in tensor.tensor_shape.dim)
    return not (node.op.startswith("Placeholder") and "shape" in node.attr and len(node.attr["shape"].shape.dim) > 0)


def _unscaled(nodes: Mapping[str, Any], tensor: str, keep: float) -> str:
    """What the factor 1/keep is applied to; the tensor itself where there is no such factor."""
    node = nodes[node_of(tensor)]
    reads = data_inputs(node)
    if node.op in ("RealDiv", "Div") and len(reads) == 2 and _is(_scalar(nodes, reads[1]), keep):
        return reads[0]
    if node.op == "Mul" and len(reads) == 2:
        for inner, factor in (reads, list(reversed(reads))):
            value = _scalar(nodes, factor)
            if value is not None and _is(1.0 / value if value else None, keep):
                return inner
    return tensor


def _is(value: float | None, keep: float) -> bool:
    """Whether a factor is the one of this mask."""
    return value is not None and bool(abs(value - keep) <= _TOLERANCE * keep)
