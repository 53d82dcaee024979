"""Keras files: what they say about themselves, checked and brought up to date before Keras sees it.

Both kinds hold the architecture as JSON: `.h5` in an attribute, `.keras` in `config.json` of a zip. Code that a file brings along
(Lambda layers) is found here, before anything could run it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py

from ...ir import ModelError, UnsupportedError
from .keras_2 import modernized
from .kinds import HDF5

_CONFIG: Final = "config.json"
_ATTRIBUTE: Final = "model_config"
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, RuntimeError, NotImplementedError)
_FUNCTIONS: Final = frozenset({"TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda", "ClassMethod", "InstanceProperty"})
"""Layers that Keras 2 made of bare TensorFlow functions; Keras 3 has nothing of the kind."""


@contextmanager
def readable_keras(path: Path, kind: str, trust: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """A file that today's Keras reads with the numbers its writer had in mind: `path`, or a corrected copy while the block runs.

    Args:
        path: the file.
        kind: `HDF5` or `KERAS`, by content.
        trust: whether Lambda layers are let through.

    Yields:
        The file, and the names Keras 3 does not allow: name in the file -> name in the model file.

    Raises:
        ModelError: truncated, weights only, or a Lambda layer without `trust`.
        UnsupportedError: layers made of bare TensorFlow functions.
    """
    suffix = ".h5" if kind == HDF5 else ".keras"
    config, version = _h5_config(path) if kind == HDF5 else _keras_config(path)
    _check_layers(path, config, trust)
    try:
        corrected, names = modernized(config, version)
    except RecursionError:
        raise ModelError(f"{path}: the architecture is nested too deeply; a file written by Keras is expected") from None
    if corrected == config and path.suffix.lower() == suffix:
        yield path, names
        return
    with tempfile.TemporaryDirectory(prefix="tqt_onnx_") as folder:
        copy = Path(folder) / f"model{suffix}"
        if kind == HDF5:
            shutil.copyfile(path, copy)
            with h5py.File(copy, "r+") as file:
                file.attrs[_ATTRIBUTE] = json.dumps(corrected)
        else:
            _copy_corrected(path, copy, json.dumps(corrected))
        yield copy, names


def _copy_corrected(path: Path, copy: Path, config: str) -> None:
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
            for entry in source.infolist():
                target.writestr(entry, config if entry.filename == _CONFIG else source.read(entry))
    except _DAMAGED as error:
        raise ModelError(f"{path}: damaged; a complete Keras file is expected. Received: {_line(error)}") from None


def _h5_config(path: Path) -> tuple[Any, str]:
    try:
        with h5py.File(path, "r") as file:
            text, version = file.attrs.get(_ATTRIBUTE), file.attrs.get("keras_version", b"")
            weights = sorted(file)[:4]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: truncated; a complete Keras file is expected. Received: {_line(error)}") from None
    if text is None:
        raise ModelError(
            f"{path}: holds weights without the architecture (model.save_weights wrote it); a file written by model.save is "
            f"expected. Received: {', '.join(weights) or 'nothing'}"
        )
    return _parsed(path, text), _text(version)


def _keras_config(path: Path) -> tuple[Any, str]:
    try:
        with zipfile.ZipFile(path) as file:
            text = file.read(_CONFIG)
            metadata = file.read("metadata.json") if "metadata.json" in file.namelist() else b"{}"
    except _DAMAGED as error:
        raise ModelError(f"{path}: truncated; a complete Keras file is expected. Received: {_line(error)}") from None
    version = _parsed(path, metadata)
    return _parsed(path, text), str(version.get("keras_version", "") if isinstance(version, dict) else "")


def _parsed(path: Path, text: Any) -> Any:
    try:
        return json.loads(_text(text))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its architecture is not JSON; a complete Keras file is expected. Received: {error}") from None


def _check_layers(path: Path, config: Any, trust: bool) -> None:
    for layer in nested_objects(config):
        kind, name = str(layer["class_name"]).rpartition(">")[2], _layer_name(layer)
        if kind == "Lambda" and not trust:
            raise ModelError(
                f"{path}: holds a Lambda layer ({name!r}), which is Python code inside the file and is not run; trust the file "
                "(trust=True, --trust), replace the layer by one of Keras', or hand in the live keras.Model. Received: Lambda"
            )
        if kind in _FUNCTIONS:
            function = layer["config"].get("function") or layer["config"].get("node_def") or kind
            raise UnsupportedError(
                f"{path}: layer {name!r} is a bare TensorFlow function that Keras 2 wrapped, which Keras 3 cannot read; "
                f"a SavedModel of the network is expected. Received: {kind} {' '.join(str(function).split())[:60]}"
            )


def nested_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every `{"class_name": ..., "config": {...}}` in an architecture, outer ones first."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value and isinstance(value.get("config"), dict):
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _layer_name(layer: dict[str, Any]) -> str:
    return str(layer["config"].get("name") or layer.get("name") or "")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
