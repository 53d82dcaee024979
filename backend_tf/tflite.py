"""The quantized network as a TFLite file, through TF's converter."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from ..ir import QuantizerGraph, UnsupportedError
from .fixed import FixedNetwork, Table
from .saved_model import SIGNATURE, saved_model
from .tflite_reading import operators_of
from .tflite_trace import FakeQuantTrace, HeldWeight


def write_tflite(
    lowered: onnx_ir.Model,
    graph: QuantizerGraph,
    tables: Mapping[str, Table],
    weights: Mapping[str, tuple[npt.NDArray[np.int64], float]],
    floats: Collection[str],
    file: Path,
) -> tuple[Mapping[str, Any], ...]:
    """Writes a TFLite file for one example at a time, int8 inside, with the model's float inputs and outputs.

    Args:
        lowered: float model whose constants lie on their grids, as `remove_qdq` gives it.
        graph: its decided quantizers, of at most 8 bits but for biases.
        tables: name of what a function computes -> its entries.
        weights: name of a weight's value -> its integers in the ONNX layout, -127 to 127, and their scale.
        floats: names of the nodes that stay float.
        file: to write.

    Returns:
        The operators of the file, see `operators_of`: what the converter made of the network is for the caller to compare.

    Raises:
        UnsupportedError: an operator without counterpart in TensorFlow, or something that TF's converter does not take.
    """
    network = FixedNetwork(lowered, graph, tables)
    network.wide = frozenset()
    held = {name: HeldWeight(*found) for name, found in weights.items()}
    saved = saved_model(network, FakeQuantTrace(network, held, floats), batch=1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "saved_model.pb").write_bytes(saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            data = converter.convert()
        except (ConverterError, RuntimeError, ValueError) as error:  # anything else is a defect of ours
            raise UnsupportedError(
                f"target tflite: TF's converter does not take the network: {str(error).splitlines()[0]}"
            ) from error
    file.write_bytes(data)
    return operators_of(data)
