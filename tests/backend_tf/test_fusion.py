"""Ends of layers in one pass: the same integers as the steps one by one, the same masks, nearly the same sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.backend_tf import regenerate
from tqt_onnx.backend_tf.fusion import EPILOGUE, fused
from tqt_onnx.ir import integer_name
from tqt_onnx.kernels import fixed_point, native

CONTRACTS = pytest.mark.parametrize("contract", ["layer16", "layer32"])


@pytest.fixture(params=["native", "xla"])
def road(request, monkeypatch):
    if request.param == "xla":
        monkeypatch.setattr(native, "operators", lambda: None)
    elif native.operators() is None:
        pytest.skip("no native operators")


def steps(model, *kept):
    program, left = fused(model.program, model.quantizer_graph().by_value(), kept)
    return program.steps, left


def gradients(model, x, name, one_pass):
    """The output, and the gradients of the sum of its squares by thresholds and weights: operator by operator where None."""
    thresholds = tf.constant(model.threshold_vector())
    weights = [weight.value for weight in model.trainable_weights_only]

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(thresholds)
            y = model._run({"x": x}, model.wide_layers(), model._decided, thresholds=thresholds, one_pass=one_pass)[0][name]
            loss = tf.reduce_sum(y * y)
        return y, tape.gradient(loss, [thresholds, *weights])

    return tf.function(run, autograph=False)(tf.constant(x))


@CONTRACTS
def test_the_chains_of_an_assorted_net(assorted, contract):
    """Six layers end in one pass each, and the sum with its rescaled shortcut in another."""
    net, output = assorted(contract)
    model = regenerate(net.model(output), net.graph())
    found, left = steps(model)
    count = Counter(step.op for step in found)
    assert {name: count[name] for name in ("Add", "Relu", "Clip")} == {"Add": 0, "Relu": 0, "Clip": 0}
    ends = {step.outputs[0]: step for step in found if step.op == EPILOGUE}
    assert ends["sum/relu"].inputs == (("short", "pw") if contract == "layer16" else ("pw", "short"))
    assert ends["sum/relu"].attributes["first"].role == ("rescale" if contract == "layer16" else "activation")
    unbiased = {"pw"} if contract == "layer16" else set()  # in layer32 there is nothing but a quantizer behind it
    assert set(ends) - unbiased == {"stem/conv/clip", "dw/clip", "sum/relu", "left/relu", "right/relu", "hidden/relu", "logits"}
    assert not set(ends) & set(left)


@CONTRACTS
@pytest.mark.parametrize("seed", [0, 1])
def test_one_pass_gives_the_integers_and_the_gradients_of_the_steps_one_by_one(assorted, road, contract, seed):
    net, output = assorted(contract, seed)
    model, x = regenerate(net.model(output), net.graph()), net.images()
    kept = ("sum/relu", "joined", "logits")
    feeds = {"x": tf.constant(x)}
    traced = tf.function(lambda: model.forward(feeds, also=kept), autograph=False)()
    integers, graph = model.integers({"x": x}), model.quantizer_graph().by_value()
    for received in (traced, model.forward(feeds, also=kept)):
        assert (received[output].numpy() == model(x).numpy()).all()
        for name in ("sum/relu", "logits"):
            expected = fixed_point.dequantize(integers[integer_name(name)], graph[name].exponent)
            assert (received[name].numpy() == expected).all()
    (y, mine), (expected, reference) = (gradients(model, x, output, one_pass) for one_pass in ((), None))
    assert (y.numpy() == expected.numpy()).all()
    for ours, other in zip(mine, reference, strict=True):
        assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max() + 1e-9


@CONTRACTS
def test_traced_training_has_the_integers_of_the_eager_run(assorted, contract):
    """TensorFlow's optimizer rewrites traced graphs; no quantizer of a convolutional network may see that."""
    net, output = assorted(contract)
    model, x = regenerate(net.model(output), net.graph()), net.images(16)
    names = [quantizer.value for quantizer in model.quantizer_graph().quantizers if quantizer.role in ("activation", "rescale")]
    thresholds = tf.constant(model.threshold_vector())

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(thresholds)
            found = model.forward({"x": x}, thresholds, training=True, also=names)
            loss = tf.reduce_sum(found["logits"] ** 2)
        return found, tape.gradient(loss, thresholds)

    found, slope = tf.function(step, autograph=False)(tf.constant(x))
    assert np.abs(slope).max() > 0
    integers, graph = model.integers({"x": x}), model.quantizer_graph().by_value()
    for name in names:
        assert (found[name].numpy() == fixed_point.dequantize(integers[integer_name(name)], graph[name].exponent)).all(), name


def test_values_that_somebody_asks_for_stay(assorted):
    net, output = assorted("layer16")
    model, x = regenerate(net.model(output), net.graph()), net.images()
    inside = ("dw", "sum", "short", "hidden__acc")
    found, left = steps(model, *inside)
    assert set(inside) <= {name for step in found for name in step.outputs}
    assert {"short", "hidden__acc"} <= set(left)
    received = model.forward({"x": tf.constant(x)}, also=inside)
    reference = model._run({"x": tf.constant(x)}, frozenset(), model._decided)[1]
    assert all((received[name].numpy() == reference.value(name).onnx.numpy()).all() for name in inside)


def test_a_value_with_two_readers_ends_a_chain(net):
    built = net("layer16")
    y = built.conv("c", built.top, (3, 4), act=None)
    z = built.node("Relu", ["c__acc"], "z")
    built.quantize(z, 8, False, "activation", -5)
    model, x = regenerate(built.model(y, z), built.graph()), built.images()
    found, left = steps(model)
    assert "c__acc" in left
    assert [step.attributes["first"] for step in found if step.op == EPILOGUE] == [None]
    expected = model(x)
    received = model.forward({"x": tf.constant(x)})
    assert all((received[name].numpy() == expected[name].numpy()).all() for name in (y, z))


@pytest.mark.parametrize("rank", [3, 4])
def test_what_broadcasts_otherwise_than_a_bias_is_added_as_it_is(net, rank):
    built = net("layer16", (5, 4, 3))
    a = built.conv("c", built.top, (3, 4), act=None)
    built.normal("row", *(1, 4, 5, 1)[4 - rank :])
    built.quantize("row", 8, True, "activation", -8)
    y = built.activation(built.node("Add", ["row", a], "sum"), "relu")
    model, x = regenerate(built.model(y), built.graph()), built.images()
    assert any(step.inputs == (a, "row") for step in steps(model)[0])
    (received, mine), (expected, reference) = (gradients(model, x, y, one_pass) for one_pass in ((), None))
    assert (received.numpy() == expected.numpy()).all()
    assert all(np.allclose(ours, other, rtol=1e-5, atol=1e-6) for ours, other in zip(mine, reference, strict=True))


@CONTRACTS
def test_a_layer_in_float64_stays_exact(net, contract):
    built = net(contract, (1, 1, 1024))
    built.constant("shape", np.array([-1, 1024]))
    y = built.dense("d", built.node("Reshape", [built.top, "shape"], "flat"), (1024, 8), act="relu")
    built.quantizers = [replace(q, bits=16) if q.id == "x__input" else q for q in built.quantizers]
    model, x = regenerate(built.model(y), built.graph()), built.images() * 100
    assert model.wide_layers()
    received = tf.function(lambda x: model.forward({"x": x}), autograph=False)(tf.constant(x))[y]
    expected = fixed_point.dequantize(model.integers({"x": x})[integer_name(y)], model.quantizer_graph().by_value()[y].exponent)
    assert (received.numpy() == expected).all()


def test_only_training_takes_native_operators(assorted):
    """What is exported must run where they are not."""
    if native.operators() is None:
        pytest.skip("no native operators")
    net, output = assorted("layer16")
    model = regenerate(net.model(output), net.graph())
    for training in (False, True):
        traced = tf.function(lambda x, training=training: model(x, training=training), autograph=False)
        graph = traced.get_concrete_function(tf.TensorSpec([None, *net.shape])).graph
        assert any(op.type.startswith("TqtOnnx") for op in graph.get_operations()) == training


def clip_net(net, low, high):
    built = net("layer16")
    names = ["" if bound is None else built.constant(name, np.float32(bound)) for name, bound in (("low", low), ("high", high))]
    return regenerate(built.model(built.node("Clip", ["x", *names], "y"))), built


@pytest.mark.parametrize(
    ("low", "high", "operators"),
    [(0, 6, ["Relu6"]), (0, 1, ["Minimum", "Relu"]), (0, None, ["Relu"]), (-1, 6, ["Maximum", "Minimum"]), (None, 6, ["Minimum"])],
)
def test_a_float_clip_from_zero_is_a_rectifier(net, low, high, operators):
    """So that its gradient is one pass, and TensorFlow does it together with the convolution in front."""
    model, built = clip_net(net, low, high)
    traced = tf.function(lambda x: model.forward({"x": x}, quantized=False)["y"], autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec([4, *built.shape])).graph
    found = sorted(op.type for op in graph.get_operations() if op.type in ("Relu", "Relu6", "Maximum", "Minimum"))
    assert found == operators
    special = [np.nan, -0.0, 0.0, np.inf, -np.inf, 5.9999995, 6.0, 6.0000005, -3e38, 2.0**-126]
    x = np.resize(np.float32([*special, *np.random.default_rng(0).normal(size=55) * 5]), (4, *built.shape))
    raised = tf.constant(x) if low is None else tf.maximum(x, np.float32(low))
    expected = (raised if high is None else tf.minimum(raised, np.float32(high))).numpy()
    assert np.array_equal(expected, np.clip(x, low, high), equal_nan=True)
    assert traced(tf.constant(x)).numpy().tobytes() == expected.tobytes()
    assert model.forward({"x": tf.constant(x)}, quantized=False)["y"].numpy().tobytes() == expected.tobytes()


def test_a_quantized_clip_passes_the_gradient_at_its_bounds(net):
    """What is on a grid is often just zero or just six: inside, as T2 has it."""
    built = net("layer16", (1, 1, 5))
    built.constant("low", np.float32(0)), built.constant("high", np.float32(3))
    model = regenerate(built.model(built.node("Clip", [built.top, "low", "high"], "y")), built.graph())
    x = tf.constant(np.float32([-0.5, 0, 1, 3, 3.5]).reshape(1, 1, 1, 5))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model.forward({"x": x})["y"]
    assert tape.gradient(y, x).numpy().ravel().tolist() == [0, 1, 1, 1, 0]
