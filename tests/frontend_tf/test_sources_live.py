"""Live objects: functions, modules, loaded SavedModels, Keras models that were never built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.frontend_tf import FrozenGraph, load, to_onnx
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.ir import ModelError, UsageError

X = np.random.default_rng(3).normal(size=(3, 8, 8, 3)).astype(np.float32)
SPEC = tf.TensorSpec([None, 8, 8, 3], tf.float32, name="image")
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
weights, captured = tf.Variable(KERNEL, name="weights"), tf.constant(KERNEL[0, 0, 0])


@tf.function(input_signature=[SPEC])
def with_signature(x: Any) -> Any:
    return inner(x) + captured


@tf.function
def inner(x: Any) -> Any:
    return tf.nn.conv2d(x, weights, 2, "SAME", name="conv")


@tf.function
def two(x: Any, y: Any) -> dict[str, Any]:
    return {"sum": inner(x) + inner(y), "left": tf.nn.relu(inner(x))}


class Net(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = tf.Variable(KERNEL[0, 0, 1])
        self.kernel = weights  # what is saved must be reachable

    @tf.function(input_signature=[SPEC])
    def __call__(self, image: Any) -> tuple[Any, Any]:
        return inner(image) + self.bias, inner(image)

    @tf.function(input_signature=[SPEC])
    def logits(self, image: Any) -> Any:
        return {"logits": inner(image)}


def result(frozen: FrozenGraph) -> list[Any]:
    return list(frozen.run(dict.fromkeys(frozen.inputs, X)).values())


def same(received: Any, expected: Any) -> None:
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


def test_functions() -> None:
    for function in (with_signature, with_signature.get_concrete_function()):
        frozen = load(function)
        assert (frozen.inputs, frozen.outputs, frozen.name) == (("image",), ("output_0",), "with_signature")
        same(result(frozen)[0], with_signature(X))
    assert {"BatchNormalization", "Conv"} & {node.op_type for node in to_onnx(frozen).graph}
    shaped = load(inner, input_shape=(8, 8, 3))
    same(result(shaped)[0], inner(X))
    both = load(two.get_concrete_function(SPEC, tf.TensorSpec([None, 8, 8, 3], tf.float32)))
    assert (both.inputs, both.outputs) == (("image", "y"), ("left", "sum"))
    left, total = result(both)
    same(left, two(X, X)["left"])
    same(total, two(X, X)["sum"])


def test_the_values_of_now_are_frozen() -> None:
    variable = tf.Variable(1.0)
    function = tf.function(lambda x: tf.nn.relu(x) * variable, input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    frozen = load(function)
    variable.assign(5.0)
    x = np.ones((1, 2), np.float32)
    assert np.array_equal(next(iter(frozen.run({frozen.inputs[0]: x}).values())), x)
    assert np.array_equal(next(iter(load(function).run({frozen.inputs[0]: x}).values())), 5 * x)


def test_cut_inside() -> None:
    frozen = load(with_signature, outputs=["conv"])
    assert frozen.outputs == ("conv",)
    same(result(frozen)[0], inner(X))
    with pytest.raises(ModelError, match="no output of that name"):
        load(with_signature, outputs=["nonsense"])


def test_functions_that_cannot_be_traced() -> None:
    with pytest.raises(ModelError, match=r"'inner' cannot be traced; give it an input_signature, or give the input shape"):
        load(inner)

    @tf.function
    def failing(x: Any) -> Any:
        raise RuntimeError("no way")

    with pytest.raises(ModelError, match=r"'failing' cannot be traced\. Received: RuntimeError.*no way"):
        load(failing, input_shape=(2,))
    with pytest.raises(UsageError, match="signature"):
        load(with_signature, signature="x")
    with pytest.raises(UsageError, match="checkpoint"):
        load(with_signature, checkpoint="x")
    with pytest.raises(ModelError, match="Received: function"):
        load(lambda x: x)


def test_modules_and_loaded_models(tmp_path: Path) -> None:
    net = Net()
    frozen = load(net)
    assert frozen.outputs == ("output_0", "output_1")
    same(result(frozen)[0], net(X)[0])
    assert load(net, signature="logits").outputs == ("logits",)
    with pytest.raises(ModelError, match=r"Net: no such signature or tf.function.*Received: signature='bias'"):
        load(net, signature="bias")
    with pytest.raises(ModelError, match=r"__call__ that is a tf\.function"):
        load(tf.Module())
    with quiet():
        tf.saved_model.save(net, str(tmp_path / "m"), signatures={"a": net.logits, "b": net.logits})
        loaded = tf.saved_model.load(str(tmp_path / "m"))
    with pytest.raises(ModelError, match="give the signature; there are: a, b"):
        load(loaded)
    frozen = load(loaded, signature="b")
    assert (frozen.inputs, frozen.outputs) == (("image",), ("logits",))
    same(result(frozen)[0], inner(X))
    same(result(load(loaded.logits))[0], inner(X))


def test_keras_models_that_were_never_built() -> None:
    model = keras.Sequential([keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(name="flat")])
    with pytest.raises(ModelError, match="give the input shape"):
        load(model)
    frozen = load(model, input_shape=(8, 8, 3))
    same(result(frozen)[0], model(X))
    for option in ("checkpoint", "signature"):
        with pytest.raises(UsageError, match=option):
            load(model, **{option: "x"})


def test_options() -> None:
    with pytest.raises(UsageError, match="a list of names"):
        load(with_signature, outputs="conv")
    with pytest.raises(UsageError, match="H,W,C"):
        load(with_signature, input_shape=(8, 8, 0))
