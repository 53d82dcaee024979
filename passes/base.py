"""What a pass is, and how passes are run one after the other.

A pass is a frozen dataclass whose fields are its options. `apply` rewrites the model in place and answers exactly
whether it changed anything; applied twice, the second answer is False. `run_passes` keeps every pass honest: what a
pass left without readers is removed, and a graph that is no longer well-formed stops the run with the name of the pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

import onnx_ir

from ..ir import ModelError, TqtOnnxError

logger = logging.getLogger(__name__)


class Pass(Protocol):
    """One rewrite of a model.

    Attributes:
        name: kebab-case name, unique in the table of passes; what the user types and what errors begin with.
    """

    name: ClassVar[str]

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites `model` in place; True exactly where something changed.

        Raises:
            UnsupportedError: the model asks for something that cannot be done exactly.
            ModelError: the model is not what it should be.
        """
        ...


Callback = Callable[[Pass, onnx_ir.Model, bool], None]
"""Called behind each pass with the pass, the model and whether the pass modified it."""


def run_passes(model: onnx_ir.Model, passes: Iterable[Pass], callback: Callback | None = None) -> bool:
    """Runs passes in order; behind each one that modified the model, unused parts go and well-formedness is checked.

    Args:
        model: rewritten in place.
        passes: in the order of the recipe.
        callback: called behind every pass (progress, dumps between passes).

    Returns:
        Whether any pass modified the model.

    Raises:
        TqtOnnxError: what a pass raised, the message beginning with the pass's name.
        ModelError: a pass left an ill-formed graph.
    """
    modified = False
    for step in passes:
        try:
            changed = step.apply(model)
            if changed:
                remove_unused(model)
                check_well_formed(model)
        except TqtOnnxError as error:
            raise type(error)(f"{step.name}: {error}") from error
        except Exception as error:
            # Not bad input but a defect of ours: it keeps its type and traceback and learns where it happened.
            error.add_note(f"in pass {step.name}")
            raise
        logger.debug("%s: %s", step.name, "modified" if changed else "no change")
        modified |= changed
        if callback is not None:
            callback(step, model, changed)
    return modified


def remove_unused(model: onnx_ir.Model) -> bool:
    """Removes nodes and initializers of the main graph that nothing reads; graph inputs always stay (O3)."""
    graph = model.graph
    dead = [node for node in reversed(graph) if _is_dead(node)]
    removed = bool(dead)
    while dead:
        node = dead.pop()
        if node.graph is None:
            continue
        producers = {value.producer() for value in node.inputs if value is not None}
        graph.remove(node, safe=True)
        dead.extend(producer for producer in producers if producer is not None and producer.graph is graph and _is_dead(producer))
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
            removed = True
    return removed


def _is_dead(node: onnx_ir.Node) -> bool:
    return not any(value.uses() or value.is_graph_output() for value in node.outputs)


def check_well_formed(model: onnx_ir.Model) -> None:
    """Checks the main graph cheaply, O(edges): unique names, inputs defined before use, outputs defined.

    The full ONNX checker runs on load and save; this one is for between passes.

    Raises:
        ModelError: names the first thing found wrong.
    """
    graph = model.graph
    defined: set[str] = set()

    def define(value: onnx_ir.Value, where: str) -> None:
        if not value.name:
            raise ModelError(f"ill-formed graph: {where} has no name")
        if value.name in defined:
            raise ModelError(f"ill-formed graph: the name {value.name!r} is defined twice, the second time as {where}")
        defined.add(value.name)

    for value in graph.inputs:
        define(value, "a graph input")
    for name, value in graph.initializers.items():
        if value.name != name:
            raise ModelError(f"ill-formed graph: initializer {value.name!r} is registered as {name!r}")
        if value.const_value is None:
            raise ModelError(f"ill-formed graph: initializer {name!r} has no data")
        if name not in defined:  # an initializer may give the default of a graph input
            define(value, "an initializer")
    for node in graph:
        for read in node.inputs:
            if read is not None and read.name not in defined:
                raise ModelError(
                    f"ill-formed graph: {node.op_type} node {node.name!r} reads {read.name!r}, which is not defined before it"
                )
        for value in node.outputs:
            if value.name or value.uses() or value.is_graph_output():  # an optional output may be left nameless
                define(value, f"an output of {node.op_type} node {node.name!r}")
    for value in graph.outputs:
        if not value.name or value.name not in defined:
            raise ModelError(f"ill-formed graph: output {value.name!r} is not defined")
