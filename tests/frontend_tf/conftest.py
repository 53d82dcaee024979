"""What both kinds of source have to satisfy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph


def compare(frozen: FrozenGraph, model: onnx_ir.Model, batch: int = 3, low: float = -1.0, high: float = 1.0) -> None:
    """onnxruntime on the converted model against TensorFlow on the frozen graph, names and shapes included.

    1e-5 of the output range: both sides sum float32 in orders of their own.
    """
    rng = np.random.default_rng(0)
    feeds = {name: rng.uniform(low, high, shape).astype(np.float32) for name, shape in frozen.example_shapes(batch).items()}
    session = ort.InferenceSession(onnx_ir.serde.serialize_model(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert tuple(value.name for value in session.get_inputs()) == frozen.inputs
    assert tuple(value.name for value in session.get_outputs()) == frozen.outputs
    expected = frozen.run(feeds)
    for name, received in zip(frozen.outputs, session.run(list(frozen.outputs), feeds), strict=True):
        assert received.shape == expected[name].shape
        assert np.ptp(expected[name]) > 0
        assert np.abs(received - expected[name]).max() <= 1e-5 * np.ptp(expected[name])


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    return compare


@pytest.fixture
def write_graph(tmp_path: Path) -> Callable[..., Path]:
    """Writes the graph that `build` makes, after `edit` has had it as a GraphDef."""

    def write(build: Callable[[], Any], edit: Callable[[Any], None] | None = None, name: str = "net.pb") -> Path:
        with tf.Graph().as_default() as graph:
            build()
        graph_def = graph.as_graph_def()
        if edit is not None:
            edit(graph_def)
        path = tmp_path / name
        path.write_bytes(graph_def.SerializeToString())
        return path

    return write
