"""The regenerated network with fixed quantizers as a SavedModel of TensorFlow's own operators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx_ir
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ..ir import QuantizerGraph
from .fixed import FixedNetwork, FixedTrace, Table

SIGNATURE: Final = "serving_default"
_TAG: Final = "serve"


def write_saved_model(lowered: onnx_ir.Model, graph: QuantizerGraph, tables: Mapping[str, Table], folder: Path) -> None:
    """Writes `saved_model.pb`: a frozen graph, its constants in it, and one signature.

    The format is that of a SavedModel without objects, which `tf.saved_model.load` reads as any other. Only there may a signature
    have every name that inputs and outputs have (O3): those of objects are names of Python arguments. The bytes depend on the model
    and TensorFlow's version alone.

    Args:
        lowered: float model whose constants lie on their grids, as `remove_qdq` gives it.
        graph: its decided quantizers.
        tables: name of what a function computes -> its entries.
        folder: an empty folder.

    Raises:
        UnsupportedError: an operator without counterpart in TensorFlow.
    """
    network = FixedNetwork(lowered, graph, tables)
    (folder / "saved_model.pb").write_bytes(saved_model(network, FixedTrace(network)))


def saved_model(network: FixedNetwork, trace: FixedTrace, batch: int | None = None) -> bytes:
    """A SavedModel as the bytes of its one file.

    Args:
        network: what is computed.
        trace: a new one of that network.
        batch: examples at a time, where the network leaves that open.
    """
    file = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    part = file.meta_graphs.add()
    part.meta_info_def.tags.append(_TAG)
    part.meta_info_def.tensorflow_version = tf.__version__
    signature = part.signature_def[SIGNATURE]
    signature.method_name = "tensorflow/serving/predict"
    with tf.Graph().as_default() as built:
        feeds = {
            name: tf.compat.v1.placeholder(dtype, [batch if size is None else size for size in shape], name=f"input_{index}")
            for index, (name, (shape, dtype)) in enumerate(network.program.inputs.items())
        }
        found = network.run(trace, feeds)
        outputs = {name: tf.identity(tensor, name=f"output_{index}") for index, (name, tensor) in enumerate(found.items())}
    for infos, tensors in ((signature.inputs, feeds), (signature.outputs, outputs)):
        for name, tensor in tensors.items():
            info = infos[name]
            info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
            info.tensor_shape.CopyFrom(tensor.shape.as_proto())
    part.graph_def.CopyFrom(built.as_graph_def())
    serialised: bytes = file.SerializeToString(deterministic=True)
    return serialised
