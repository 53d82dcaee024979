"""An ONNX file as a checked proto in memory: nothing in it is trusted, nothing outside its folder is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir

from .build import own_tensor
from .errors import ModelError, UnsupportedError
from .external_data import LARGEST, take_in
from .graph import name_of
from .outline import outline

STANDARD: Final = frozenset({"", "ai.onnx"})
"""The two ways to write the domain of ONNX's own operators."""

_EXPECTED: Final = "a binary .onnx model is expected (`convert` makes one)"


def read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Reads an ONNX file of any opset, its external data included; `check` looks at what is in it.

    Raises:
        ModelError: no such file, not an ONNX file, truncated, of an IR version that is not known, or with external data that
            is not in the model's own folder or not of the size its tensor needs.
        UnsupportedError: sparse tensors, or more than 2 GB.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise ModelError(f"{file}: no such file; an .onnx file is expected")
        proto = onnx.load(file, format="protobuf", load_external_data=False)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # protobuf raises whatever its parser runs into
        raise ModelError(f"{file}: not an ONNX file; {_EXPECTED}. Received: {type(error).__name__}") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{file}: not an ONNX model; {_EXPECTED}. Received: no graph or no opset")
    if not 1 <= proto.ir_version <= onnx.IR_VERSION:
        raise ModelError(f"{file}: an IR version of 1 to {onnx.IR_VERSION} is expected. Received: {proto.ir_version}")
    _check_text(proto, file)
    for tensor in tensors(proto, file):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            take_in(tensor, file)
        _check_contents(tensor, file)
    if proto.ByteSize() > LARGEST:
        raise UnsupportedError(f"{file}: at most {LARGEST} bytes are expected. Received: {proto.ByteSize()}")
    return proto


def check(proto: onnx.ModelProto, file: str | os.PathLike[str]) -> None:
    """ONNX's own checker, as a typed error.

    Raises:
        ModelError: the model is ill-formed; two outputs of one name are, too, and operators that onnx does not know.
    """
    names: set[str] = set()
    local = {(function.domain, function.name) for function in proto.functions}
    for value in proto.graph.output:
        if value.name in names:
            raise ModelError(f"{file}: each output needs a name of its own. Received: {value.name!r} twice")
        names.add(value.name)
    opset = opset_of(proto)
    for node in (node for graph in graphs(proto.graph) for node in graph.node):
        if node.domain in STANDARD and (node.domain, node.op_type) not in local and not onnx.defs.has(node.op_type, opset, ""):
            raise ModelError(f"{file}: {node.op_type} node {label(node)!r}: an operator of ONNX's opset {opset} is expected")
    try:
        onnx.checker.check_model(outline(proto))
    except Exception as error:  # ValidationError, and what its C++ lets out
        raise ModelError(f"{file}: ill-formed model: {reason(error)}") from None


def deserialize(proto: onnx.ModelProto, file: object) -> onnx_ir.Model:
    """The model in memory.

    Raises:
        ModelError: values that cannot be told apart, or whatever else onnx_ir does not accept.
    """
    try:
        model = onnx_ir.serde.deserialize_model(proto)
        for value in model.graph.initializers.values():
            if value.const_value is not None:  # a proto makes a copy each time it is asked, and lives as long as any part of it
                value.const_value = own_tensor(value.const_value, name_of(value))
        return model
    except Exception as error:  # SerdeError, whose causes are of any type
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(f"{file}: ill-formed model: {reason(cause)}") from None


def label(node: onnx.NodeProto) -> str:
    """What messages call a node: its name, else that of its first output."""
    return node.name or next(iter(node.output), "")


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators, 0 where there is none; of two entries the newer one."""
    return max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=0)


def reason(error: BaseException) -> str:
    """What a library complains about, without the places in its source: one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text.rpartition("` failed: ")[2][:300]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside its nodes; no recursion."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(_bodies(current.node))


def tensors(proto: onnx.ModelProto, file: object) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, in subgraphs and functions too.

    Raises:
        UnsupportedError: a sparse one: few bytes may stand for any amount of memory.
    """
    everything = [proto.graph, *(body for function in proto.functions for body in _bodies(function.node))]
    for graph in (inner for outer in everything for inner in graphs(outer)):
        if graph.sparse_initializer:
            raise UnsupportedError(
                f"{file}: sparse initializer {graph.sparse_initializer[0].values.name!r}: dense ones are expected"
            )
        yield from graph.initializer
        yield from _of_nodes(graph.node, file)
    for function in proto.functions:
        yield from _of_nodes(function.node, file)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _of_nodes(nodes: Iterable[onnx.NodeProto], file: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise UnsupportedError(
                    f"{file}: {node.op_type} node {label(node)!r} holds a sparse tensor: dense ones are expected"
                )
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_text(proto: onnx.ModelProto, file: Path) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes, which no name may be."""
    waiting: list[Any] = [proto]
    while waiting:
        for field, value in waiting.pop().ListFields():
            several = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
            if field.type == field.TYPE_MESSAGE:
                waiting.extend(several)
            elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in several):
                raise ModelError(f"{file}: damaged: UTF-8 text is expected for {field.name!r}. Received: {value!r:.200}")


def _check_contents(tensor: onnx.TensorProto, file: Path) -> None:
    """As many numbers as the shape says, of a type that there is; ONNX's checker does not count them."""
    try:
        onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # whatever NumPy and protobuf run into
        raise ModelError(f"{file}: tensor {tensor.name!r}: contents of its type and shape are expected: {reason(error)}") from None
