"""What a file is by its first bytes, whatever it is called."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

from ...ir import ModelError, UnsupportedError

KERAS: Final = "keras"
HDF5: Final = "hdf5"
GRAPH: Final = "graph"

EXPECTED: Final = (
    "a frozen or checkpointed graph (.pb, .pbtxt, .meta), a Keras file (.keras, .h5), or a folder with a SavedModel or a checkpoint"
)
_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_PACKED: Final = {
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"BZh": "a bzip2 archive; unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x02": "a Python pickle, which is never read",
    b"\x80\x04": "a Python pickle, which is never read",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"version https://git-lfs": "a git-lfs pointer; fetch the file itself",
}
_SUFFIXES: Final = {
    ".onnx": "an ONNX model, which needs no conversion from TensorFlow",
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".ckpt": "a checkpoint without a graph",
    ".index": "a part of a checkpoint; its .meta, or the graph with checkpoint=, is expected",
    ".npy": "a NumPy array",
    ".caffemodel": "a Caffe model",
    ".weights": "weights without a graph",
    ".mlmodel": "a Core ML model",
    ".py": "Python code, which is never run",
}
"""Suffixes that no reader has; a data shard has none of its own (`.data-00000-of-00001`)."""


def kind_of(path: Path) -> str:
    """`KERAS`, `HDF5` or `GRAPH` (which is what everything else may still be).

    Raises:
        ModelError: the file is empty, unreadable, or of a kind that no reader takes.
        UnsupportedError: a model of another framework or runtime.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read. Received: {error.strerror}") from None
    if not head:
        raise ModelError(f"{path}: is empty; {EXPECTED} is expected. Received: {path.suffix!r} file of 0 bytes")
    if head.startswith(_HDF5_MAGIC):
        return HDF5
    if head.startswith(b"PK"):
        return _zip(path)
    if head[4:8] == b"TFL3":
        raise UnsupportedError(f"{path}: is a TensorFlow Lite model; the model it was made from is expected. Received: TFL3")
    if head.startswith(b"model_checkpoint_path:"):
        raise ModelError(f"{path}: notes which checkpoint of its folder is the newest; give the folder. Received: {path.name!r}")
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise ModelError(f"{path}: is {what}; {EXPECTED} is expected. Received: {head[:8]!r}")
    if head.lstrip().startswith((b"{", b"[")):
        raise _json(path)
    if path.suffix.lower() in _SUFFIXES or ".data-" in path.name:
        what = _SUFFIXES.get(path.suffix.lower(), "a shard of a checkpoint; its .meta, or the graph with checkpoint=, is expected")
        raise ModelError(f"{path}: is {what}; {EXPECTED} is expected. Received: {path.suffix or path.name}")
    return GRAPH


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path}: is a truncated zip file; a complete file is expected. Received: {error}") from None
    if "config.json" in names:
        return KERAS
    if any(name.endswith("data.pkl") for name in names):
        raise UnsupportedError(f"{path}: is a PyTorch file; a TensorFlow model is expected. Received: {names[0]}")
    inside = "a SavedModel; unpack it" if any(name.endswith("saved_model.pb") for name in names) else "no Keras model"
    raise ModelError(f"{path}: is a zip file that holds {inside}. Received: {', '.join(names[:3]) or 'nothing'}")


def _json(path: Path) -> ModelError | UnsupportedError:
    """Why a JSON file is refused."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ModelError(f"{path}: is a text file; {EXPECTED} is expected. Received: text")
    keys = set(content) if isinstance(content, dict) else set()
    if {"modelTopology", "weightsManifest"} & keys:
        return UnsupportedError(f"{path}: is a TensorFlow.js model; the model it was made from is expected. Received: JSON")
    if {"class_name", "config"} <= keys:
        return ModelError(f"{path}: is a Keras architecture without weights; {EXPECTED} is expected. Received: JSON")
    return ModelError(f"{path}: is a JSON file; {EXPECTED} is expected. Received: keys {sorted(keys)[:5]}")
