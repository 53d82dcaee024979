"""Keras models: loading them safely, and freezing them without Grappler, which would fold batch norms away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ..ir import ModelError
from .frozen import FrozenGraph
from .keras_scopes import recorded_scopes, rename_scopes
from .quiet import quiet
from .shapes import settle_shape


class _DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]  # keras has no types
    """Reads configurations of Keras 2, which hold a `groups` that never meant anything there."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        if config.get("groups") == 1:
            del config["groups"]
        return super().from_config(config)


def load_keras(path: Path) -> Any:
    """Reads a `.keras` or `.h5` file; code inside the file is never run.

    Raises:
        ModelError: not a Keras file, truncated, made with layers that are not Keras' own, or holding a Lambda layer.
    """
    try:
        with quiet():
            return keras.models.load_model(
                path, custom_objects={"DepthwiseConv2D": _DepthwiseConv2D}, compile=False, safe_mode=True
            )
    except Exception as error:  # zip, HDF5, JSON and Keras each fail in their own way
        reason = " ".join(str(error).replace(str(path), path.name).split())
        if "Lambda" in reason.replace(path.name, ""):
            raise ModelError(
                f"{path}: holds a Lambda layer, which is Python code inside the file and is not run; "
                "replace it by a Keras layer, or load the model yourself and hand in the keras.Model"
            ) from None
        raise ModelError(
            f"{path}: Keras cannot read it; a complete {path.suffix} file of Keras' own layers is expected. "
            f"Received: {type(error).__name__}: {reason[:300]}"
        ) from None


def freeze_keras(model: Any, input_shape: Sequence[int] | None = None) -> FrozenGraph:
    """Traces a Keras model in inference mode and turns its variables into constants.

    Inputs and outputs are called as the Keras layers that make them, and so are the scopes of the nodes between.

    Args:
        model: functional, sequential, or a subclassed model that takes one tensor.
        input_shape: shape without the batch dimension, where the model leaves it open.

    Raises:
        ModelError: the input shape cannot be known, or the model cannot be traced.
    """
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
    names = _output_names(model, len(frozen.outputs))
    return FrozenGraph(
        graph_def=rename_scopes(frozen.graph.as_graph_def(), scopes),
        input_tensors={spec.name: tensor.name for spec, tensor in zip(specs, frozen.inputs, strict=True)},
        output_tensors={name: tensor.name for name, tensor in zip(names, frozen.outputs, strict=True)},
        name=model.name,
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
