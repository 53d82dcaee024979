"""Generated Keras models: what TensorFlow computes, onnxruntime computes on the converted model; batch norms survive."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph, load, to_onnx
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import SOURCE_KEY, ModelError, UsageError, constant

L = keras.layers
Check = Callable[..., None]


def ops(model: onnx_ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def randomize(model: keras.Model) -> keras.Model:
    """No moving mean of 0 and variance of 1: such a batch norm could be lost unnoticed."""
    rng = np.random.default_rng(7)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    return model


def convert(assert_same: Check, model: keras.Model) -> tuple[FrozenGraph, onnx_ir.Model]:
    frozen = load(randomize(model))
    converted = to_onnx(frozen)
    assert_same(frozen, converted)
    for node in converted.graph:
        for value in node.outputs:
            assert value.shape is not None and all(isinstance(dim, int) for dim in list(value.shape)[1:])
            assert str(value.shape[0]) == "N"
    return frozen, converted


def test_sequential_with_every_usual_layer(assert_same: Check) -> None:
    model = keras.Sequential(
        [
            L.Input((16, 16, 3), name="image"),
            L.Rescaling(1 / 127.5, offset=-1),
            L.ZeroPadding2D(((0, 1), (0, 1))),
            L.Conv2D(8, 3, strides=2, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False),
            L.BatchNormalization(),
            L.Activation("relu6"),
            L.MaxPooling2D(2),
            L.AveragePooling2D(2),
            L.Flatten(),
            L.Dense(12),
            L.BatchNormalization(),
            L.ReLU(),
            L.Dense(5, activation="softmax", name="classes"),
        ]
    )
    frozen, converted = convert(assert_same, model)
    assert (frozen.inputs, frozen.outputs) == (("image",), ("classes",))
    found = ops(converted)
    assert (found["BatchNormalization"], found["Clip"], found["Transpose"], found["Conv"]) == (3, 2, 2, 2)
    assert not {"Shape", "Sqrt", "Reciprocal", "Identity"} & set(found)  # the second Transpose is Flatten's


def test_functional_with_residuals(assert_same: Check) -> None:
    inputs = keras.Input((8, 8, 3), name="x")
    x = L.Conv2D(4, 3, padding="same", strides=2)(inputs)
    for _ in range(2):
        y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
        x = L.ReLU()(L.Add()([x, y]))
    outputs = L.Dense(3, name="logits")(L.GlobalAveragePooling2D()(x))
    frozen, converted = convert(assert_same, keras.Model(inputs, outputs))
    assert frozen.outputs == ("logits",)
    assert (ops(converted)["BatchNormalization"], ops(converted)["Transpose"]) == (2, 1)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 1, 1), (6,)])
def test_batch_norm_alone(shape: tuple[int, ...], scale: bool, center: bool, assert_same: Check) -> None:
    layer = L.BatchNormalization(scale=scale, center=center, epsilon=0.25, name="bn")
    _, converted = convert(assert_same, keras.Sequential([L.Input(shape), layer]))
    (node,) = (node for node in converted.graph if node.op_type == "BatchNormalization")
    assert not {"Mul", "Add", "Sub", "Sqrt", "Reciprocal"} & set(ops(converted))
    assert node.attributes["epsilon"].as_float() == 0.25
    gamma, beta, mean, variance = (constant(value) for value in node.inputs[1:])
    np.testing.assert_array_equal(mean, layer.moving_mean)
    np.testing.assert_array_equal(variance, layer.moving_variance)
    np.testing.assert_array_equal(gamma, layer.gamma if scale else np.ones(shape[-1]))
    np.testing.assert_array_equal(beta, layer.beta if center else np.zeros(shape[-1]))


def test_batch_norm_on_axis_1_and_behind_flatten(assert_same: Check) -> None:
    layers = [L.Input((4, 5, 3)), L.BatchNormalization(axis=1), L.Flatten(), L.BatchNormalization(), L.Dense(2)]
    frozen = load(randomize(keras.Sequential(layers)))
    converted = to_onnx(frozen)
    assert ops(converted)["BatchNormalization"] == 2
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    reference = keras.Sequential(layers)(x, training=False).numpy()
    np.testing.assert_allclose(next(iter(frozen.run({frozen.inputs[0]: x}).values())), reference, rtol=0, atol=1e-6)
    assert_same(frozen, converted)


def test_nearly_batch_norm_stays() -> None:
    """A normalization by something that is not constant is none of ours."""

    class Nearly(L.Layer):
        def call(self, x: object) -> object:
            inverse = keras.ops.rsqrt(keras.ops.mean(x, axis=(0, 1, 2)) ** 2 + 1e-3)
            return x * inverse - inverse

    converted = to_onnx(load(keras.Sequential([L.Input((4, 4, 3)), Nearly()])))
    assert ops(converted)["BatchNormalization"] == 0


def test_several_inputs_and_outputs_keep_names_and_order(assert_same: Check) -> None:
    ends = {"b": keras.Input((3,), name="b"), "a": keras.Input((2,), name="a")}
    outputs = [L.Dense(3, name="second")(ends["b"]), L.Dense(2, name="first")(ends["a"])]
    frozen, _ = convert(assert_same, keras.Model(ends, outputs))
    assert set(frozen.inputs) == {"a", "b"}
    assert frozen.outputs == ("second", "first")


def test_sources_and_names_are_stable() -> None:
    model = keras.Sequential([L.Input((8, 8, 3)), L.DepthwiseConv2D(3, name="dw"), L.Conv2D(4, 1, name="pw"), L.Flatten()])
    first, second = (to_onnx(load(model)) for _ in range(2))
    sources = [node.metadata_props[SOURCE_KEY] for node in first.graph]
    known = {node.name for node in load(model).graph_def.node}
    assert set(sources) <= known and any("dw" in source for source in sources)
    names = [[value.name for node in model.graph for value in (*node.inputs, *node.outputs)] for model in (first, second)]
    assert names[0] == names[1]
    assert not any("__4" in str(name) for name in names[0])


def test_nodes_are_named_after_layers(assert_same: Check) -> None:
    shared, other = L.Dense(3, name="dense"), L.Dense(3, name="dense_1")
    inner = keras.Sequential([L.Input((3,)), L.Dense(3, name="dense")], name="inner")
    x = inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, shared(inner(other(shared(x)))), name="net")
    frozen, converted = convert(assert_same, model)
    sources = [node.metadata_props[SOURCE_KEY] for node in converted.graph if node.op_type == "MatMul"]
    assert sources == ["net/dense/MatMul", "net/dense_1/MatMul", "net/inner/dense/MatMul", "net/dense_2/MatMul"]
    for layer in (model, shared, other, inner):
        assert "call" not in vars(layer)
    by_name = {node.name: node for node in frozen.graph_def.node}
    kernel = tf.make_ndarray(by_name[by_name[by_name["net/dense_1/MatMul"].input[1]].input[0]].attr["value"].tensor)
    np.testing.assert_array_equal(kernel, other.kernel)


def test_batch_is_dynamic_and_open_sizes_are_asked_for(assert_same: Check) -> None:
    model = keras.Sequential([L.Input((None, None, 3)), L.Conv2D(2, 3), L.GlobalAveragePooling2D()])
    with pytest.raises(ModelError, match="give the input shape"):
        load(model)
    with pytest.raises(ModelError, match="Received"):
        load(model, input_shape=(8, 8, 4))
    with pytest.raises(UsageError, match="H,W,C"):
        load(model, input_shape=(0, 8, 3))
    frozen = load(model, input_shape=(8, 9, 3))
    assert list(frozen.input_shapes.values()) == [(None, 8, 9, 3)]
    converted = to_onnx(frozen)
    assert_same(frozen, converted, batch=1)
    assert_same(frozen, converted, batch=5)


def test_subclassed_model_needs_a_shape(assert_same: Check) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: object, training: bool = False) -> object:
            return self.dense(x)

    with pytest.raises(ModelError, match="input shape"):
        load(Own())
    frozen = load(Own(), input_shape=(4,))
    assert (frozen.inputs, frozen.outputs) == (("input",), ("output",))
    assert_same(frozen, to_onnx(frozen))


def test_files(tmp_path: Path, assert_same: Check) -> None:
    model = keras.Sequential([L.Input((4,)), L.Dense(2, name="out")])
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        frozen = load(tmp_path / name)
        assert_same(frozen, to_onnx(frozen))
        whole = (tmp_path / name).read_bytes()
        for cut in (0, 100, len(whole) // 2):
            (tmp_path / f"cut_{name}").write_bytes(whole[:cut])
            with pytest.raises(ModelError, match=f"cut_{name}"):
                load(tmp_path / f"cut_{name}")
        with pytest.raises(UsageError, match="Keras"):
            load(tmp_path / name, outputs=["out"])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(tmp_path: Path, suffix: str) -> None:
    keras.Sequential([L.Input((4,)), L.Lambda(lambda x: x * 2)]).save(tmp_path / f"m{suffix}")
    with pytest.raises(ModelError, match="Lambda"):
        load(tmp_path / f"m{suffix}")


def test_keras_2_depthwise_with_stray_groups(tmp_path: Path, assert_same: Check) -> None:
    import h5py

    keras.Sequential([L.Input((4, 4, 2)), L.DepthwiseConv2D(3)]).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = file.attrs["model_config"]
        file.attrs["model_config"] = config.replace('"depth_multiplier": 1', '"depth_multiplier": 1, "groups": 1')
        assert "groups" in file.attrs["model_config"]
    frozen = load(tmp_path / "m.h5")
    assert_same(frozen, to_onnx(frozen))


def test_nothing_reaches_the_terminal(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    to_onnx(load(keras.Sequential([L.Input((4, 4, 2)), L.Conv2D(2, 3), L.BatchNormalization()])))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    names = {record.name for record in caplog.records if record.levelno > logging.DEBUG or "tf2onnx" in record.name}
    assert names == set()
    assert any("tf2onnx" in record.getMessage() for record in caplog.records)  # diverted, not lost


def test_native_chatter_is_held_back_and_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"from C++")
        print("from Python")  # noqa: T201
    os.write(2, b"after")
    assert capfd.readouterr() == ("", "after")


@pytest.mark.parametrize(
    "options", [{"strides": 3, "kernel_size": 2}, {"strides": 2, "kernel_size": 3, "padding": "same", "output_padding": 1}]
)
def test_transposed_convolutions_beyond_their_kernel(options: dict[str, Any], assert_same: Check) -> None:
    """A Keras model takes the same rewrites as a graph file: tf2onnx alone writes negative pads here."""
    image = keras.Input((5, 4, 3))
    convert(assert_same, keras.Model(image, keras.layers.Conv2DTranspose(4, **options)(image)))


def test_a_square_of_one_pixel(assert_same: Check) -> None:
    """A layer norm's variance where the image is 1x1: tf2onnx alone writes a Reshape by a shape that the square no longer has."""
    image = keras.Input((4, 4, 3))
    x = L.LayerNormalization()(L.Conv2D(4, 2, strides=2)(image))
    x = L.Conv2D(6, 3, padding="same", groups=6)(L.Conv2D(6, 2)(x))
    frozen = load(keras.Model(image, L.LayerNormalization()(x)))
    assert_same(frozen, to_onnx(frozen))
