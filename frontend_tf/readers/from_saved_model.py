"""SavedModels of every age: TensorFlow 1, Keras 2, Keras 3 `export`, `tf.saved_model.save`.

All of them hold one graph with VarHandleOps or VariableV2s, a checkpoint, and restore nodes that tell which array belongs to
which variable; in TensorFlow 2 the network is a function that the graph calls. So one road serves all: read the graph, inline
the calls, fill in the variables. Nothing of the file is run, and no loader has to understand the objects in it.

Inputs and outputs are called as the signature calls them (`saved_model_cli show`), and nodes as the layers they come from.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from ...ir import ModelError, UnsupportedError
from ..frozen import FrozenGraph, GraphDef
from ..inference.freeze import freeze_graph_def
from ..inline_calls import inline_calls
from ..nodes import ancestors, node_of, tensor_name
from ..request import Request
from ..rewrites.learning_phase import learning_phases
from .checkpoint import Checkpoint
from .freeze_variables import variables
from .from_checkpoint import freeze_from_checkpoint
from .graph_files import read_saved_model
from .object_keys import object_keys

logger = logging.getLogger(__name__)

FILES: Final = ("saved_model.pb", "saved_model.pbtxt")
_SERVE: Final = "serve"
_DEFAULT: Final = "serving_default"
_INTERNAL: Final = frozenset({"__saved_model_init_op", "__saved_model_train_op"})


def load_saved_model(folder: Path, request: Request) -> FrozenGraph:
    """Freezes one signature of a SavedModel.

    Args:
        folder: holds `saved_model.pb`.
        request: `inputs` and `outputs` are keys of the signature, or names of tensors where the graph is to be cut.

    Raises:
        ModelError: truncated, variables missing, no such signature, or several to choose from.
        UnsupportedError: the signature takes strings or sparse tensors.
        UsageError: a checkpoint is given; the SavedModel has its own.
    """
    request.refuse("checkpoint", because=f"{folder}: a SavedModel has a checkpoint of its own")
    meta = _serving(folder, read_saved_model(next(folder / name for name in FILES if (folder / name).is_file())))
    signature = _signature(folder, meta, request)
    graph_def, became = inline_calls(meta.graph_def, str(folder), [node_of(info.name) for info in signature.outputs.values()])
    tensors = {
        side: {key: _tensor(info, became) for key, info in sorted(infos.items(), key=lambda item: _natural(item[0]))}
        for side, infos in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }
    outputs = _chosen(tensors["outputs"], request.outputs)
    graph_def, outputs = _distinct(graph_def, outputs)
    inputs = _chosen(tensors["inputs"], request.inputs)
    if request.inputs is None and inputs is not None:
        inputs = _needed(graph_def, inputs, (outputs or {}).values())
        phases = learning_phases(graph_def)
        inputs = {key: tensor for key, tensor in inputs.items() if node_of(tensor) not in phases} or inputs
        _check_inputs(folder, graph_def, signature, inputs)
    where, name = str(folder), folder.resolve().name
    starts, ends = (None if chosen is None else list(chosen.values()) for chosen in (inputs, outputs))
    if variables(graph_def):
        checkpoint = Checkpoint(str(folder / "variables" / "variables"))
        frozen = freeze_from_checkpoint(
            graph_def, where, name, checkpoint, starts, ends, request.input_shape, object_keys(meta, checkpoint)
        )
    else:
        frozen = freeze_graph_def(graph_def, where, name, starts, ends, request.input_shape)
    return dataclasses.replace(
        frozen,
        input_tensors=_called(inputs, frozen.input_tensors),
        output_tensors=_called(outputs, frozen.output_tensors),
    )


def _serving(folder: Path, metas: Sequence[Any]) -> Any:
    found = [meta for meta in metas if _SERVE in meta.meta_info_def.tags] or list(metas)
    if len(found) != 1:
        tags = "; ".join(", ".join(meta.meta_info_def.tags) or "none" for meta in metas)
        raise ModelError(f"{folder}: one graph tagged {_SERVE!r} is expected. Received: {len(metas)} graphs tagged {tags}")
    return found[0]


def _signature(folder: Path, meta: Any, request: Request) -> Any:
    """The one that was asked for, `serving_default`, or the only one; an empty one where the model has none."""
    known = {key: meta.signature_def[key] for key in sorted(meta.signature_def) if key not in _INTERNAL}
    listed = ", ".join(known) or "none"
    if request.signature is not None:
        if request.signature not in known:
            raise ModelError(f"{folder}: no such signature; there are: {listed}. Received: signature={request.signature!r}")
        return known[request.signature]
    if _DEFAULT in known:
        return known[_DEFAULT]
    if len(known) > 1:
        raise ModelError(f"{folder}: give the signature; there are: {listed}. Received: no signature")
    if not known and meta.object_graph_def.nodes and request.inputs is None and request.outputs is None:
        functions = ", ".join(sorted({name for node in meta.object_graph_def.nodes for name in _functions_of(meta, node)}))
        raise ModelError(
            f"{folder}: has no signatures, which say where a network begins and ends; save it with signatures= "
            f"(tf.saved_model.save(module, folder, signatures=module.function)), or hand in the tf.function. "
            f"Received: functions {functions or 'none'}"
        )
    return next(iter(known.values()), tf.compat.v1.MetaGraphDef().signature_def["none"])


def _functions_of(meta: Any, node: Any) -> Iterator[str]:
    """Names under which an object of a SavedModel holds functions."""
    for child in node.children:
        if child.node_id < len(meta.object_graph_def.nodes) and meta.object_graph_def.nodes[child.node_id].HasField("function"):
            yield child.local_name


def _tensor(info: Any, became: Mapping[str, str]) -> str:
    """The tensor behind an entry of a signature; empty for a sparse one, which is three."""
    if info.WhichOneof("encoding") != "name":
        return ""
    return became.get(tensor_name(info.name), tensor_name(info.name))


def _natural(key: str) -> list[tuple[int, str]]:
    """`output_2` before `output_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key) if part]


def _chosen(tensors: Mapping[str, str], names: Sequence[str] | None) -> dict[str, str] | None:
    """Outside name -> tensor, of what the user named, else of the whole signature; None where that is empty."""
    if names is None:
        return dict(tensors) or None
    return {name.removesuffix(":0"): tensors.get(name, name) for name in (name.strip() for name in names)}


def _needed(graph_def: GraphDef, inputs: Mapping[str, str], outputs: Iterable[str]) -> dict[str, str]:
    """The inputs that the outputs depend on; a signature may take more."""
    nodes = {node.name: node for node in graph_def.node}
    ends = [tensor for tensor in outputs if node_of(tensor) in nodes]
    try:
        reached = ancestors(nodes, ends, stop={node_of(tensor) for tensor in inputs.values()})
    except KeyError:  # a node that is not there: for the one to report who cuts the graph
        return dict(inputs)
    needed = {key: tensor for key, tensor in inputs.items() if not tensor or node_of(tensor) in reached}
    for key in inputs.keys() - needed.keys():
        logger.debug("input %r: no output depends on it", key)
    return needed or dict(inputs)


def _check_inputs(folder: Path, graph_def: GraphDef, signature: Any, inputs: Mapping[str, str]) -> None:
    for key in inputs:
        info = signature.inputs[key]
        kind = "sparse tensors" if not inputs[key] else "strings" if info.dtype == tf.string.as_datatype_enum else None
        if kind is None:
            continue
        first = next((node.input[0] for node in graph_def.node if node.op in ("Conv2D", "DepthwiseConv2dNative")), None)
        hint = f" (the first convolution reads {node_of(first)!r})" if first else ""
        raise UnsupportedError(
            f"{folder}: input {key!r} of the signature takes {kind}, which the network itself does not compute with; "
            f"name the inputs behind the decoding{hint}, or choose another signature. Received: {kind}"
        )


def _distinct(graph_def: GraphDef, outputs: Mapping[str, str] | None) -> tuple[GraphDef, dict[str, str] | None]:
    """A signature may give one tensor under two names; each gets a node of its own."""
    if outputs is None or len(set(outputs.values())) == len(outputs):
        return graph_def, None if outputs is None else dict(outputs)
    types = {node.name: node for node in graph_def.node}
    result = type(graph_def)()
    result.CopyFrom(graph_def)
    distinct: dict[str, str] = {}
    for key, tensor in outputs.items():
        distinct[key] = tensor
        node = types.get(node_of(tensor))
        if list(distinct.values()).count(tensor) > 1 and node is not None and "T" in node.attr:
            copy = result.node.add(name=f"{node.name}/{key}", op="Identity", input=[tensor])
            copy.attr["T"].CopyFrom(node.attr["T"])
            distinct[key] = f"{copy.name}:0"
    return result, distinct


def _called(chosen: Mapping[str, str] | None, found: Mapping[str, str]) -> dict[str, str]:
    """The tensors of a frozen graph under the names they are known by outside."""
    if chosen is None:
        return dict(found)
    return dict(zip(chosen, found.values(), strict=True))
