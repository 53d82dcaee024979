"""Graphs whose variables lie in a checkpoint: an unfrozen `.pb` or `.pbtxt`, or a `.meta`.

Each variable takes the value that the graph's own Saver would restore into it, if it has one, else the array of its own name.
So a training graph gives the plain weights, also where moving averages of them were trained along (`w/ExponentialMovingAverage`);
an evaluation graph whose Saver restores the averages into the weights gives the averages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir import ModelError, UsageError
from ..frozen import FrozenGraph, GraphDef
from ..inference.freeze import freeze_graph_def
from ..inline_calls import inline_calls
from ..nodes import Nodes
from ..request import Request
from .checkpoint import Checkpoint, checkpoint_at, newest_checkpoint, part
from .freeze_variables import Array, freeze_variables, variables
from .graph_files import read_graph
from .saver import Key, restore_keys, without_restoring

logger = logging.getLogger(__name__)


def load_graph(path: Path, request: Request) -> FrozenGraph:
    """Reads a graph file and, where the graph has variables, the checkpoint that belongs to it.

    Raises:
        ModelError: see `load`.
        UsageError: a checkpoint for a graph without variables.
    """
    written = read_graph(path)
    graph_def, _ = inline_calls(written, str(path))
    if not variables(graph_def):
        if request.checkpoint is not None:
            given = str(request.checkpoint)
            raise UsageError(f"{path}: has no variables that a checkpoint could fill. Received: checkpoint={given!r}")
        # with its calls, whose names may be asked for
        return freeze_graph_def(written, str(path), path.stem, request.inputs, request.outputs, request.input_shape)
    prefix = _belonging(path) if request.checkpoint is None else checkpoint_at(request.checkpoint)
    if prefix is None:  # the variables may lie outside the part that is wanted
        bare = without_restoring(graph_def)
        return freeze_graph_def(bare, str(path), path.stem, request.inputs, request.outputs, request.input_shape)
    logger.debug("%s: variables from %s", path, prefix)
    name = path.name.removesuffix(path.suffix).removesuffix(".ckpt")
    return freeze_from_checkpoint(
        graph_def, str(path), name, Checkpoint(prefix), request.inputs, request.outputs, request.input_shape
    )


def freeze_from_checkpoint(
    graph_def: GraphDef,
    where: str,
    name: str,
    checkpoint: Checkpoint,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    input_shape: Sequence[int] | None,
    more_keys: Mapping[str, Sequence[Key]] | None = None,
) -> FrozenGraph:
    """Turns variables into constants and cuts out the part between inputs and outputs.

    Args:
        graph_def: calls inlined.
        where: what messages call it.
        name: of the model.
        checkpoint: holds at least the variables that the outputs need.
        inputs: see `load`.
        outputs: see `load`.
        input_shape: see `load`.
        more_keys: variable -> its places in the checkpoint, beside those the graph's Saver names.

    Raises:
        ModelError: a variable that the outputs need is not in the checkpoint, or of another shape there; see also `load`.
    """
    nodes: Nodes = {node.name: node for node in graph_def.node}
    keys = restore_keys(graph_def)

    def value_of(variable: str) -> Array | None:
        shared = nodes[variable].attr["shared_name"].s.decode(errors="replace")
        for key in (*keys.get(variable, ()), *(more_keys or {}).get(variable, ()), Key(variable), Key(shared)):
            if key.name in checkpoint:
                whole = checkpoint.array(key.name)
                try:
                    part: Array = key.cut(whole)
                except ValueError as error:
                    raise ModelError(f"{where}: the graph's Saver asks for a part that is none. Received: {error}") from None
                return part
        return None

    frozen_def, missing = freeze_variables(without_restoring(graph_def), where, value_of)
    frozen = freeze_graph_def(frozen_def, where, name, inputs, outputs, input_shape)
    lost = [node.name for node in frozen.graph_def.node if node.name in missing]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        reason = (
            "it was written from TensorFlow 2 objects, by their attribute paths"
            if checkpoint.is_object_based
            else "a checkpoint with all variables that the outputs depend on is expected"
        )
        raise ModelError(f"{where}: variable {lost[0]!r}{more} is not in the checkpoint {checkpoint.prefix}; {reason}")
    return frozen


def _belonging(path: Path) -> str | None:
    """`net.meta` belongs to `net.index`; else what lies in the same folder."""
    own = str(path).removesuffix(".meta") if path.suffix == ".meta" or path.name == ".meta" else f"{path.with_suffix('')}.ckpt"
    if part(own, ".index").is_file():
        return own
    if path.suffix == ".meta" and Path(own).is_file():  # format 1
        return own
    found = newest_checkpoint(path.parent)
    if found is None and path.suffix == ".meta":
        raise ModelError(f"{path}: holds the graph only, and no checkpoint lies beside it; missing {part(own, '.index').name}")
    return found
