"""Where a model comes from decides how it is read; what comes out is always a `FrozenGraph`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras

from ..ir import ModelError
from .frozen import FrozenGraph
from .readers.from_checkpoint import load_graph
from .readers.from_folder import model_in
from .readers.from_function import is_live, load_live
from .readers.from_keras import freeze_keras, load_keras
from .readers.from_saved_model import FILES, load_saved_model
from .readers.kinds import EXPECTED, GRAPH, kind_of
from .request import Request, path_of


def load(
    source: str | os.PathLike[str] | Any,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    signature: str | None = None,
    trust: bool = False,
) -> FrozenGraph:
    """Reads a trained TensorFlow model and freezes it without optimizing it, so that batch norms arrive intact.

    | source | variables | names of inputs and outputs |
    |---|---|---|
    | `.pb`, `.pbtxt` (GraphDef, MetaGraphDef) | none, or a checkpoint beside it, or `checkpoint` | nodes of the graph |
    | `.meta`, or its prefix | the checkpoint it was written with, or `checkpoint` | nodes of the graph |
    | SavedModel folder, or its `saved_model.pb` | its own | keys of the signature |
    | folder with one of these | as there | as there |
    | `.keras`, `.h5` (Keras 2 too), live `keras.Model` | its own | layers |
    | live `tf.function`, ConcreteFunction, `tf.Module`, loaded SavedModel | captured | arguments; keys returned, or `output_0` |

    Files are told apart by content. Nothing in a file is run: variables are put into the graph as constants by rewriting it.

    Args:
        source: a path, or a live object.
        inputs: names of the input tensors (`input` or `input:0`); any tensor may be named, the graph is cut there. Found where
            there is just one placeholder.
        outputs: names of the output tensors. Found where there is just one tensor that nobody reads.
        input_shape: shape of the inputs without the batch dimension (`H, W, C`), where the model leaves it open.
        checkpoint: where the variables of a graph are: a prefix (`my_model.ckpt`), one of its files, or its folder.
        signature: which one of a SavedModel; `serving_default`, or the only one, where it is not given.
        trust: let a Keras file run the Python code that it brings along (Lambda layers).

    Raises:
        ModelError: no such file, not a model, truncated, variables that are not there, ambiguous or unknown names, unknown shape,
            or an input shape that contradicts what the model knows.
        UnsupportedError: the graph holds operators that this TensorFlow does not know, or the model is another framework's.
        UsageError: an option that means nothing for this source, or an `input_shape` that is not a shape.
    """
    request = Request.of(inputs, outputs, input_shape, checkpoint, signature, trust)
    return _of_shape(_load(source, request), request.input_shape)


def _load(source: Any, request: Request) -> FrozenGraph:
    if isinstance(source, keras.Model):
        _refuse_for_keras(request)
        return freeze_keras(source, request.input_shape)
    if not isinstance(source, (str, os.PathLike)):
        if is_live(source):
            return load_live(source, request)
        raise ModelError(f"a path, a keras.Model, a tf.function or a tf.Module is expected. Received: {type(source).__name__}")
    path = path_of(source)
    graph = path.with_name(f"{path.name}.meta")
    if path.name in FILES and path.is_file():
        path = path.parent
    elif not path.exists() and graph.is_file():  # the prefix of a checkpoint
        path = graph
    elif path.is_dir():
        path = model_in(path, request)
    if path.is_dir():
        return load_saved_model(path, request)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; {EXPECTED} is expected")
    kind = kind_of(path)
    if kind == GRAPH:
        request.refuse("signature", because=f"{path}: only a SavedModel has signatures")
        return load_graph(path, request)
    _refuse_for_keras(request)
    model, names = load_keras(path, kind, request.trust)
    return freeze_keras(model, request.input_shape, names)


def _of_shape(frozen: FrozenGraph, wanted: tuple[int, ...] | None) -> FrozenGraph:
    """The graph, unless the shape that was asked for contradicts what it knows of all its inputs."""
    known = {name: shape[1:] for name, shape in frozen.input_shapes.items()} if wanted is not None else {}
    if known and wanted not in known.values():
        listed = ", ".join(f"{name!r} {shape}" for name, shape in known.items())
        raise ModelError(f"{frozen.name}: no input has the shape {wanted} that was given; the model says {listed}")
    return frozen


def _refuse_for_keras(request: Request) -> None:
    request.refuse(
        "inputs", "outputs", because="a Keras model says what its inputs and outputs are; names can be given for a graph only"
    )
    request.refuse("checkpoint", "signature", because="a Keras model holds its weights itself and has no signatures")
