"""Regenerated models from `.keras` files: only what such a model consists of is read, nothing in the file is run.

Keras' own loading imports what a file's configuration names. Here the configuration has to be that of a `RegeneratedModel`, the
graph in it is checked as an ONNX file is, and the weights are numbers, as many as the graph says and the file has room for: their
shapes are compared before any of them is read.
"""

from __future__ import annotations

import base64
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import onnx

from ..ir import ModelError, TqtOnnxError
from ..ir.reading import check, reason, tensors
from .model import RegeneratedModel
from .regenerate import check_program

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.weights.h5"
_LARGEST_CONFIG: Final = 1 << 28
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "name": (str,),
    "graph": (str,),
    "quantizers": (str, type(None)),
    "quantizers_on": (bool,),
    "batch_norms": (str,),
    "batch_norm_momentum": (float,),
    "statistics_frozen": (bool,),
}
_EXPECTED: Final = "a .keras file of a model that `to_keras` made is expected"


def load_model(path: str | os.PathLike[str]) -> RegeneratedModel:
    """Reads a regenerated model that was saved with `model.save`.

    Args:
        path: of the `.keras` file; what else is in it (an optimizer, say) is left there.

    Raises:
        ModelError: no such file, of something else, damaged, or of a graph that cannot be regenerated.
    """
    file = Path(path)
    if not file.is_file() or file.suffix != ".keras":
        raise ModelError(f"{file}: {_EXPECTED}. Received: {'no such file' if not file.is_file() else 'another suffix'}")
    try:
        with zipfile.ZipFile(file) as archive:
            config = _config(archive, file)
            _check_graph(config, file, _size_of_weights(archive, file))
            model = RegeneratedModel.from_config(config)
            check_program(model.program, None if not model.groups else model.quantizer_graph())
            with archive.open(_WEIGHTS) as stream, h5py.File(stream, "r") as weights:
                model.load_own_variables(_arrays(weights, model, file))
        model.dry_run()
    except TqtOnnxError:
        raise
    except Exception as error:  # whatever zipfile, json, Keras and h5py run into
        raise ModelError(f"{file}: damaged; {_EXPECTED}. Received: {reason(error)}") from None
    return model


def _config(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """The configuration of the model, of the right class."""
    if {_CONFIG, _WEIGHTS} - set(archive.namelist()) or archive.getinfo(_CONFIG).file_size > _LARGEST_CONFIG:
        raise ModelError(f"{file}: {_EXPECTED}. Received: {', '.join(archive.namelist()[:5])}")
    with archive.open(_CONFIG) as stream:
        found = json.loads(stream.read(_LARGEST_CONFIG))
    if not isinstance(found, dict) or found.get("registered_name") != f"tqt_onnx>{RegeneratedModel.__name__}":
        kind = found.get("class_name") if isinstance(found, dict) else found
        raise ModelError(f"{file}: {_EXPECTED}. Received: {str(kind)[:100]}")
    config = found.get("config")
    for name, kinds in _FIELDS.items():
        if not isinstance(config, dict) or not isinstance(config.get(name), kinds):
            raise ModelError(f"{file}: damaged: {name!r} is expected in its configuration. Received: {str(config)[:100]}")
    assert isinstance(config, dict)
    return config


def _size_of_weights(archive: zipfile.ZipFile, file: Path) -> int:
    """Bytes of the file's weights: not of what they would unfold to."""
    found = archive.getinfo(_WEIGHTS)
    if found.compress_type != zipfile.ZIP_STORED or found.file_size > file.stat().st_size:
        raise ModelError(f"{file}: damaged: weights that are stored as they are, as Keras does, are expected. Received: compressed")
    return found.file_size


def _arrays(weights: h5py.File, model: RegeneratedModel, file: Path) -> dict[str, npt.NDArray[Any]]:
    """Every variable of the model as Keras names it, read where it is stored in full under that very name."""
    expected: dict[str, Any] = {}
    model.save_own_variables(expected)
    group = _member(weights, "vars")
    if not isinstance(group, h5py.Group) or set(group) != set(expected):
        raise ModelError(f"{file}: damaged: {len(expected)} variables are expected. Received: {str(group)[:100]}")
    arrays = {}
    for name, variable in expected.items():
        found, dtype = _member(group, name), np.dtype(variable.dtype)
        if not (isinstance(found, h5py.Dataset) and found.shape == tuple(variable.shape) and found.dtype == dtype):
            raise ModelError(f"{file}: damaged: {dtype} {tuple(variable.shape)} is expected. Received: {str(found)[:100]}")
        if found.external or found.is_virtual or found.id.get_storage_size() != found.size * dtype.itemsize:
            raise ModelError(
                f"{file}: damaged: weights stored in full, within the file, are expected. Received: {str(found)[:100]}"
            )
        arrays[name] = found[()]
    return arrays


def _member(group: h5py.Group, name: str) -> Any:
    """What is in a group of the file itself; None for a link to somewhere else."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _check_graph(config: dict[str, Any], file: Path, size: int) -> None:
    """The graph as an ONNX file would be checked; its weights, which have no data here, no larger than what holds them."""
    proto = onnx.ModelProto.FromString(base64.b64decode(config["graph"], validate=True))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors(proto, file)):
        raise ModelError(f"{file}: damaged: a graph without external data is expected")
    if any(dim < 0 for tensor in proto.graph.initializer for dim in tensor.dims):
        raise ModelError(f"{file}: damaged: shapes of weights are expected to have no negative lengths")
    empty = [tensor for tensor in proto.graph.initializer if not tensor.ByteSize() - _without_data(tensor)]
    if 4 * sum(math.prod(tensor.dims) for tensor in empty) > size:
        raise ModelError(f"{file}: damaged: its weights are larger than the file. Received: {size} bytes")
    for tensor in empty:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        proto.graph.initializer.remove(tensor)
    check(proto, file)


def _without_data(tensor: onnx.TensorProto) -> int:
    """Size of a tensor that says what it is, but holds nothing."""
    return int(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).ByteSize())
