"""Where a model comes from decides how it is read; what comes out is always a `FrozenGraph`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import keras

from ..ir import ModelError, UsageError
from .from_graph_def import load_graph_def
from .from_keras import freeze_keras, load_keras
from .frozen import FrozenGraph

_READERS: Final[dict[str, Callable[[Path], Any]]] = {".keras": load_keras, ".h5": load_keras, ".hdf5": load_keras}
_SUFFIXES: Final = (".pb", *_READERS)


def load(
    source: str | os.PathLike[str] | Any,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
) -> FrozenGraph:
    """Reads a trained TensorFlow model and freezes it without optimizing it, so that batch norms arrive intact.

    Args:
        source: a frozen graph `.pb` (binary GraphDef), a Keras file `.keras` or `.h5` (Keras 2 too), or a `keras.Model`.
        inputs: names of the input tensors of a frozen graph (`input` or `input:0`); any tensor may be named, the graph is
            cut there. Found where there is just one placeholder.
        outputs: names of the output tensors of a frozen graph. Found where there is just one tensor that nobody reads.
        input_shape: shape of the inputs without the batch dimension (`H, W, C`), where the model leaves it open.

    Raises:
        ModelError: no such file, not what its suffix says, truncated, unfrozen, ambiguous or unknown names, unknown shape, or
            an input shape that contradicts what the model knows.
        UnsupportedError: the graph holds operators that this TensorFlow does not know.
        UsageError: `inputs`/`outputs` for a Keras model, or an `input_shape` that is not a shape.
    """
    shape = _checked_shape(input_shape)
    if isinstance(source, keras.Model):
        _refuse_names(inputs, outputs)
        return _of_shape(freeze_keras(source, shape), shape)
    if not isinstance(source, (str, os.PathLike)):
        raise ModelError(f"a path or a keras.Model is expected. Received: {type(source).__name__}")
    path = Path(source)
    suffix = path.suffix.lower()
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"{path}: {kind}; a file of type {', '.join(_SUFFIXES)} is expected")
    if suffix == ".pb":
        return _of_shape(load_graph_def(path, inputs, outputs, shape), shape)
    if suffix not in _READERS:
        raise ModelError(f"{path}: a file of type {', '.join(_SUFFIXES)} is expected. Received: {suffix or 'no suffix'!r}")
    _refuse_names(inputs, outputs)
    return _of_shape(freeze_keras(_READERS[suffix](path), shape), shape)


def _of_shape(frozen: FrozenGraph, wanted: tuple[int, ...] | None) -> FrozenGraph:
    """The graph, unless the shape that was asked for contradicts what it knows of all its inputs."""
    known = {name: shape[1:] for name, shape in frozen.input_shapes.items()} if wanted is not None else {}
    if known and wanted not in known.values():
        listed = ", ".join(f"{name!r} {shape}" for name, shape in known.items())
        raise ModelError(f"{frozen.name}: no input has the shape {wanted} that was given; the model says {listed}")
    return frozen


def _checked_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if not shape or not all(isinstance(dim, int) and dim > 0 for dim in shape):
        raise UsageError(f"the input shape must be positive numbers without the batch dimension (H,W,C). Received: {shape!r}")
    return tuple(shape)


def _refuse_names(inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> None:
    if inputs is not None or outputs is not None:
        raise UsageError("a Keras model says what its inputs and outputs are; names can be given for a frozen graph (.pb) only")
