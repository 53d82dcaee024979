"""Batch norm in every form, from TensorFlow to the folded network: what is left, what it computes, and with which bits.

Every form is converted twice, with batch norms folded and kept (B0). Folded, the expected operators are left and nothing
else; kept, there is one BatchNormalization for each and no small operator; folding a kept one later gives the same model bit
for bit; both agree with TensorFlow; and where the batch norm stands behind one layer, the new weight and bias are float64
sums rounded to float32 once (B1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from tf_networks import EPSILON, FORMS, WITHOUT_CENTER, WITHOUT_SCALE, Network, graph_def  # noqa: E402

from tqt_onnx.frontend_tf import FrozenGraph, load, to_onnx  # noqa: E402
from tqt_onnx.frontend_tf.inference.freeze import freeze_graph_def  # noqa: E402
from tqt_onnx.ir import attribute, constant  # noqa: E402
from tqt_onnx.passes import optimize  # noqa: E402
from tqt_onnx.verify import Session  # noqa: E402

TOLERANCE = 1e-5
"""Of the output's range: TensorFlow normalizes in float32 behind the sum, we round the weights; sums of a few hundred terms."""

SMALL_OPERATORS = {"Mul", "Add", "Sub", "Div"}


def assert_agrees(frozen: FrozenGraph, model: onnx_ir.Model) -> None:
    rng = np.random.default_rng(2)
    feeds = {
        name: rng.uniform(-1, 1, [3 if dim is None else dim for dim in shape]).astype(np.float32)
        for name, shape in frozen.input_shapes.items()
    }
    received = Session(model, optimize=False).run(feeds)
    for name, theirs in frozen.run(feeds).items():
        assert received[name].shape == theirs.shape and np.ptp(theirs) > 0
        assert np.abs(received[name].astype(np.float64) - theirs).max() <= TOLERANCE * np.ptp(theirs)


def operators(model: onnx_ir.Model) -> str:
    """Without the change of layout at either end."""
    found = [node.op_type for node in model.graph]
    return " ".join(kind for kind in found if kind != "Transpose")


def both(frozen: FrozenGraph, norms: int) -> tuple[onnx_ir.Model, onnx_ir.Model]:
    """Folded and kept, after everything that holds for any form."""
    folded, kept = to_onnx(frozen), to_onnx(frozen)
    optimize(folded)
    optimize(kept, keep_batch_norm=True)
    assert_agrees(frozen, folded)
    assert_agrees(frozen, kept)
    assert operators(kept).split().count("BatchNormalization") == norms
    assert "BatchNormalization" not in operators(folded)
    for model, keep in ((folded, False), (kept, True)):
        once = onnx_ir.to_onnx_text(model)
        assert optimize(model, keep_batch_norm=keep) is False
        assert onnx_ir.to_onnx_text(model) == once
    later = kept.clone()
    optimize(later)
    assert operators(later) == operators(folded)
    for name, value in folded.graph.initializers.items():
        np.testing.assert_array_equal(later.graph.initializers[name].const_value.numpy(), value.const_value.numpy(), name)
    return folded, kept


def frozen_graph(build: Callable[[Network, Any], Any], shape: tuple[int, ...]) -> FrozenGraph:
    return freeze_graph_def(graph_def(build, shape), "test", "test", None, None, None)


def parameters(channels: int) -> dict[str, Any]:
    """Gamma zero and negative, a variance far below epsilon, and one far above."""
    rng = np.random.default_rng(channels)
    found = {name: rng.normal(size=channels).astype(np.float32) for name in ("mean", "gamma", "beta")}
    found["variance"] = rng.uniform(0.5, 2, channels).astype(np.float32)
    found["gamma"][:2] = 0, -1.5
    found["variance"][2:4] = 1e-9, 1e4
    return found


LAYERS: dict[str, tuple[tuple[int, ...], int, Callable[[Network, Any], Any], str]] = {
    "conv": ((6, 6, 3), 4, lambda net, x: net.conv(x), "Conv"),
    "conv, bias": ((6, 6, 3), 4, lambda net, x: net.bias(net.conv(x, strides=2)), "Conv"),
    "depthwise": ((6, 6, 4), 4, lambda net, x: net.depthwise(x), "Conv"),
    "depthwise x2, bias": ((6, 6, 4), 8, lambda net, x: net.bias(net.depthwise(x, 2)), "Conv"),
    "transposed": ((4, 4, 3), 4, lambda net, x: net.transposed(x), "ConvTranspose"),
    "transposed, bias": ((4, 4, 3), 4, lambda net, x: net.bias(net.transposed(x)), "ConvTranspose"),
    "dense": ((6,), 4, lambda net, x: net.dense(x), "Gemm"),
    "dense, bias": ((6,), 4, lambda net, x: net.bias(net.dense(x)), "Gemm"),
}


IMAGE_FORMS = [form for form in FORMS if form != "V3 NCHW"]
VECTOR_FORMS = [form for form in FORMS if not form.startswith("V")]  # TensorFlow's operator takes nothing but rank 4
FEW_FORMS = ["V2", "small, neither", "sqrt, gamma first", "added last"]


def spellings(layer: str) -> list[str]:
    """All of them behind one image layer and one matrix, a few behind the others."""
    if layer in ("conv, bias", "dense"):
        return IMAGE_FORMS if layer == "conv, bias" else VECTOR_FORMS
    return [form for form in FEW_FORMS if form in (IMAGE_FORMS if len(LAYERS[layer][0]) == 3 else VECTOR_FORMS)]


@pytest.mark.parametrize(("layer", "form"), [(layer, form) for layer in LAYERS for form in spellings(layer)])
def test_behind_a_layer_every_spelling_is_folded_in_float64(layer: str, form: str) -> None:
    shape, channels, build, expected = LAYERS[layer]
    values = parameters(channels)
    frozen = frozen_graph(lambda net, x: net.norm(build(net, x), form, values), shape)
    folded, kept = both(frozen, 1)
    (node,) = (node for node in folded.graph if node.op_type != "Transpose")
    layer_kept, norm = (node for node in kept.graph if node.op_type != "Transpose")
    assert (node.op_type, norm.op_type) == (expected, "BatchNormalization")
    gamma, beta, mean, variance = (constant(value) for value in norm.inputs[1:])
    np.testing.assert_array_equal(gamma, np.ones(channels) if form in WITHOUT_SCALE else values["gamma"])
    np.testing.assert_array_equal(beta, np.zeros(channels) if form in WITHOUT_CENTER else values["beta"])
    np.testing.assert_array_equal(mean, values["mean"])
    np.testing.assert_array_equal(variance, values["variance"])
    epsilon = attribute(norm, "epsilon", None)
    assert epsilon == np.float32(EPSILON)
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    weight = constant(layer_kept.inputs[1]).astype(np.float64)
    along = {"Conv": (-1, 1, 1, 1), "ConvTranspose": (1, -1, 1, 1), "Gemm": (1, -1)}[expected]
    np.testing.assert_array_equal(constant(node.inputs[1]), (weight * scale.reshape(along)).astype(np.float32))
    bias = constant(layer_kept.inputs[2]).astype(np.float64) if len(layer_kept.inputs) > 2 else 0
    np.testing.assert_array_equal(constant(node.inputs[2]), (bias * scale + (beta - scale * mean)).astype(np.float32))


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.25, 3.0])
@pytest.mark.parametrize("form", ["V3", "small", "sqrt"])
def test_epsilon_is_the_one_of_the_graph(form: str, epsilon: float) -> None:
    frozen = frozen_graph(lambda net, x: net.norm(net.conv(x), form, epsilon=epsilon), (6, 6, 3))
    folded, kept = both(frozen, 1)
    assert operators(folded) == "Conv"
    norm = next(node for node in kept.graph if node.op_type == "BatchNormalization")
    assert attribute(norm, "epsilon", None) == np.float32(epsilon)


def pad(x: Any) -> Any:
    return tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def relu_conv(net: Network, x: Any, channels: int = 4) -> Any:
    return tf.nn.relu(net.conv(x, channels))


def before_two(net: Network, x: Any, kernel: int) -> Any:
    return net.conv(x, 2, 1) + net.conv(x, 2, kernel)


def sequence_conv(net: Network, x: Any) -> Any:
    return tf.nn.conv1d(x, net.weights(3, 3, 4), 1, "SAME")


def two_readers(net: Network, x: Any, form: str) -> Any:
    shared = net.conv(x)
    return tf.concat((tf.nn.relu(net.norm(shared, form)), shared), 3)


def two_norms(net: Network, x: Any, form: str) -> Any:
    shared = net.conv(x)
    return tf.concat((tf.nn.relu(net.norm(shared, form)), tf.nn.relu6(net.norm(shared, form))), 3)


def shared_weight(net: Network, x: Any, form: str) -> Any:
    weight = tf.constant(net.weights(3, 3, 3, 3))
    first = tf.nn.relu(net.norm(tf.nn.conv2d(x, weight, 1, "SAME"), form))
    return net.norm(tf.nn.conv2d(first, weight, 1, "SAME"), form)


def dilated(net: Network, x: Any, form: str) -> Any:
    y = tf.nn.space_to_batch(x, (2, 2), ((2, 2), (2, 2)))
    y = tf.compat.v1.batch_to_space_nd(net.conv(y, padding="VALID"), (2, 2), ((0, 0), (0, 0)))
    return net.norm(y, form)


IMAGE = (8, 8, 3)
PLACES: dict[str, tuple[tuple[int, ...], Callable[[Network, Any, str], Any], int, str]] = {
    "conv behind a Pad": (IMAGE, lambda n, x, f: n.norm(n.conv(pad(x), padding="VALID", strides=2), f), 1, "Conv"),
    # The border is the batch norm of zero: it does not move in front of the Pad, nor behind it.
    "behind a Pad": (IMAGE, lambda n, x, f: n.norm(pad(n.conv(x)), f), 1, "Conv Conv"),
    "in front of a Pad": (IMAGE, lambda n, x, f: pad(n.norm(n.conv(x), f)), 1, "Conv Pad"),
    "in front of a Pad and a conv": (IMAGE, lambda n, x, f: n.conv(pad(n.norm(n.conv(x), f)), padding="VALID"), 1, "Conv Conv"),
    "alone in front of a Pad and a conv": (IMAGE, lambda n, x, f: n.conv(pad(n.norm(x, f)), padding="VALID"), 1, "Conv Conv"),
    "before a conv that pads": (IMAGE, lambda n, x, f: n.conv(n.norm(x, f)), 1, "Conv Conv"),
    "before a conv that does not": (IMAGE, lambda n, x, f: n.conv(n.norm(x, f), padding="VALID"), 1, "Conv"),
    "before two convs that do not": (
        IMAGE, lambda n, x, f: before_two(n, n.norm(x, f), 1), 1, "Conv Conv Add",
    ),
    "before two convs, one of which pads": (
        IMAGE, lambda n, x, f: before_two(n, n.norm(x, f), 3), 1, "Conv Conv Conv Add",
    ),
    "pre-activation": (IMAGE, lambda n, x, f: n.conv(tf.nn.relu(n.norm(x, f)), padding="VALID"), 1, "Conv Relu Conv"),
    "behind relu, before a 1x1 conv": (
        IMAGE, lambda n, x, f: n.conv(n.norm(relu_conv(n, x), f), kernel=1), 1, "Conv Relu Conv",
    ),
    "behind relu, before a conv that pads": (
        IMAGE, lambda n, x, f: n.conv(n.norm(relu_conv(n, x), f)), 1, "Conv Relu Conv Conv",
    ),
    "behind relu, before a depthwise": (
        IMAGE, lambda n, x, f: n.depthwise(n.norm(relu_conv(n, x), f)), 1, "Conv Relu Conv Conv",
    ),
    "behind relu": (IMAGE, lambda n, x, f: n.norm(relu_conv(n, x), f), 1, "Conv Relu Conv"),
    "two in a row": (IMAGE, lambda n, x, f: n.norm(n.norm(n.conv(x), f), f), 2, "Conv"),
    "two in a row behind relu": (
        IMAGE, lambda n, x, f: tf.nn.relu(n.norm(n.norm(relu_conv(n, x), f), f)), 2, "Conv Relu Conv Relu",
    ),
    "a factor and a term behind it": (IMAGE, lambda n, x, f: n.norm(n.conv(x), f) * n.weights(4) + n.weights(4), 1, "Conv"),
    "a factor behind it behind relu": (IMAGE, lambda n, x, f: n.norm(relu_conv(n, x), f) * n.weights(4), 1, "Conv Relu Conv"),
    "a term and a factor in front": (
        IMAGE, lambda n, x, f: n.norm((relu_conv(n, x) + n.weights(4)) * n.weights(4), f), 1, "Conv Relu Conv",
    ),
    "behind an Add": (IMAGE, lambda n, x, f: n.norm(n.conv(x) + n.conv(x, kernel=1), f), 1, "Conv Conv Add Conv"),
    "behind a concatenation": (
        IMAGE, lambda n, x, f: n.norm(tf.concat((n.conv(x), n.conv(x, 2)), 3), f), 1, "Conv Conv Concat Conv",
    ),
    "behind a max pool": (IMAGE, lambda n, x, f: n.norm(tf.nn.max_pool2d(n.conv(x), 2, 2, "VALID"), f), 1, "Conv MaxPool Conv"),
    "behind a conv with a second reader": (IMAGE, two_readers, 1, "Conv Conv Relu Concat"),
    "two behind one conv": (IMAGE, two_norms, 2, "Conv Conv Clip Conv Relu Concat"),
    "behind two convs with one weight": (IMAGE, shared_weight, 2, "Conv Relu Conv"),
    "behind a dilated conv": (IMAGE, dilated, 1, "Conv"),
    "behind a separable conv": (IMAGE, lambda n, x, f: n.norm(n.conv(n.depthwise(x, 2), kernel=1), f), 1, "Conv Conv"),
    "alone": (IMAGE, lambda n, x, f: n.norm(x, f), 1, "Conv"),
    "vectors, behind relu, before a matrix": (
        (6,), lambda n, x, f: n.dense(n.norm(tf.nn.relu(n.dense(x)), f), 3), 1, "MatMul Relu Gemm",
    ),
    "vectors, behind relu": ((6,), lambda n, x, f: n.norm(tf.nn.relu(n.dense(x)), f), 1, "MatMul Relu Reshape Conv Reshape"),
    "sequences": ((7, 3), lambda n, x, f: n.norm(sequence_conv(n, x), f), 1, "Unsqueeze Conv Squeeze"),
    "sequences, bias": (
        (7, 3), lambda n, x, f: n.norm(n.bias(sequence_conv(n, x)), f), 1, "Unsqueeze Conv Reshape",
    ),
    "sequences, dense": (
        (5, 6), lambda n, x, f: n.norm(tf.tensordot(x, n.weights(6, 4), 1), f), 1, "Reshape Gemm Reshape Squeeze",
    ),
    "sequences, alone": ((5, 6), lambda n, x, f: n.norm(x, f), 1, "Unsqueeze Conv Squeeze"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "form"),
    [(place, form) for place in PLACES for form in ("V3" if len(PLACES[place][0]) == 3 else "small", "sqrt, gamma first")],
)
def test_every_place_leaves_what_it_must(place: str, form: str) -> None:
    shape, build, norms, expected = PLACES[place]
    folded, kept = both(frozen_graph(lambda net, x: build(net, x, form), shape), norms)
    assert operators(folded) == expected
    if "Add" not in expected and "term" not in place:
        assert not SMALL_OPERATORS & set(operators(kept).split())


def test_nchw() -> None:
    def build(net: Network, x: Any) -> Any:
        y = tf.transpose(net.conv(tf.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))
        return net.norm(y, "V3 NCHW")

    folded, kept = both(frozen_graph(build, (3, 8, 8)), 1)
    assert [node.op_type for node in folded.graph] == ["Conv"]
    assert [node.op_type for node in kept.graph] == ["Conv", "BatchNormalization"]


def test_an_output_in_front_of_a_batch_norm_keeps_its_value() -> None:
    def build(net: Network, x: Any) -> None:
        net.norm(net.conv(x, name="sum"), name="y")

    frozen = freeze_graph_def(graph_def(build, end=None), "test", "test", None, ["sum", "y"], None)
    folded, _ = both(frozen, 1)
    assert operators(folded) == "Conv Conv"


def test_global_normalization_of_old_graphs() -> None:
    """An operator that TensorFlow itself only runs in graphs of its time (GraphDef version below 9)."""
    definition = graph_def(lambda net, x: net.conv(x), (6, 6, 3), end="y")
    values = parameters(4)
    end = next(node for node in definition.node if node.name == "y")
    (source,) = end.input
    names = []
    for kind in ("mean", "variance", "beta", "gamma"):
        node = definition.node.add(name=kind, op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[kind]))
        names.append(kind)
    end.op = "BatchNormWithGlobalNormalization"
    end.input[:] = [source, *names]
    end.attr["variance_epsilon"].f = EPSILON
    end.attr["scale_after_normalization"].b = True
    definition.versions.producer = 8
    folded, _ = both(freeze_graph_def(definition, "test", "test", None, ["y"], None), 1)
    assert operators(folded) == "Conv"


L, Norm = keras.layers, keras.layers.BatchNormalization
KERAS: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]], int, str]] = {
    "conv": (IMAGE, lambda: [L.Conv2D(4, 3, padding="same"), Norm()], 1, "Conv"),
    "conv, no gamma": (IMAGE, lambda: [L.Conv2D(4, 3), Norm(scale=False), L.ReLU()], 1, "Conv Relu"),
    "conv, no beta": (IMAGE, lambda: [L.Conv2D(4, 3), Norm(center=False), L.ReLU(6)], 1, "Conv Clip"),
    "conv, neither": (IMAGE, lambda: [L.Conv2D(4, 3), Norm(scale=False, center=False)], 1, "Conv"),
    "depthwise": (IMAGE, lambda: [L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), Norm()], 1, "Conv"),
    "separable": (IMAGE, lambda: [L.SeparableConv2D(4, 3, use_bias=False), Norm()], 1, "Conv Conv"),
    "transposed": (IMAGE, lambda: [L.Conv2DTranspose(4, 2, 2), Norm()], 1, "ConvTranspose"),
    "transposed, overlapping": (
        IMAGE, lambda: [L.Conv2DTranspose(4, 3, 2, padding="same"), Norm()], 1, "ConvTranspose",
    ),
    "zero padding": (IMAGE, lambda: [L.ZeroPadding2D(1), L.Conv2D(4, 3, 2), Norm(), L.ReLU()], 1, "Conv Relu"),
    "dense": ((6,), lambda: [L.Dense(4), Norm()], 1, "Gemm"),
    "dense, relu": ((6,), lambda: [L.Dense(4, activation="relu"), Norm(), L.Dense(2)], 1, "Gemm Relu Gemm"),
    "at both ends": ((4, 4, 2), lambda: [Norm(), L.Flatten(), L.Dense(3), Norm()], 2, "Conv Reshape Gemm"),
    "axis 1": ((4, 8, 8), lambda: [Norm(axis=1)], 1, "Conv"),
    "sequences": (
        (8, 3),
        lambda: [
            L.Conv1D(4, 3, padding="same"), Norm(), L.ReLU(), L.MaxPool1D(2), L.Conv1D(4, 3), Norm(),
            L.ReLU(), L.GlobalAveragePooling1D(), L.Dense(3),
        ],
        2, "Unsqueeze Conv Relu MaxPool Conv Relu GlobalAveragePool Flatten Gemm",
    ),
    "rescaling, no padding": (IMAGE, lambda: [L.Rescaling(2.0, -1.0), L.Conv2D(4, 3), Norm()], 1, "Conv"),
    "rescaling, padding": (IMAGE, lambda: [L.Rescaling(2.0, -1.0), L.Conv2D(4, 3, padding="same"), Norm()], 1, "Conv Conv"),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_keras_layers(name: str) -> None:
    shape, layers, norms, expected = KERAS[name]
    model = keras.Sequential([L.Input(shape), *layers()])
    rng = np.random.default_rng(3)
    model.set_weights(
        [
            rng.uniform(0.5, 2, w.shape) if "variance" in w.path else rng.normal(size=w.shape)  # a variance is positive
            for w in model.weights
        ]
    )
    folded, _ = both(load(model), norms)
    assert operators(folded) == expected
