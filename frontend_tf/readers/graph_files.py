"""Files that hold a graph: binary or text, a bare GraphDef or one inside a MetaGraphDef. Read by content, not by suffix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import message, text_format  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2

from ...ir import ModelError
from ..frozen import GraphDef

_EXPECTED = "a graph (GraphDef or MetaGraphDef, binary or text) is expected"


def read_graph(path: Path) -> GraphDef:
    """The graph in a `.pb`, `.pbtxt` or `.meta` file.

    Raises:
        ModelError: none of these, truncated, or the graph of a SavedModel.
    """
    content = _content(path)
    for candidate in _parsed(content, (tf.compat.v1.GraphDef, tf.compat.v1.MetaGraphDef)):
        graph_def = getattr(candidate, "graph_def", candidate)
        if is_graph(graph_def):
            return graph_def
    for candidate in _parsed(content, (saved_model_pb2.SavedModel,)):
        if any(is_graph(meta.graph_def) for meta in candidate.meta_graphs):
            raise ModelError(f"{path}: is part of a SavedModel; its folder is expected")
    raise ModelError(f"{path}: holds no graph, or is truncated; {_EXPECTED}. Received: {len(content)} bytes")


def read_saved_model(path: Path) -> list[Any]:
    """The MetaGraphDefs in a `saved_model.pb` or `saved_model.pbtxt`.

    Raises:
        ModelError: it is something else, or truncated.
    """
    for candidate in _parsed(_content(path), (saved_model_pb2.SavedModel,)):
        if any(is_graph(meta.graph_def) for meta in candidate.meta_graphs):
            return list(candidate.meta_graphs)
    raise ModelError(f"{path}: holds no SavedModel, or is truncated; a complete SavedModel is expected")


def is_graph(graph_def: GraphDef) -> bool:
    """Whether it holds nodes; protobuf finds something to read in many a foreign file."""
    return bool(graph_def.node) and all(node.name and node.op for node in graph_def.node)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read; {_EXPECTED}. Received: {error.strerror}") from None


def _parsed(content: bytes, kinds: tuple[Any, ...]) -> Iterator[Any]:
    """The content as each kind that it can be, binary first."""
    for kind in kinds:
        parsed = kind()
        try:
            parsed.ParseFromString(content)
        except message.DecodeError:
            continue
        yield parsed
    try:
        text = content.decode("ascii")  # text protobufs escape everything else
    except UnicodeDecodeError:
        return
    for kind in kinds:
        try:
            yield text_format.Parse(text, kind())
        except text_format.ParseError:
            continue
