"""The output of a network that nobody names: the one node that nobody reads, leftovers of training aside.

A training graph ends in many nodes: losses, accuracies, counters, gradients, shapes that an assertion looks at. Those that
cannot be the answer of a network are left out, and so are the less likely ones where a message lists what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ...ir import ModelError
from ..nodes import Nodes, node_of, output_types, readers_of
from .ends import behind, sources
from .losses import in_front_of_losses
from .upstream import inner_inputs

_UPDATES: Final = ("Assign", "Apply", "SparseApply", "ResourceApply", "ResourceSparseApply")
"""How the names of operators begin that write to a variable: what they read is no answer, where there are others."""

_TRAINING: Final = ("Summary", "Save", "Restore", *_UPDATES, "Assert")
"""How the names of operators begin or end that only training has at its ends."""

_SCOPES: Final = re.compile(r"(gradients|gradient_tape|save|input_producer|report_uninitialized_variables)(_\d+)?|[Aa]ssert(_.*)?")
"""Scopes in which TensorFlow puts nodes of training."""

_QUESTIONS: Final = frozenset({"Shape", "ShapeN", "Size", "Rank", "BroadcastGradientArgs"})
"""Operators that ask about a tensor; who asks may be gone."""

_LISTED: Final = 12


def find_outputs(
    where: str, nodes: Nodes, inputs: Collection[str] | None, bypassed: Collection[str], like: Callable[[], Any]
) -> list[str]:
    """The one node that depends on an input and that nobody reads, leftovers of training aside.

    Args:
        where: for messages.
        nodes: the graph.
        inputs: tensors, where they are given.
        bypassed: nodes that nobody reads any more because a rewrite led their readers past them.
        like: the graph whose versions and functions hold, asked for where shapes have to tell.

    Raises:
        ModelError: there are none or several, which are listed.
    """
    starts = sources(nodes) if inputs is None else {node_of(name) for name in inputs}
    readers = readers_of(nodes)
    fed = behind(readers, starts)
    found = [
        name
        for name, node in nodes.items()
        if name in fed
        and name not in starts
        and name not in bypassed
        and all(_is_leftover(nodes[reader]) for reader in readers.get(name, ()))
    ]
    found = [name for name in found if not _is_leftover(nodes[name])]
    if len(found) > 1:  # a moving average on its way into its variable
        found = _without(found, lambda name: any(nodes[reader].op.startswith(_UPDATES) for reader in readers.get(name, ())))
    if len(found) > 1:  # what an Assert or a file name is made of is no answer of a network
        found = _without(found, lambda name: _is_no_number(nodes[name]) or is_training_scope(name) or nodes[name].op in _QUESTIONS)
    if len(found) > 1:  # nor is a loss or a counter: answers have a row for each image
        found = _without(found, _scalars(where, nodes, found, like).__contains__)
    front = [name for name in in_front_of_losses(nodes, starts, is_training_scope) if _is_float(nodes[name])]
    answers = [name for name in found if not is_training_scope(name)] if front else []
    if front and not set(answers) - _scalars(where, nodes, answers, like):
        raise ModelError(f"{where}: give the outputs; nodes in front of a loss: {_names(front)}. Received: no output names")
    if len(found) != 1:
        floats = _without(found, lambda name: not _is_float(nodes[name]))
        listed = found if len(floats) == 1 else floats  # the choice is the user's: what was left out may be what is wanted
        raise ModelError(f"{where}: give the outputs; nodes that nobody reads: {_names(listed)}. Received: no output names")
    return [f"{found[0]}:0"]


def is_training_scope(name: str) -> bool:
    """Whether a node stands in a scope that TensorFlow makes for training."""
    return any(_SCOPES.fullmatch(part) for part in name.split("/"))


def _names(found: list[str]) -> str:
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (", ".join(found[:_LISTED]) or "none") + more


def _without(found: list[str], unlikely: Callable[[str], bool]) -> list[str]:
    """What is left, unless that is nothing."""
    return [name for name in found if not unlikely(name)] or found


def _scalars(where: str, nodes: Nodes, names: Iterable[str], like: Callable[[], Any]) -> set[str]:
    """Those whose first output has rank 0, as far as TensorFlow can tell."""
    found = inner_inputs(where, nodes, {f"{name}:0": name for name in names}, like())
    return {name for name, (_, shape) in found.items() if shape == []}


def _is_leftover(node: Any) -> bool:
    """A node that only a training program reads, or nobody."""
    definition = op_def_registry.get(node.op)
    if definition is not None and len(definition.output_arg) == 0:
        return True
    return str(node.op).endswith(("Summary", "SummaryV2")) or str(node.op).startswith(_TRAINING)


def _is_no_number(node: Any) -> bool:
    types = output_types(node)
    return types is not None and len(types) > 0 and all(kind in (tf.bool, tf.string, tf.resource, tf.variant) for kind in types)


def _is_float(node: Any) -> bool:
    types = output_types(node)
    return types is None or any(kind.is_floating for kind in types)
