"""SavedModels of every age: the numbers are those of TensorFlow's own loader, the names those of the signature."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph, load, to_onnx
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import ModelError, UnsupportedError, UsageError

v1 = tf.compat.v1
L = keras.layers
Check = Callable[..., None]
X = np.random.default_rng(3).normal(size=(3, 8, 8, 3)).astype(np.float32)


def network() -> keras.Model:
    layers = [
        L.Input((8, 8, 3), name="image"),
        L.Conv2D(4, 3, name="conv"),
        L.BatchNormalization(name="bn"),
        L.ReLU(6.0),
        L.GlobalAveragePooling2D(),
        L.Dense(5, name="logits"),
    ]
    model = keras.Sequential(layers, name="net")
    rng = np.random.default_rng(1)
    model.get_layer("bn").set_weights([rng.uniform(0.5, 2.0, (4,)) for _ in range(4)])
    return model


class Module(tf.Module):
    """Variables that share a name, several outputs, functions that share a function."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(5)
        self.kernel = tf.Variable(rng.normal(size=(3, 3, 3, 4)).astype(np.float32), name="w")
        self.bias = tf.Variable(rng.normal(size=(4,)).astype(np.float32), name="w")
        self.unused = tf.Variable(0.0, name="w")

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="x")])
    def features(self, x: Any) -> dict[str, Any]:
        return {"relu": tf.nn.relu(self._conv(x)), "conv": self._conv(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="x")])
    def pooled(self, x: Any) -> Any:
        return tf.reduce_mean(self._conv(x), [1, 2])

    @tf.function
    def _conv(self, x: Any) -> Any:
        return tf.nn.conv2d(x, self.kernel, 1, "SAME") + self.bias


def reference(folder: Path, signature: str = "serving_default") -> dict[str, Any]:
    with quiet():
        function = tf.saved_model.load(str(folder)).signatures[signature]
        (name,) = function.structured_input_signature[1]
        return {key: value.numpy() for key, value in function(**{name: tf.constant(X)}).items()}


def agree(frozen: FrozenGraph, expected: dict[str, Any]) -> None:
    """To the last bits: the loader's session is optimized."""
    received = frozen.run({frozen.inputs[0]: X})
    assert sorted(received) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, rtol=0, atol=1e-5 * float(np.ptp(value)))
        assert np.ptp(value) > 0


@pytest.mark.parametrize("way", ["export", "save"])
def test_keras(tmp_path: Path, way: str, assert_same: Check) -> None:
    model = network()
    with quiet():
        model.export(tmp_path / "m") if way == "export" else tf.saved_model.save(model, str(tmp_path / "m"))
    frozen = load(tmp_path / "m")
    assert frozen.outputs == ("output_0",)
    agree(frozen, {"output_0": model(X, training=False).numpy()})
    assert not any("PartitionedCall" in node.name for node in frozen.graph_def.node)
    converted = to_onnx(frozen)
    assert [node.op_type for node in converted.graph].count("BatchNormalization") == 1
    assert_same(frozen, converted)


def test_signatures(tmp_path: Path) -> None:
    module = Module()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "m"), signatures={"features": module.features, "pooled": module.pooled})
        tf.saved_model.save(module, str(tmp_path / "one"), signatures={"pooled": module.pooled})
        tf.saved_model.save(module, str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"give the signature; there are: features, pooled\."):
        load(tmp_path / "m")
    with pytest.raises(ModelError, match=r"no such signature; there are: features, pooled\. Received: signature='serve'"):
        load(tmp_path / "m", signature="serve")
    both = load(tmp_path / "m", signature="features")
    assert (both.inputs, both.outputs) == (("x",), ("conv", "relu"))
    agree(both, reference(tmp_path / "m", "features"))
    assert load(tmp_path / "m", outputs=["relu"], signature="features").outputs == ("relu",)
    for folder in ("m", "one"):
        pooled = load(tmp_path / folder, signature="pooled" if folder == "m" else None)
        agree(pooled, reference(tmp_path / folder, "pooled"))
        assert pooled.name == folder
    with pytest.raises(ModelError):
        load(tmp_path / "none")
    with pytest.raises(UsageError, match="checkpoint"):
        load(tmp_path / "one", checkpoint=tmp_path)


def test_where_it_lies(tmp_path: Path) -> None:
    module = Module()
    for version in ("9", "10"):
        with quiet():
            tf.saved_model.save(module, str(tmp_path / "served" / version), signatures=module.pooled)
        module.bias.assign_add(tf.ones(4))
    expected = reference(tmp_path / "served" / "10")
    agree(load(tmp_path / "served"), expected)
    agree(load(tmp_path / "served" / "10" / "saved_model.pb"), expected)
    shutil.copytree(tmp_path / "served" / "10", tmp_path / "outer" / "inner")
    agree(load(tmp_path / "outer"), expected)
    shutil.copytree(tmp_path / "served" / "10", tmp_path / "outer" / "other")
    with pytest.raises(ModelError, match=r"several models.*inner, other"):
        load(tmp_path / "outer")
    shutil.copy(tmp_path / "served" / "10" / "saved_model.pb", tmp_path / "renamed.pb")
    with pytest.raises(ModelError, match=r"part of a SavedModel; its folder"):
        load(tmp_path / "renamed.pb")


def graph(resource: bool) -> tuple[Any, Any]:
    x = v1.placeholder(tf.float32, (None, 8, 8, 3), name="Placeholder")
    with v1.variable_scope("net", use_resource=resource):
        draw = v1.random_normal_initializer(seed=2)
        weights = v1.get_variable("weights", (3, 3, 3, 4), initializer=draw)
        y = tf.nn.conv2d(x, weights, 1, "SAME")
        y = tf.nn.bias_add(y, v1.get_variable("biases", (4,), initializer=draw))
    return x, tf.reduce_mean(tf.nn.relu(y), [1, 2], name="net/pool")


@pytest.mark.parametrize("resource", [False, True])
def test_tensorflow_1(tmp_path: Path, resource: bool) -> None:
    """`simple_save` and the builder, as estimators and scripts of TensorFlow 1 used them."""
    with quiet(), tf.Graph().as_default(), v1.Session() as session:
        x, y = graph(resource)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "simple"), inputs={"image": x}, outputs={"scores": y})
        builder = v1.saved_model.Builder(str(tmp_path / "built"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"a": y, "b": y})
        builder.add_meta_graph_and_variables(session, ["serve", "gpu"], signature_def_map={"predict": signature})
        builder.save(as_text=True)
        builder = v1.saved_model.Builder(str(tmp_path / "bare"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.add_meta_graph(["train"])
        builder.save()
        expected = session.run(y, {x: X})
    agree(load(tmp_path / "simple"), {"scores": expected})
    assert (tmp_path / "built" / "saved_model.pbtxt").is_file()
    agree(load(tmp_path / "built"), {"a": expected, "b": expected})
    agree(load(tmp_path / "built", outputs=["b"]), {"b": expected})
    agree(load(tmp_path / "bare"), {"net/pool": expected})
    cut = load(tmp_path / "simple", outputs=["net/Conv2D"])
    assert (cut.inputs, cut.outputs) == (("image",), ("net/Conv2D",))
    behind = load(tmp_path / "simple", inputs=["net/Conv2D"], outputs=["scores"])
    assert (behind.inputs, behind.outputs) == (("net/Conv2D",), ("scores",))


def test_signatures_that_decode_images(tmp_path: Path) -> None:
    with quiet(), tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.string, (None,), name="jpegs")
        decoded = tf.map_fn(lambda one: tf.image.decode_jpeg(one, channels=3), images, tf.uint8)
        x = tf.reshape(tf.cast(decoded, tf.float32), [-1, 8, 8, 3], name="decoded")
        weights = v1.get_variable("weights", (3, 3, 3, 4), initializer=v1.random_normal_initializer(seed=1))
        y = tf.nn.conv2d(x, weights, 1, "SAME", name="Conv2D")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "m"), inputs={"jpegs": images}, outputs={"y": y})
        expected = session.run(y, {x: X})
    with pytest.raises(
        UnsupportedError, match=r"'jpegs' .*takes strings.*the first convolution reads 'decoded'.*Received: strings"
    ):
        load(tmp_path / "m")
    agree(load(tmp_path / "m", inputs=["decoded"]), {"y": expected})


def test_damage(tmp_path: Path) -> None:
    module = Module()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.pooled)
    shard = tmp_path / "m" / "variables" / "variables.data-00000-of-00001"
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ModelError, match=r"missing shard variables\.data-00000-of-00001"):
        load(tmp_path / "m")
    shard.write_bytes(whole[:10])
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(ModelError, match=r"missing variables\.index"):
        load(tmp_path / "m")
    graph_file = tmp_path / "m" / "saved_model.pb"
    content = graph_file.read_bytes()
    for cut in (content[: len(content) // 2], b"", b"text"):
        graph_file.write_bytes(cut)
        with pytest.raises(ModelError, match=r"saved_model\.pb"):
            load(tmp_path / "m")


def test_without_signatures(tmp_path: Path) -> None:
    module = Module()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"has no signatures.*signatures=module.function\).*Received: functions .*pooled"):
        load(tmp_path / "m")
    with pytest.raises(ModelError, match="no output of that name"):
        load(tmp_path / "m", outputs=["nonsense"])


def test_an_argument_that_says_this_is_training_is_false(tmp_path: Path) -> None:
    class Switching(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], name="image"), tf.TensorSpec([], tf.bool, name="training")])
        def run(self, image: Any, training: Any) -> Any:
            image = tf.nn.relu(image)
            return {"y": tf.random.uniform(tf.shape(image)) * image if training else image - 0.5}

    module = Switching()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
    expected = {"y": np.maximum(X, 0) - np.float32(0.5)}
    for frozen in (load(tmp_path / "m"), load(module.run), load(module, signature="run")):
        assert frozen.inputs == ("image",)
        assert np.array_equal(frozen.run({"image": X})["y"], expected["y"])
