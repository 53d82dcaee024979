"""Live TensorFlow objects: a `tf.function`, a ConcreteFunction, a `tf.Module`, a SavedModel that was loaded.

The traced graph is taken as it is, its calls inlined, its captured variables turned into constants. Inputs are called as the
function's arguments, outputs as the keys it returns, else `output_0`, `output_1`: the names that `tf.saved_model.save` gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import ModelError
from ..frozen import FrozenGraph, GraphDef
from ..inference.freeze import freeze_graph_def
from ..inline_calls import inline_calls
from ..quiet import quiet
from ..request import Request
from ..rewrites.learning_phase import learning_phases
from .freeze_variables import freeze_variables

_CONCRETE: Final = tf.types.experimental.ConcreteFunction
_FUNCTION: Final = tf.types.experimental.PolymorphicFunction
_DEFAULT: Final = "serving_default"


def is_live(source: object) -> bool:
    """Whether `load_live` takes it."""
    return isinstance(source, (_CONCRETE, _FUNCTION, tf.Module)) or isinstance(getattr(source, "signatures", None), Mapping)


def load_live(source: Any, request: Request) -> FrozenGraph:
    """Freezes a live object.

    Args:
        source: what `is_live` says yes to.
        request: `inputs` and `outputs` are names of tensors in the traced graph, where it is to be cut; `signature` is one of a
            loaded SavedModel or the name of a function of a module.

    Raises:
        ModelError: nothing to trace, or several things; the input shape cannot be known; tracing fails.
        UsageError: options that mean nothing here.
    """
    request.refuse("checkpoint", because="a live object holds its variables itself")
    concrete = _concrete(_function(source, request), request)
    name = _name(concrete)
    graph_def, became = inline_calls(_graph_def(concrete), name)
    values = _captured(concrete)
    frozen_def, _ = freeze_variables(graph_def, name, values.get)
    own = concrete.inputs[: len(concrete.inputs) - len(concrete.captured_inputs)]
    inputs = {tensor.op.name: tensor.name for tensor in own if tensor.dtype != tf.resource}
    outputs = {key: became.get(tensor.name, tensor.name) for key, tensor in _outputs(concrete).items()}
    phases = learning_phases(frozen_def)
    fed = [tensor for name, tensor in inputs.items() if name not in phases] or list(inputs.values())
    starts = fed if request.inputs is None else [inputs.get(given, given) for given in request.inputs]
    ends = list(outputs.values()) if request.outputs is None else [outputs.get(given, given) for given in request.outputs]
    frozen = freeze_graph_def(frozen_def, name, name, starts, ends, request.input_shape)
    called = list(outputs) if request.outputs is None else [given.removesuffix(":0") for given in request.outputs]
    return dataclasses.replace(frozen, output_tensors=dict(zip(called, frozen.output_tensors.values(), strict=True)))


def _function(source: Any, request: Request) -> Any:
    if isinstance(source, (_CONCRETE, _FUNCTION)):
        request.refuse("signature", because="a function has no signatures to choose from")
        return source
    kind = type(source).__name__
    signatures = dict(getattr(source, "signatures", None) or {})
    if request.signature is not None:
        found = signatures.get(request.signature) or getattr(source, request.signature, None)
        if not isinstance(found, (_CONCRETE, _FUNCTION)):
            raise ModelError(
                f"{kind}: no such signature or tf.function; signatures: {', '.join(signatures) or 'none'}. "
                f"Received: signature={request.signature!r}"
            )
        return found
    if _DEFAULT in signatures or len(signatures) == 1:
        return signatures.get(_DEFAULT) or next(iter(signatures.values()))
    if signatures:
        raise ModelError(f"{kind}: give the signature; there are: {', '.join(signatures)}. Received: no signature")
    call = source.__call__ if callable(source) else None
    if isinstance(call, (_CONCRETE, _FUNCTION)):
        return call
    raise ModelError(f"{kind}: a __call__ that is a tf.function, or a signature that names one, is expected. Received: {kind}")


def _concrete(function: Any, request: Request) -> Any:
    if isinstance(function, _CONCRETE) and not isinstance(function, _FUNCTION):
        return function
    known = getattr(function, "input_signature", None)
    arguments = []
    if known is None and request.input_shape is not None:
        arguments = [tf.TensorSpec([None, *request.input_shape], tf.float32)]
    try:
        with quiet():
            return function.get_concrete_function(*arguments)
    except Exception as error:  # the user's own code may raise anything
        reason = " ".join(str(error).split())[:300]
        hint = "" if arguments or known is not None else "; give it an input_signature, or give the input shape (H,W,C)"
        raise ModelError(
            f"tf.function {_name(function)!r} cannot be traced{hint}. Received: {type(error).__name__}: {reason}"
        ) from error


def _graph_def(concrete: Any) -> GraphDef:
    """The traced graph; captured variables become handles, captured tensors constants."""
    graph_def = concrete.graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    captured = zip(concrete.captured_inputs, concrete.inputs[len(concrete.inputs) - len(concrete.captured_inputs) :], strict=True)
    for outside, inside in captured:
        node = nodes[inside.op.name]
        node.attr.clear()
        if outside.dtype == tf.resource:
            node.op = "VarHandleOp"
            variable = _variables(concrete).get(id(outside))
            if variable is not None:
                node.attr["dtype"].type = variable.dtype.as_datatype_enum
                node.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
        else:
            node.op = "Const"
            node.attr["dtype"].type = outside.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(outside.numpy(), outside.dtype))
    return graph_def


def _variables(concrete: Any) -> dict[int, Any]:
    return {id(variable.handle): variable for variable in concrete.graph.variables}


def _captured(concrete: Any) -> dict[str, npt.NDArray[Any]]:
    """Placeholder of a captured variable -> the variable's value."""
    known = _variables(concrete)
    inside = concrete.inputs[len(concrete.inputs) - len(concrete.captured_inputs) :]
    return {
        tensor.op.name: np.asarray(known[id(outside)].numpy())
        for outside, tensor in zip(concrete.captured_inputs, inside, strict=True)
        if id(outside) in known
    }


def _outputs(concrete: Any) -> dict[str, Any]:
    """Keys, in the order of TensorFlow's flattening, -> tensors of the traced graph."""
    structure = concrete.structured_outputs
    if isinstance(structure, Mapping) and len(structure) == len(concrete.outputs):
        return dict(zip(sorted(structure), concrete.outputs, strict=True))
    return {f"output_{index}": tensor for index, tensor in enumerate(concrete.outputs)}


def _name(function: Any) -> str:
    name = getattr(function, "name", None) or getattr(function, "__name__", None) or "function"
    plain = name.decode() if isinstance(name, bytes) else str(name)
    return plain.removeprefix("__inference_").rstrip("0123456789").rstrip("_") or "function"
