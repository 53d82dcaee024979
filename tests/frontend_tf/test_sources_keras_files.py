"""Keras files of every age: Keras 3 writes them here, and their architecture is put back into the words of Keras 2."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tqt_onnx.frontend_tf import load
from tqt_onnx.frontend_tf.quiet import quiet
from tqt_onnx.frontend_tf.readers.keras_2 import modernized
from tqt_onnx.ir import ModelError, UnsupportedError

L = keras.layers
X = np.random.default_rng(3).uniform(-3, 3, size=(3, 8, 8, 3)).astype(np.float32)
Edit = Callable[[dict[str, Any]], None]


def write(path: Path, model: keras.Model, edit: Edit | None = None, version: str = "2.4.0") -> Path:
    """Saves a model; every layer of its architecture is edited, and the Keras version written is another."""
    with quiet():
        model.save(path)
    if edit is None:
        return path

    def edited(text: Any) -> str:
        config = json.loads(text)
        for layer in [config, *config["config"]["layers"]]:
            edit(layer)
        return json.dumps(config)

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = edited(file.attrs["model_config"])
            file.attrs["keras_version"] = version
        return path
    whole = path.with_suffix(".whole")
    path.rename(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content: Any = source.read(name)
            content = edited(content) if name == "config.json" else content
            target.writestr(name, json.dumps({"keras_version": version}) if name == "metadata.json" else content)
    return path


def computed(path: Path, **options: Any) -> Any:
    frozen = load(path, **options)
    (result,) = frozen.run({frozen.inputs[0]: X}).values()
    return result


def sequential(*layers: Any) -> keras.Model:
    model = keras.Sequential([L.Input((8, 8, 3), name="image"), *layers], name="net")
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def stray(**arguments: Any) -> Edit:
    def edit(layer: dict[str, Any]) -> None:
        kinds = ("DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "BatchNormalization")
        if layer["class_name"] in kinds:
            layer["config"].update(arguments)

    return edit


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), {"groups": 1}),
        (lambda: L.SeparableConv2D(4, 3), {"groups": 1}),
        (lambda: L.Conv2DTranspose(4, 3), {"groups": 1}),
        (L.BatchNormalization, {"renorm": False, "virtual_batch_size": None, "fused": True}),
    ],
)
def test_arguments_that_said_nothing(tmp_path: Path, suffix: str, layer: Any, arguments: dict[str, Any]) -> None:
    model = sequential(layer())
    path = write(tmp_path / f"m{suffix}", model, stray(**arguments))
    with quiet(), pytest.raises((TypeError, ValueError)):
        keras.models.load_model(path)
    np.testing.assert_allclose(computed(path), model(X, training=False), rtol=0, atol=1e-5)


def test_arguments_that_said_something_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.h5", sequential(L.DepthwiseConv2D(3)), stray(groups=3))
    with pytest.raises(ModelError, match="groups"):
        load(path)


def test_input_of_keras_2(tmp_path: Path) -> None:
    def edit(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "InputLayer":
            shape = layer["config"].pop("batch_shape")
            layer["config"].update(batch_input_shape=shape, sparse=False, ragged=False)
        layer["config"].pop("optional", None)

    model = sequential(L.Conv2D(2, 3), L.Activation("relu6"), L.LeakyReLU(0.1))
    np.testing.assert_allclose(computed(write(tmp_path / "m.h5", model, edit)), model(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("version", "slope"), [("2.4.0", 0.2), ("", 0.2), ("3.15.0", 1 / 6)])
def test_hard_sigmoid_had_another_slope(tmp_path: Path, version: str, slope: float) -> None:
    path = write(tmp_path / "m.h5", sequential(L.Activation("hard_sigmoid")), lambda layer: None, version)
    np.testing.assert_allclose(computed(path), np.clip(slope * X + 0.5, 0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_names_with_a_slash_come_back(tmp_path: Path, suffix: str) -> None:
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.BatchNormalization(name="block.bn")(L.Conv2D(4, 3, name="block.conv")(x))
    model = keras.Model(inputs, L.Add(name="block.sum")([x, L.ReLU(name="block.relu")(x)]), name="net")

    def edit(layer: dict[str, Any]) -> None:
        layer.update(json.loads(json.dumps(layer).replace("block.", "block/")))

    path = write(tmp_path / f"m{suffix}", model, edit)
    frozen = load(path)
    assert frozen.outputs == ("block/sum",)
    assert any(node.name.startswith("net/block/conv/") for node in frozen.graph_def.node)
    np.testing.assert_allclose(computed(path), model(X, training=False), rtol=0, atol=1e-5)


def test_modern_architectures_are_left_alone() -> None:
    config = keras.Sequential([L.Input((4, 4, 2)), L.DepthwiseConv2D(3), L.Activation("hard_sigmoid")]).to_json()
    assert modernized(json.loads(config), "3.15.0") == (json.loads(config), {})
    old = {"class_name": "LeakyReLU", "config": {"name": "a/b", "alpha": {"type": "ndarray", "value": 0.3}}}
    assert modernized(old, "2.1.0") == ({"class_name": "LeakyReLU", "config": {"name": "a>b", "alpha": 0.3}}, {"a>b": "a/b"})
    assert modernized({"class_name": "BatchNormalizationV1", "config": {"mode": 0}}, "2.2.4-tf") == (
        {"class_name": "BatchNormalization", "config": {}},
        {},
    )


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_lambda_layers_run_only_when_trusted(tmp_path: Path, suffix: str) -> None:
    inner = keras.Sequential([L.Input((8, 8, 3)), L.Lambda(lambda x: x * 2 + 1, output_shape=(8, 8, 3), name="code")])
    path = write(tmp_path / f"m{suffix}", sequential(inner))
    with pytest.raises(ModelError, match=r"m\..*holds a Lambda layer \('code'\).*--trust.*Received: Lambda"):
        load(path)
    assert np.array_equal(computed(path, trust=True), X * 2 + 1)


@pytest.mark.parametrize("kind", ["TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda"])
def test_bare_functions_are_refused(tmp_path: Path, kind: str) -> None:
    def edit(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "ReLU":
            layer.update(class_name=kind, config={"name": "tf.math.add", "function": "math.add"})

    path = write(tmp_path / "m.h5", sequential(L.ReLU()), edit)
    with pytest.raises(
        UnsupportedError, match=rf"'tf.math.add' is a bare TensorFlow function.*a SavedModel.*Received: {kind} math.add"
    ):
        load(path)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_layers_of_ones_own_are_named(tmp_path: Path, suffix: str) -> None:
    def edit(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "ReLU":
            layer.update(class_name="Mine", module=None, registered_name="Mine")

    with pytest.raises(ModelError, match=r"made with 'Mine', Python code.*model\.export.*live keras\.Model\. Received: Mine$"):
        load(write(tmp_path / f"m{suffix}", sequential(L.ReLU()), edit))


def test_inputs_of_bytes_are_refused(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3), dtype="uint8")
    keras.Model(image, L.Rescaling(1 / 255)(image)).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match=r"keras\.Input\(shape\) of float32.*Received: uint8"):
        load(tmp_path / "m.keras")


def test_what_is_not_a_whole_model(tmp_path: Path) -> None:
    model = sequential(L.Conv2D(2, 3, name="conv"))
    with quiet():
        model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(model.to_json())
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv")
    for name in ("m.weights.h5", "old.h5"):
        with pytest.raises(ModelError, match="holds weights without the architecture"):
            load(tmp_path / name)
    with pytest.raises(ModelError, match="architecture without weights"):
        load(tmp_path / "m.json")
    for text in ("{not json", "[" * 100_000, "[" * 400 + "]" * 400):
        with h5py.File(tmp_path / "text.h5", "w") as file:
            file.attrs["model_config"] = text
        with pytest.raises(ModelError, match=r"text\.h5"):
            load(tmp_path / "text.h5")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_suffix_does_not_matter(tmp_path: Path, suffix: str) -> None:
    model = sequential(L.Conv2D(2, 3))
    path = write(tmp_path / f"m{suffix}", model)
    expected = model(X)
    for name in ("a.keras", "b.h5", "c.hdf5", "d"):
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "other" / name)
        np.testing.assert_allclose(computed(tmp_path / "other" / name), expected, rtol=0, atol=1e-5)
    (tmp_path / "folder").mkdir()
    shutil.copy(path, tmp_path / "folder")
    np.testing.assert_allclose(computed(tmp_path / "folder"), expected, rtol=0, atol=1e-5)
    shutil.copy(path, tmp_path / "folder" / f"n{suffix}")
    with pytest.raises(ModelError, match="several models"):
        load(tmp_path / "folder")
