"""Batch norms as variables: which layers have them, that folding in the graph is the folding of the passes, and saving (B2, B3)."""

from __future__ import annotations

import json

import keras
import numpy as np
import onnx_ir
import pytest
import tensorflow as tf
from batch_norm_networks import LAYERS, Builder, every_layer, images

from tqt_onnx.backend_tf import RegeneratedModel, regenerate
from tqt_onnx.backend_tf.batch_norm_specs import BatchNormSpecs
from tqt_onnx.backend_tf.layout import store
from tqt_onnx.ir import ModelError, UsageError, constant, forget_batch_norms
from tqt_onnx.passes import BitWidths, lower, optimize
from tqt_onnx.verbs.preparation import Calibrated, Prepared, calibrate_prepared, prepare

WIDTHS = {"layer16": BitWidths(), "layer32": BitWidths(layer=32), "int4": BitWidths(weight=4)}


@pytest.fixture(scope="module", params=WIDTHS)
def road(request) -> tuple[Prepared, Calibrated]:
    prepared = prepare(every_layer(), images(), bits=WIDTHS[request.param])
    return prepared, calibrate_prepared(prepared, weight_method="max")


def regenerated(road: tuple[Prepared, Calibrated], **options: object) -> RegeneratedModel:
    prepared, calibrated = road
    return regenerate(prepared.model, calibrated.graph, calibrated.log2_thresholds, **options)


def lowered(model: onnx_ir.Model) -> onnx_ir.Model:
    optimize(model)
    lower(model, "layer16")
    return model


def train(model: RegeneratedModel, steps: int = 1, rate: float = 0.02) -> None:
    """Plain gradient steps towards zero, thresholds included."""
    x = tf.constant(images(8))

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        variables = [variable.value for variable in model.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * gradient)

    for _ in range(steps):
        step()


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return set(ours) == set(theirs) and all((ours[name] == theirs[name]).all() for name in ours)


def test_every_layer_has_its_batch_norm_and_folds_to_the_bits_of_the_pass(road):
    model = regenerated(road)
    assert model.batch_norm_layers == LAYERS and not model.folded_layers
    initializers = road[0].model.graph.initializers
    for name, array in model.arrays().items():
        assert array.tobytes() == np.ascontiguousarray(initializers[name].const_value.numpy()).tobytes(), name


def test_variables_carry_the_names_of_the_source_and_statistics_do_not_train(road):
    model = regenerated(road)
    trainable = {model.true_names[variable.name] for variable in model.trainable_weights_only}
    still = {model.true_names[variable.name] for variable in model.non_trainable_variables}
    norms = ("bn1", "bn2", "bn3", "bn4", "bn5", "logits")
    assert trainable == {f"{layer}/w" for layer in LAYERS} | {f"{norm}/{role}" for norm in norms for role in ("gamma", "beta")}
    statistics = {f"{norm}/{role}" for norm in norms for role in ("mean", "variance")}
    assert still == statistics | {"conv/b", "up/b", "dense/b", "pool__reciprocal"}
    assert not {variable.name for variable in model.trainable_weights_only} & {
        name for name in model.true_names if "log2_t" in name
    }


def test_the_trained_network_is_the_folded_one_bit_for_bit(road):
    """Frozen statistics: the graph with batch norms, and the one regenerated from what is written back, round alike everywhere."""
    model = regenerated(road)
    before = model.arrays()
    train(model, 3)
    after = model.arrays()
    assert all((after[name] != before[name]).any() for name in before if name != "pool__reciprocal")
    calibrated = Calibrated(model.log2_thresholds(), model.quantizer_graph())
    folded = regenerate(model.float_model(), calibrated.graph, calibrated.log2_thresholds)
    assert not folded.batch_norm_layers
    x = images(32, seed=3)
    assert same(model.integers({"x": x}), folded.integers({"x": x}))
    assert same(model.everything({"x": x}), folded.everything({"x": x}))
    for run in (lambda net: net(x), lambda net: net(x, training=True), lambda net: net.predict(x, verbose=0)):
        assert (np.asarray(run(model)) == np.asarray(run(folded))).all()


def test_statistics_and_biases_do_not_move_when_frozen(road):
    model = regenerated(road)
    before = [np.array(variable) for variable in model.non_trainable_variables]
    train(model, 2)
    assert all((old == np.array(new)).all() for old, new in zip(before, model.non_trainable_variables, strict=True))


def count(model: RegeneratedModel, training: bool) -> int:
    """Layers that multiply, in the traced forward pass."""
    traced = tf.function(lambda x: model.forward({"x": x}, training=training)["logits"], autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec((4, 3, 6, 6))).graph
    return sum(op.type in ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul") for op in graph.get_operations())


@pytest.mark.parametrize("road", ["layer32"], indirect=True)
def test_one_convolution_a_layer_when_frozen_and_two_while_statistics_move(road):
    model = regenerated(road)
    frozen = count(model, True)
    assert frozen == count(model, False) == count(regenerate(model.float_model(), model.quantizer_graph()), True)
    model.statistics_frozen = False
    assert count(model, False) == frozen
    assert count(model, True) == 2 * (frozen - 1) + 1  # all but the average pool; a grouped transposed one is one convolution each


@pytest.mark.parametrize("seed", range(3))
def test_eager_graph_and_training_step_fold_to_the_same_bits(seed):
    """Wild numbers: one ulp of float64 in a factor would show in one float32 of some 2^29."""
    net, channels = Builder(seed), 512

    def wild(low: float, high: float) -> np.ndarray:
        return (10.0 ** net.rng.uniform(low, high, channels) * net.rng.choice([-1, 1], channels)).astype(np.float32)

    net.norm(net.layer("Conv", "x", "conv", (channels, 128, 3, 3), channels), "bn", channels)
    for role in ("gamma", "beta", "mean"):
        net.constants[f"bn/{role}"] = wild(-3, 3)
    net.constants["bn/variance"], net.constants["conv/b"] = np.abs(wild(-6, 6)), wild(-3, 3)
    net.constants["conv/w"] *= wild(-2, 2)[:, None, None, None]
    model = regenerate(lowered(net.model({"x": (128, 3, 3)}, {"bn": (channels, 1, 1)})))
    (layer,) = model._norms.value

    def step() -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            folded = layer.folded()
            loss = tf.add_n([tf.reduce_sum(tensor) for tensor in folded.values()])
        layer.variables["gamma"].assign_sub(0 * tape.gradient(loss, layer.variables["gamma"].value))
        return folded

    expected = {name: store(array, model.program.weights[name].form, 1) for name, array in layer.arrays().items()}
    for folded in (layer.folded(), tf.function(layer.folded)(), tf.function(step)()):
        for name, array in expected.items():
            assert (folded[name].numpy().view(np.int32) == np.ascontiguousarray(array).view(np.int32)).all(), name


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_the_fold(name):
    """Against automatic differentiation of the same formula in float64."""
    layer = next(found for found in regenerate(lowered(every_layer()))._norms.value if found.step.name == name)
    roles = ("weight", "gamma", "beta")
    variables = [layer.variables[role].value for role in roles]
    pulls = {name: tf.random.stateless_normal(tensor.shape, (1, 2)) for name, tensor in layer.folded().items()}
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(tensor * pulls[name]) for name, tensor in layer.folded().items()])
    received = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        weight, gamma, beta = (tf.cast(variable, tf.float64) for variable in variables)
        tape.watch([weight, gamma, beta])
        scale = gamma / layer.deviation
        factor = layer._along(scale)
        bias = beta - scale * layer.value("mean") + (layer.value("bias") * scale if "bias" in layer.variables else 0)
        wide = {name: tf.cast(pull, tf.float64) for name, pull in pulls.items()}
        loss = tf.reduce_sum(weight * factor * wide[layer.spec.weight]) + tf.reduce_sum(layer.as_bias(bias) * wide[layer.spec.bias])
    for ours, theirs in zip(received, tape.gradient(loss, [weight, gamma, beta]), strict=True):
        assert np.abs(ours.numpy() - theirs.numpy()).max() <= 1e-5 * np.abs(theirs.numpy()).max()


def two_in_a_row(net: Builder) -> str:
    return net.norm(net.norm(net.layer("Conv", "x", "conv", (4, 3, 1, 1)), "bn", 4), "again", 4)


def without_a_term(net: Builder) -> str:
    out = net.norm(net.layer("Conv", "x", "conv", (4, 3, 1, 1)), "bn", 4)
    net.constants |= {"bn/beta": np.zeros(4, np.float32), "bn/mean": np.zeros(4, np.float32)}
    return out


def in_front_of_a_layer(net: Builder) -> str:
    x = net.norm(net.op("Relu", "x", name="r"), "bn", 3)
    return net.layer("Conv", x, "conv", (4, 3, 1, 1))


def without_a_layer(net: Builder) -> str:
    return net.op("Relu", net.norm(net.op("Relu", "x", name="r"), "bn", 3), name="conv")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (two_in_a_row, "2 batch norms in a row"),
        (without_a_term, "no term"),
        (in_front_of_a_layer, "in front of it"),
        (without_a_layer, "without a layer in front"),
    ],
)
def test_what_cannot_be_taken_apart_is_listed_with_its_reason(build, reason):
    net = Builder()
    out = build(net)
    model = regenerate(lowered(net.model({"x": (3, 4, 4)}, {out: (3 if build is without_a_layer else 4, 4, 4)})))
    assert not model.batch_norm_layers
    assert [reason in text for text in model.folded_layers.values()] == [True]


@pytest.mark.parametrize("changed", ["weight", "bias"])
def test_a_record_that_is_out_of_date_is_not_used(changed):
    model = lowered(every_layer())
    name = "conv/w" if changed == "weight" else "conv/b"
    value = model.graph.initializers[name]
    array = constant(value).copy()
    array.reshape(-1)[0] = np.nextafter(array.reshape(-1)[0], np.float32(9))
    value.const_value = onnx_ir.tensor(array, name=name)
    found = regenerate(model)
    assert found.batch_norm_layers == LAYERS[1:]
    assert list(found.folded_layers) == ["conv"] and "changed since" in found.folded_layers["conv"]
    assert (found.arrays()[name] == array).all()


def test_rows_that_moved_behind_the_fold_moved_in_the_record():
    net = Builder()
    x = net.op("Transpose", net.op("Relu", "x", name="r"), name="nhwc", perm=[0, 2, 3, 1])
    x = net.layer("Gemm", net.op("Flatten", x, name="flat"), "dense", (3 * 4 * 5, 6))
    original = net.model({"x": (3, 4, 5)}, {net.norm(x, "bn", 6): (6,)})
    model = regenerate(lowered(original))
    assert "Transpose" not in {step.op for step in model.program.steps}  # the pass had something to do
    assert model.batch_norm_layers == ("dense",)


def test_layers_that_share_a_batch_norm_have_each_their_own_afterwards():
    net = Builder()
    a = net.norm(net.layer("Conv", "x", "one", (3, 3, 1, 1)), "bn", 3)
    b = net.layer("Conv", net.op("Relu", a, name="r"), "two", (3, 3, 1, 1))
    b = net.op("BatchNormalization", b, *(f"bn/{role}" for role in ("gamma", "beta", "mean", "variance")), name="y", epsilon=1e-3)
    model = regenerate(lowered(net.model({"x": (3, 4, 4)}, {b: (3, 4, 4)})))
    assert model.batch_norm_layers == ("one", "two")
    names = [name for name in model.true_names.values() if name.startswith("bn/gamma")]
    assert sorted(names) == ["bn/gamma", "bn/gamma__of__two/w"]


def test_without_records_it_trains_weights_and_biases_as_they_are():
    model = lowered(every_layer())
    forget_batch_norms(model)
    found = regenerate(model)
    assert not found.batch_norm_layers and not found.folded_layers
    assert not any("gamma" in name for name in found.true_names.values())


@pytest.mark.parametrize("road", ["layer16"], indirect=True)
def test_a_saved_model_keeps_its_batch_norms(road, tmp_path):
    model = regenerated(road, batch_norm_momentum=0.5, statistics_frozen=False)
    train(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, RegeneratedModel)
    assert (loaded.batch_norm_momentum, loaded.statistics_frozen) == (0.5, False)
    assert loaded.batch_norm_layers == LAYERS and loaded.true_names == model.true_names
    x = images(8, seed=5)
    assert same(model.integers({"x": x}), loaded.integers({"x": x})) and same(model.arrays(), loaded.arrays())
    train(model), train(loaded)
    assert same(model.arrays(), loaded.arrays())


def test_folded_layers_are_saved_too():
    net = Builder()
    out = two_in_a_row(net)
    model = regenerate(lowered(net.model({"x": (3, 4, 4)}, {out: (4, 4, 4)})))
    assert RegeneratedModel.from_config(model.get_config()).folded_layers == model.folded_layers != {}


SPEC = {
    "weight": "conv/w",
    "bias": "bn1/beta",
    "epsilon": 0.001,
    "unbiased": False,
    "names": {role: role for role in ("weight", "gamma", "beta", "mean", "variance")},
}


@pytest.mark.parametrize(
    "layers",
    [
        None,
        [7],
        [{}],
        [SPEC | {"epsilon": -1.0}],
        [SPEC | {"epsilon": float("inf")}],
        [SPEC | {"epsilon": 1}],
        [SPEC | {"unbiased": 1}],
        [SPEC | {"names": {"weight": "w"}}],
        [SPEC | {"names": SPEC["names"] | {"else": "x"}}],
        [SPEC | {"names": SPEC["names"] | {"gamma": 3}}],
        [SPEC | {"names": SPEC["names"] | {"gamma": "beta"}}],
        [SPEC, SPEC],
        [SPEC | {"more": 1}],
    ],
)
def test_damaged_batch_norms_are_refused(layers):
    with pytest.raises(ModelError):
        BatchNormSpecs.from_json(json.dumps({"layers": layers, "folded": {}}))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"layers": [], "folded": []}', '{"layers": []}', "[" * 100_000])
def test_text_of_another_form_is_refused(text):
    with pytest.raises(ModelError):
        BatchNormSpecs.from_json(text)


@pytest.mark.parametrize("change", [{"weight": "dense/w"}, {"bias": "nobody"}, {"weight": "bn1/beta"}])
def test_batch_norms_of_another_graph_are_refused(change):
    model = regenerate(lowered(every_layer()))
    first = json.loads(model._specs.to_json())["layers"][0]
    with pytest.raises(ModelError, match="is expected"):
        RegeneratedModel(model._skeleton, batch_norms=json.dumps({"layers": [first | change], "folded": {}}))


@pytest.mark.parametrize("momentum", [-0.1, 1.5, float("nan")])
def test_a_momentum_that_is_none_is_refused(momentum):
    with pytest.raises(UsageError, match="batch_norm_momentum"):
        regenerate(lowered(every_layer()), batch_norm_momentum=momentum)
