"""The regenerated model as a Keras model: saved, loaded in another process, trained."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.names import escape, unescape

LOAD = """
import sys, keras, numpy, tqt_onnx.backend_tf
model = keras.models.load_model(sys.argv[1])
data = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **model.integers({"x": data}), predicted=model.predict(data, verbose=0))
"""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_names_escape_and_come_back(name):
    escaped = escape(name)
    assert unescape(escaped) == name
    assert escaped.isascii()
    assert "/" not in escaped


def test_names_stay_readable():
    assert escape("conv_1.w") == "conv_1.w"
    assert escape("a/b:0") == "a-2Fb-3A0"


@pytest.mark.parametrize("contract", ["layer16", "layer32"])
def test_a_saved_model_is_the_same_in_another_process(assorted, contract, tmp_path):
    net, output = assorted(contract)
    x = net.images()
    thresholds = {group: value + 0.125 for group, value in regenerate(net.model(output), net.graph()).log2_thresholds().items()}
    model = regenerate(net.model(output), net.graph(), thresholds)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / name for name in ("model.keras", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", LOAD, *arguments], check=True, capture_output=True)
    loaded = np.load(tmp_path / "out.npz")
    expected = model.integers({"x": x}) | {"predicted": model.predict(x, verbose=0)}
    assert set(loaded) == set(expected)
    for name, array in expected.items():
        assert (loaded[name] == array).all(), name
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, RegeneratedModel)
    assert again.log2_thresholds() == thresholds
    assert again.true_names == model.true_names
    for name, array in model.arrays().items():
        assert (again.arrays()[name] == array).all()


def test_a_saved_model_holds_its_weights_once(assorted, tmp_path):
    net, output = assorted("layer16")
    config = regenerate(net.model(output), net.graph()).get_config()
    assert max(array.nbytes for array in net.constants.values()) > 3000
    assert len(config["graph"]) * 3 // 4 < 6000  # names and attributes only


@pytest.mark.parametrize("contract", ["layer16", "layer32"])
def test_fit_moves_weights_and_thresholds(assorted, contract):
    net, output = assorted(contract)
    x, labels = net.images(8), np.arange(8) % 7
    model = regenerate(net.model(output), net.graph())
    weights, thresholds = model.arrays(), model.log2_thresholds()
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="sparse_categorical_crossentropy")
    losses = model.fit(x, labels, batch_size=8, epochs=1, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    moved = {name for name, array in model.arrays().items() if (array != weights[name]).any()}
    assert moved == set(weights)
    stayed = {group for group, value in model.log2_thresholds().items() if value == thresholds[group]}
    assert stayed <= {"dw__acc", "sum/relu"}  # their inputs are on their grid already: no rounding error, no gradient


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # for the thresholds, which are off
def test_float_training_leaves_the_thresholds_alone(assorted):
    net, output = assorted("layer16")
    model = regenerate(net.model(output), net.graph())
    model.quantizers_on = False
    thresholds, weights = model.log2_thresholds(), model.arrays()
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    model.fit(net.images(7), np.arange(7), verbose=0)
    assert model.log2_thresholds() == thresholds
    assert (model.arrays()["logits/w"] != weights["logits/w"]).any()


def test_the_model_works_inside_another(assorted):
    net, output = assorted("layer32")
    model = regenerate(net.model(output), net.graph())
    inputs = keras.Input(net.shape)
    outer = keras.Model(inputs, model(inputs))
    x = net.images()
    assert (outer.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
