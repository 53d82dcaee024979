"""Keras models: loading them safely, and freezing them without Grappler, which would fold batch norms away."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ...ir import ModelError, UnsupportedError
from ..frozen import FrozenGraph
from ..inference.freeze import freeze_graph_def
from ..large_constants import refuse_too_many
from ..quiet import quiet
from ..shapes import settle_shape
from .keras_2 import CUSTOM_OBJECTS
from .keras_files import readable_keras
from .keras_scopes import recorded_scopes, rename_scopes

_MISSING: Final = re.compile(r"(?:Could not locate \w+|Unknown [\w ]+:?) '([^']+)'")
"""How Keras says that it does not know a class or function, with whose name it goes on at length."""


def load_keras(path: Path, kind: str, trust: bool = False) -> tuple[Any, dict[str, str]]:
    """Reads a `.keras` or `.h5` file; code inside the file is not run unless it is trusted.

    Args:
        path: the file.
        kind: `HDF5` or `KERAS`, by content.
        trust: whether Lambda layers may be read, and so their code run.

    Returns:
        The model, and layer names that Keras 3 does not allow: name in the model -> name in the file.

    Raises:
        ModelError: truncated, weights only, made with layers that are not Keras' own, or holding a Lambda layer.
        UnsupportedError: layers that Keras 2 made of bare TensorFlow functions.
    """
    with readable_keras(path, kind, trust) as (readable, names):
        try:
            with quiet():
                model = keras.models.load_model(readable, custom_objects=CUSTOM_OBJECTS, compile=False, safe_mode=not trust)
        except Exception as error:  # zip, HDF5, JSON and Keras each fail in their own way
            reason = " ".join(str(error).replace(str(readable), path.name).split()).rpartition("Exception encountered: ")[2]
            missing = _MISSING.search(reason)
            if missing is not None:
                raise ModelError(
                    f"{path}: is made with {missing[1]!r}, Python code that the file names but does not hold; "
                    "where that code is, write a SavedModel by model.export(folder) and convert the folder, "
                    f"or hand in the live keras.Model. Received: {missing[1]}"
                ) from None
            raise ModelError(
                f"{path}: Keras cannot read it; a complete Keras file of Keras' own layers is expected. "
                f"Received: {type(error).__name__}: {reason[:300]}"
            ) from None
    return model, names


def freeze_keras(model: Any, input_shape: Sequence[int] | None = None, names: Mapping[str, str] | None = None) -> FrozenGraph:
    """Traces a Keras model in inference mode and turns its variables into constants.

    Inputs and outputs are called as the Keras layers that make them, and so are the scopes of the nodes between.

    Args:
        model: functional, sequential, or a subclassed model that takes one tensor.
        input_shape: shape without the batch dimension, where the model leaves it open.
        names: what layers are called outside, where that is not their name.

    Raises:
        ModelError: the input shape cannot be known, or the model cannot be traced.
        UnsupportedError: an input that is not float32, or more weights than a graph can hold.
    """
    where = f"Keras model {model.name!r}"
    refuse_too_many(where, (4 * math.prod(variable.shape) for variable in model.weights))
    specs = _input_specs(model, input_shape)

    one_tensor = isinstance(model, keras.Sequential) or _symbolic(model) is None
    structure = specs[0] if one_tensor else model.input

    def infer(*tensors: Any) -> Any:
        return tf.nest.flatten(model(tf.nest.pack_sequence_as(structure, tensors), training=False))

    try:
        with quiet(), recorded_scopes(model) as scopes:
            concrete = tf.function(infer, autograph=False).get_concrete_function(*specs)
            # Runs Grappler's function inliner and nothing else of it.
            frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    except Exception as error:  # user layers may raise anything
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"Keras model {model.name!r} cannot be traced for inference. Received: {type(error).__name__}: {reason}"
        ) from error
    names = names or {}
    outputs = _output_names(model, len(frozen.outputs))
    graph_def = rename_scopes(frozen.graph.as_graph_def(), {scope: names.get(layer, layer) for scope, layer in scopes.items()})
    starts, ends = [tensor.name for tensor in frozen.inputs], [tensor.name for tensor in frozen.outputs]
    graph = freeze_graph_def(graph_def, where, model.name, starts, ends, None)
    return dataclasses.replace(
        graph,
        input_tensors={names.get(spec.name, spec.name): one for spec, one in zip(specs, graph.input_tensors.values(), strict=True)},
        output_tensors={names.get(name, name): one for name, one in zip(outputs, graph.output_tensors.values(), strict=True)},
    )


def _input_specs(model: Any, input_shape: Sequence[int] | None) -> list[Any]:
    symbolic = _symbolic(model)
    if symbolic is None:
        if input_shape is None:
            raise ModelError(f"Keras model {model.name!r} has no input of known shape; give the input shape (H,W,C)")
        return [tf.TensorSpec([None, *input_shape], tf.float32, name="input")]
    specs = []
    for tensor in symbolic.inputs:
        name = next(one.name for one in symbolic.layers if isinstance(one, keras.layers.InputLayer) and one.output is tensor)
        shape = settle_shape(f"Keras model {model.name!r}: input {name!r}", tuple(tensor.shape), input_shape)
        if tensor.dtype != "float32":
            raise UnsupportedError(
                f"Keras model {model.name!r}: input {name!r}: float32 is expected; build the model on keras.Input(shape) "
                "of float32, or model.export(folder) and convert the folder from the tensor behind its Cast (inputs). "
                f"Received: {tensor.dtype}"
            )
        specs.append(tf.TensorSpec(shape, tensor.dtype, name=name))
    return specs


def _output_names(model: Any, count: int) -> list[str]:
    symbolic = _symbolic(model)
    return _unique(symbolic.output_names if symbolic is not None else ["output"] * count)


def _symbolic(model: Any) -> Any:
    """The model as a functional one, which knows the layers at its ends, or None where it is subclassed."""
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:  # a sequential model that was never built
        return None
    return keras.Model(inputs, outputs) if inputs and outputs else None


def _unique(names: Sequence[str]) -> list[str]:
    """One layer may make several outputs: `dense`, `dense_1`."""
    unique: list[str] = []
    for name in names:
        candidate, count = name, 0
        while candidate in unique:
            count += 1
            candidate = f"{name}_{count}"
        unique.append(candidate)
    return unique
