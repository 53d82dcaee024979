"""Reading and writing ONNX files: nothing read is trusted, nothing is left half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx
import onnx_ir

from .errors import ModelError, UsageError
from .external_data import LARGEST
from .opset import IR_VERSION, OPSET
from .outline import outline
from .quantizers import QuantizerGraph
from .reading import check, deserialize, opset_of, read, reason
from .shapes import inferred_outline

QUANTIZERS_KEY = "tqt_onnx.quantizers"
CONTRACT_KEY = "tqt_onnx.contract"
VERSION_KEY = "tqt_onnx.version"
RANGES_KEY = "tqt_onnx.ranges"
"""Model metadata: JSON {value name: [smallest, largest]}, what the source's FakeQuant nodes said."""


def load(path: str | os.PathLike[str]) -> onnx_ir.Model:
    """Reads and checks an ONNX file.

    Raises:
        ModelError: no such file, not an ONNX file, truncated, ill-formed, or of another opset than 21.
    """
    proto = read(path)
    if opset_of(proto) != OPSET:
        raise ModelError(f"{path}: opset {OPSET} is expected; `convert` writes it. Received: {opset_of(proto)}")
    check(proto, path)
    model = deserialize(proto, path)
    inferred_outline(proto, path)  # only to see that shapes agree: what is recorded stays as it is
    model.ir_version = min(model.ir_version, IR_VERSION)  # the opset says what is in it; newer ones onnxruntime does not read
    return model


def save(model: onnx_ir.Model, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Writes a model under a temporary name and renames it.

    Raises:
        UsageError: the file exists and `force` is not given, or its folder cannot be written.
        ModelError: the model is too large for one file, or ill-formed.
    """
    check_writable(path, force=force)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size > LARGEST:
        raise ModelError(f"{path}: at most {LARGEST} bytes fit into one ONNX file (2 GB). Received: weights of {size} bytes")
    model.ir_version = IR_VERSION
    try:  # before there is a file: the less time it lies there half-written, the better
        proto = onnx_ir.serde.serialize_model(model)
        onnx.checker.check_model(outline(proto))
        data = proto.SerializeToString()
    except Exception as error:  # SerdeError, ValidationError, and what protobuf says of more than 2 GB
        raise ModelError(f"{path}: refusing to write an ill-formed model: {reason(error)}") from error
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well and vanishes when it does not.

    Raises:
        UsageError: `path` exists and `force` is not given, or its folder does not exist or cannot be written.
    """
    target = Path(path)
    check_writable(target, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_writable(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuses an output that is in the way or has nowhere to go, before any work is done.

    Raises:
        UsageError: as `atomic_path`.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise UsageError(f"{target}: is a folder; the name of a file to write is expected")
        if target.exists() and not target.is_file():  # replacing /dev/null would be a bad surprise
            raise UsageError(f"{target}: is a device or a pipe; the name of a file to write is expected")
        if (target.exists() or target.is_symlink()) and not force:
            raise UsageError(f"{target}: exists; give another name, or --force to overwrite it")
        if not target.parent.is_dir():
            raise UsageError(f"{target}: its folder {target.parent} does not exist")
        # Permissions alone do not tell: a full or read-only disk, a name that is too long.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None


def quantizers_of(model: onnx_ir.Model) -> QuantizerGraph | None:
    """The quantizer graph recorded in a model (O4), or None where it is a float model.

    Raises:
        ModelError: there is one, but not of the schema.
    """
    text = model.metadata_props.get(QUANTIZERS_KEY)
    if text is None:
        return None
    graph = QuantizerGraph.from_json(text)
    recorded = model.metadata_props.get(CONTRACT_KEY)
    if recorded != graph.contract:
        raise ModelError(f"{CONTRACT_KEY} must be that of its quantizers, {graph.contract!r}. Received: {recorded!r}")
    return graph
