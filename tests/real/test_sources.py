"""Third-party sources: the same network by several roads gives the same numbers, and TensorFlow's own loader's."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph, load, to_onnx
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import ModelError

pytestmark = pytest.mark.real


def feeds(frozen: FrozenGraph, low: float = -1.0, high: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(low, high, [3 if dim is None else dim for dim in shape]).astype(np.float32)
        for name, shape in frozen.input_shapes.items()
    }


def test_a_checkpoint_and_its_frozen_graph(data: Path) -> None:
    """Trained with TensorFlow 1.10; the training graph has four placeholders, a loss, gradients and Adam."""
    folder = data / "models" / "cifar_small_ckpt"
    frozen = load(folder / "frozen_model.pb")
    assert (frozen.inputs, frozen.outputs) == (("Input",), ("Output",))
    images = feeds(frozen)
    expected = frozen.run(images)["Output"]
    assert np.ptp(expected) > 0
    for source in (folder, folder / "model.ckpt.meta"):
        road = load(source, outputs=["Output"])
        assert road.inputs == ("Input",)
        assert np.array_equal(road.run(images)["Output"], expected)
    with pytest.raises(ModelError, match="give the outputs"):
        load(folder)


def test_graffitists_layout(data: Path, tmp_path: Path) -> None:
    folder = data / "models" / "cifar_small_ckpt"
    meta = tf.compat.v1.MetaGraphDef.FromString((folder / "model.ckpt.meta").read_bytes())
    (tmp_path / "my_model.pb").write_bytes(meta.graph_def.SerializeToString())
    for part in ("index", "meta", "data-00000-of-00001"):
        shutil.copyfile(folder / f"model.ckpt.{part}", tmp_path / f"my_model.ckpt.{part}")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/user/models/cifar_small/my_model.ckpt"\n')
    np.save(tmp_path / "calibration_set.npy", np.zeros((2, 32, 32, 3), np.float32))
    frozen = load(tmp_path, inputs=["Input"], outputs=["Output"], input_shape=(32, 32, 3))
    images = feeds(frozen)
    assert np.array_equal(frozen.run(images)["Output"], load(folder / "frozen_model.pb").run(images)["Output"])
    assert frozen.name == "my_model"


def test_a_saved_model_that_only_the_compatible_loader_opens(data: Path) -> None:
    folder = data / "models" / "kws_dscnn_saved_model"
    frozen = load(folder)
    assert (frozen.inputs, frozen.outputs) == (("input_1",), ("dense",))
    images = feeds(frozen)
    with quiet(), tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        expected = session.run("StatefulPartitionedCall:0", {"serving_default_input_1:0": images["input_1"]})
    np.testing.assert_allclose(frozen.run(images)["dense"], expected, rtol=0, atol=1e-6)
    found = Counter(node.op_type for node in to_onnx(frozen).graph)
    assert (found["BatchNormalization"], found["Conv"], found["Mul"]) == (9, 9, 0)
    assert any(node.name == "functional_1/conv2d/Conv2D" for node in frozen.graph_def.node)


def test_a_keras_2_file_with_stray_arguments(data: Path) -> None:
    frozen = load(data / "models" / "vww_mobilenet_v1_0.25_96.h5")
    assert (frozen.inputs, frozen.outputs) == (("input_1",), ("dense",))
    probabilities = frozen.run(feeds(frozen, 0.0, 1.0))["dense"]
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, rtol=0, atol=1e-6)
    assert np.ptp(probabilities) > 0
