"""R3: quantizers off is the float model, quantizers on are the integers of the specification, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tqt_onnx.backend_tf import regenerate
from tqt_onnx.ir import DataError, ModelError, UnsupportedError, UsageError, integer_name
from tqt_onnx.kernels import fixed_point
from tqt_onnx.passes import insert_qdq
from tqt_onnx.verify import Oracle

FUNCTIONS = {
    "Sigmoid": {},
    "Tanh": {},
    "LeakyRelu": {"alpha": 0.1},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "Elu": {"alpha": 0.7},
    "Exp": {},
    "Dropout": {},
}
CONTRACTS = pytest.mark.parametrize("contract", ["layer16", "layer32"])


def assert_same_integers(model, net, x, **options):
    actual, expected = model.integers({"x": x}, **options), net.run_integers(x, model.quantizer_graph())
    assert set(actual) == set(expected)
    for name in expected:
        assert actual[name].dtype == np.int32
        assert actual[name].shape == expected[name].shape, name
        assert (actual[name] == expected[name]).all(), name


def assert_same_floats(net, x, *outputs):
    model = regenerate(net.model(*outputs))
    actual = model(x)
    actual = actual if isinstance(actual, dict) else {outputs[0]: actual}
    for name, expected in zip(outputs, net.run_float(x, *outputs), strict=True):
        assert actual[name].shape == expected.shape
        # Sums of some hundred float32 products in another order: 1e-5 of the range.
        assert np.abs(actual[name].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@CONTRACTS
@pytest.mark.parametrize("seed", [0, 1])
def test_assorted_net(assorted, contract, seed):
    net, output = assorted(contract, seed)
    x = net.images()
    assert_same_floats(net, x, output, "joined", "stem/conv/clip")
    model = regenerate(net.model(output), net.graph())
    assert_same_integers(model, net, x)
    assert_same_integers(model, net, x, batch_size=2)  # 5 rows: the last batch is short


def test_the_switch_and_the_float_output(assorted):
    net, output = assorted("layer16")
    x = net.images()
    model = regenerate(net.model(output), net.graph())
    quantized = model.predict(x, verbose=0)
    model.quantizers_on = False
    plain = model.predict(x, verbose=0)
    assert (quantized != plain).any()
    expected = net.run_float(x, output)[0]
    assert np.abs(plain - expected).max() <= 1e-5 * np.abs(expected).max()
    model.quantizers_on = True
    assert (model.predict(x, verbose=0) == quantized).all()
    with pytest.raises(UsageError, match="quantizer graph"):
        regenerate(net.model(output)).quantizers_on = True


def test_the_dequantized_output_is_the_integers_times_the_scale(net):
    built = net("layer32")
    y = built.conv("c", built.top, (3, 4), act=None, exponent=-3)
    model, x = regenerate(built.model(y), built.graph()), built.images()
    for run in (model, tf.function(model)):
        assert (run(x).numpy() == fixed_point.dequantize(model.integers({"x": x})["c__q"], -3)).all()


@CONTRACTS
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "pads", "dilations"),
    [
        ((8, 8), (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),  # SAME, even
        ((7, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # SAME, odd
        ((8, 8), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),  # not SAME though symmetric
        ((8, 6), (2, 5), (1, 1), (0, 2, 1, 2), (1, 1)),  # SAME, asymmetric
        ((8, 6), (2, 5), (1, 1), (1, 2, 0, 2), (1, 1)),  # the odd one in front
        ((8, 9), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),  # dilated SAME
        ((6, 5), (6, 5), (6, 5), (0, 0, 0, 0), (1, 1)),  # one window, unequal strides
        ((9, 8), (3, 3), (2, 1), (1, 1, 1, 1), (1, 1)),  # unequal strides
        ((9, 9), (3, 2), (2, 2), (0, 0, 0, 0), (2, 2)),  # strides and dilations
        ((1, 1), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # one pixel
    ],
)
@pytest.mark.parametrize("group", [1, 3])
def test_convolution_windows(net, contract, size, kernel, strides, pads, dilations, group):
    built = net(contract, (*size, 3))
    y = built.conv("c", built.top, (3, 6), kernel, strides, pads, group, dilations=dilations)
    x = built.images(2)
    assert_same_floats(built, x, y)
    assert_same_integers(regenerate(built.model(y), built.graph()), built, x)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2]},
        {"strides": [3, 3], "pads": [1, 0, 0, 1], "output_padding": [0, 2]},
        {"strides": [1, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "dilations": [2, 1], "output_padding": [1, 1]},
        {"strides": [1, 1], "dilations": [1, 3], "pads": [1, 2, 1, 1]},
    ],
)
def test_transposed_convolutions(net, options, group):
    built = net(shape=(3, 5, 4))
    weight, bias = built.normal("w", 4, 3, 3, 2), built.normal("b", 3 * group)
    y = built.node("ConvTranspose", [built.top, weight, bias], "y", kernel_shape=[3, 2], group=group, **options)
    assert_same_floats(built, built.images(2), y)
    model = regenerate(built.model(y))
    assert (model.arrays()["w"] == built.constants["w"]).all()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(built.images(2)) ** 2)
    assert all(tf.reduce_any(gradient != 0) for gradient in tape.gradient(loss, model.trainable_variables))


def test_a_convolution_in_groups_is_stored_as_keras_stores_it(net):
    built = net(shape=(5, 4, 6))
    y = built.node("Conv", [built.top, built.normal("w", 4, 3, 3, 2)], "y", kernel_shape=[3, 2], group=2)
    assert_same_floats(built, built.images(2), y)
    (kernel,) = regenerate(built.model(y)).trainable_variables
    assert tuple(kernel.shape) == (3, 2, 3, 4)


@CONTRACTS
@pytest.mark.parametrize(("slope", "bits"), [(0.1, 10), (-0.5, 10), (1.7, 10), (0.2, 16)])
def test_a_lowered_leaky_relu(net, contract, slope, bits):
    """L3; with all 16 bits the product needs float64, and gets it (X2)."""
    built = net(contract)
    x = built.conv("c", built.top, (3, 6), act=None, exponent=-12)
    built.quantizers[-1] = replace(built.quantizers[-1], bits=16)
    built.constant("alpha", np.float32(slope))
    built.quantize("alpha", bits, True, "alpha", {0.1: -12, -0.5: -10, 1.7: -8, 0.2: -17}[slope])
    scaled = built.node("Mul", ["alpha", x], "scaled", role="slope")
    built.quantize(scaled, 16, True, "activation", -12, group=x)
    y = built.activation(built.node("Min" if slope > 1 else "Max", [scaled, x], "leaky", role="leaky"), None)
    images = built.images()
    assert_same_floats(built, images, y)
    model = regenerate(built.model(y), built.graph())
    assert_same_integers(model, built, images)
    assert model.wide_layers() == ({"scaled"} if bits == 16 else frozenset())
    assert not model.program.weights["alpha"].trainable


@CONTRACTS
@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Slice", [[1, 0], [2**63 - 1, -1]], {}),  # of the batch and of the channels
        ("Slice", [[-1, 1], [-(2**63), 99], [2, -3], [-2, 2]], {}),
        ("Slice", [[-9, -99], [-(2**63), -99], [0, 3], [-1, -1]], {}),  # a start in front of the axis is the first, backwards
        ("Gather", [[3, -4, 3]], {"axis": 1}),
        ("Gather", [-1], {"axis": 2}),
        ("Gather", [[[0, 1], [-1, 2]]], {"axis": -1}),
    ],
)
def test_elements_that_are_picked(net, contract, op, constants, attributes):
    """Taken from an image in TensorFlow's order, and given to a layer that reads ONNX's."""
    built = net(contract)
    names = [built.constant(f"i{index}", np.array(array, np.int64)) for index, array in enumerate(constants)]
    y = built.node(op, [built.conv("c", built.top, (3, 4)), *names], "y", **attributes)
    images = built.images()
    assert_same_floats(built, images, y)
    model = regenerate(built.model(y), built.graph())
    expected = Oracle(insert_qdq(built.model(y), built.graph())).run({"x": images})["y__q"]
    assert np.array_equal(model.everything({"x": images})["y__q"], expected.integers)


@CONTRACTS
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks_of_an_image(net, contract, mode):
    built = net(contract)
    blocks = built.node("SpaceToDepth", [built.conv("c", built.top, (3, 4))], "blocks", blocksize=2)
    deep = built.conv("d", blocks, (16, 8))
    y = built.node("DepthToSpace", [deep], "y", blocksize=2, mode=mode)
    images = built.images()
    assert_same_floats(built, images, y, "blocks")
    assert_same_integers(regenerate(built.model(y), built.graph()), built, images)


@CONTRACTS
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "pads"),
    [
        ((2, 4), (3, 1), (2, 2), (1, 0, 0, 1)),  # TensorFlow 2.21's float32 kernel crashes
        ((2, 3), (1, 2), (1, 2), (0, 0, 0, 0)),  # and gives zeros for the second row
        ((5, 3), (3, 3), (1, 2), (0, 0, 0, 0)),
    ],
)
def test_windows_that_the_float32_kernel_gets_wrong(net, contract, size, kernel, strides, pads):
    built = net(contract, (*size, 1))
    y = built.conv("c", built.top, (1, 1), kernel, strides, pads)
    x = built.images(2)
    assert_same_floats(built, x, y)
    assert_same_integers(regenerate(built.model(y), built.graph()), built, x)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1), (1, 0, 0, 1)])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("inside", [0, 1])
def test_pooling_windows(net, pads, op, inside):
    built = net(shape=(8, 7, 2))
    options = {"count_include_pad": inside} if op == "AveragePool" else {}
    y = built.node(op, [built.top], "y", kernel_shape=[3, 2], strides=[2, 2], pads=list(pads), **options)
    assert_same_floats(built, -np.abs(built.images()), y)  # all negative: a border of zeros would win


def test_movement_composes_permutations(net):
    built = net(shape=(4, 5, 6))
    built.constant("axes", np.array([1, -1])), built.constant("axis", np.array([1])), built.constant("shape", np.array([0, 5, -1]))
    a = built.node("Transpose", [built.top], "a", perm=[0, 2, 1, 3])
    b = built.node("Unsqueeze", [a, "axes"], "b")
    c = built.node("Squeeze", [b, "axis"], "c")
    d = built.node("Transpose", [c], "d", perm=[0, 3, 1, 4, 2])
    e = built.node("Reshape", [d, "shape"], "e")
    f = built.node("Concat", [d, d], "f", axis=-2)
    g = built.node("Softmax", [f], "g", axis=1)
    assert_same_floats(built, built.images(), a, b, c, d, e, f, g)


def test_reductions_and_float_functions(net):
    built = net(shape=(4, 5, 3))
    built.constant("axes", np.array([2, 3])), built.constant("channel", np.array([1]))
    x = built.top
    a = [
        built.node(op, [x, "axes"], op + str(keep), keepdims=keep)
        for op in ("ReduceMean", "ReduceSum", "ReduceMax")
        for keep in (0, 1)
    ]
    b = [built.node("ReduceMean", [x, "channel"], "mean", keepdims=0), built.node("GlobalAveragePool", [x], "gap")]
    c = [built.node(op, [x], op, **options) for op, options in FUNCTIONS.items()]
    names = [built.normal(name, 3) for name in ("gamma", "beta", "mean_", "variance")]
    built.constants["variance"] = np.abs(built.constants["variance"]) + 0.1
    d = [built.node("BatchNormalization", [x, *names], "bn", epsilon=1e-3)]
    e = [built.node(op, [x, "bn", "Exp"], op) for op in ("Max", "Min")] + [built.node("Div", [x, "Exp"], "div")]
    assert_same_floats(built, built.images(), *a, *b, *c, *d, *e)


def test_no_transposes_between_compute_layers(assorted):
    net, output = assorted("layer32")
    model = regenerate(net.model(output), net.graph())
    graph = tf.function(model).get_concrete_function(tf.TensorSpec([None, *net.shape])).graph
    moved = [op.inputs[0].shape for op in graph.get_operations() if op.type == "Transpose"]
    assert len(moved) == 1  # in front of the Flatten of more than one pixel; none at the input
    assert moved[0][1:] == (4, 3, 8)


def test_elementwise_aligns_what_comes_in_different_layouts(net):
    built = net(shape=(4, 4, 2))
    built.constant("shape", np.array([-1, 2, 4, 4]))
    flat = built.node("Flatten", [built.top], "flat")
    again = built.node("Reshape", [flat, "shape"], "again")
    y = built.node("Add", [built.top, again], "y")
    scaled = built.node("Mul", [y, built.normal("m", 2, 1, 1)], "scaled")
    assert_same_floats(built, built.images(), y, scaled, built.node("Sub", [built.normal("row", 4), scaled], "z"))


@CONTRACTS
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_layers_beyond_24_bits_are_exact(net, contract, op):
    """Adversarial: two huge halves cancel and leave a few thousand units, which float32 would lose on the way (X2)."""
    built = net(contract, (1, 1, 1024))
    built.constant("shape", np.array([-1, 1024]))
    x = built.node("Reshape", [built.top, "shape"], "flat")
    y = built.dense("d", x, (1024, 8), op, act=None, bias=contract == "layer16" or op == "Gemm")
    half = built.random.integers(120, 126, (512, 8))
    other = half.copy()
    other[:8] -= built.random.integers(0, 4, (8, 8))
    built.constants["d/w"] = (np.concatenate([half, -other]) / 256).astype(np.float32)
    exponents = {"x__input": -5, "d/w": -8, "d": -8} | ({"d__acc": -11, "d/b": -11} if contract == "layer16" else {})
    bits = {"x__input": 16}
    built.quantizers = [replace(q, exponent=exponents.get(q.id, q.exponent), bits=bits.get(q.id, q.bits)) for q in built.quantizers]
    images = built.random.integers(2**14, 2**15, (6, 512))
    images[:, :8] //= 64
    images = (np.concatenate([images, images], 1).reshape(6, 1, 1, 1024) / 32).astype(np.float32)
    model = regenerate(built.model(y), built.graph())
    assert model.wide_layers() == {"d__acc" if contract == "layer16" else "d"}
    assert_same_integers(model, built, images)
    assert 0 < np.abs(model.integers({"x": images})["d__q"]).min() < 100  # not saturated: a lost unit would show


def wide_behind(net, rectifiers, taps=2**18):
    """The wide layers of input, 8 bits -> operators without quantizers -> a dense layer of the smallest weights there are."""
    built = net("layer32", (1, 1, taps))
    built.constant("shape", np.array([-1, taps])), built.constant("six", np.float32(6)), built.constant("five", np.float32(5))
    built.constant("zero", np.float32(0)), built.constant("one", np.float32(1)), built.constant("pads", np.zeros(4, np.int64))
    x = built.node("Reshape", [built.top, "shape"], "flat")
    for index, (op, *more) in enumerate(rectifiers):
        x = built.node(op, [x, *more], f"{op}{index}")
    y = built.dense("d", x, (taps, 1), act=None, bias=False)
    built.constants["d/w"] = np.full((taps, 1), 2.0**-8, np.float32)
    return regenerate(built.model(y), built.graph()).wide_layers()


@pytest.mark.parametrize(
    "rectifiers",
    [
        [],
        [("Relu",)],
        [("Relu",), ("Clip", "zero", "six")],
        [("Clip", "zero")],
        [("Clip", "", "six")],
        [("Pad", "pads", "zero")],
    ],
)
def test_rectifiers_pass_on_the_range_of_their_input(net, rectifiers):
    """A Relu of what cannot be negative has no quantizer (L7): the sum of 128 over 2^18 taps is as wide behind it (X2)."""
    assert wide_behind(net, rectifiers) == {"d"}
    assert wide_behind(net, rectifiers, taps=2**16) == frozenset()


@pytest.mark.parametrize("unknown", [("Sigmoid",), ("Clip", "five", "six"), ("Pad", "pads", "one"), ("Add", "one")])
def test_a_layer_whose_input_has_no_known_range_is_wide(net, unknown):
    assert wide_behind(net, [unknown], taps=1) == {"d"}
    assert wide_behind(net, [unknown, ("Relu",)], taps=1) == {"d"}


def test_a_clip_that_is_not_its_quantizers_bound_is_computed(net):
    built = net("layer16")
    built.constant("low", np.float32(-0.7)), built.constant("high", np.float32(0.9))
    y = built.node("Clip", [built.top, "low", "high"], "y")
    built.quantize(y, 8, True, "activation", -5)
    model = regenerate(built.model(y), built.graph())
    assert_same_integers(model, built, built.images())
    assert np.unique(model.integers({"x": built.images()})["y__q"])[[0, -1]].tolist() == [-22, 29]


def test_layers_within_24_bits_stay_float32(assorted):
    net, output = assorted("layer16")
    assert regenerate(net.model(output), net.graph()).wide_layers() == frozenset()


def test_relu6_of_every_scale(net):
    for exponent in (-8, -5, -1, 0, 2, 3):  # 6/s is no integer for the last two
        built = net("layer16")
        y = built.conv("c", built.top, (3, 4), act=6.0, exponent=exponent)
        assert_same_integers(regenerate(built.model(y), built.graph()), built, built.images() * 4)


def test_ties_and_extremes(net):
    built = net("layer16", (2, 2, 1))
    y = built.conv("c", built.top, (1, 1), (1, 1), pads=(0, 0, 0, 0), act=None, exponent=-4)
    built.constants["c/w:0"][:] = 0.5
    built.constants["c/b"][:] = 0.0
    x = (np.arange(-320, 320).reshape(-1, 2, 2, 1) / 64).astype(np.float32)
    x[0], x[1], x[2] = np.float32(3e38), -np.inf, 1e-40
    assert_same_integers(regenerate(built.model(y), built.graph()), built, x)


def test_thresholds_start_inside_their_interval_or_where_they_are_given(assorted):
    net, output = assorted("layer16")
    graph = net.graph()
    model = regenerate(net.model(output), graph)
    assert model.quantizer_graph() == graph  # Q4: the same exponents come back
    thresholds = {group: value + 0.25 for group, value in model.log2_thresholds().items()}
    assert regenerate(net.model(output), graph, thresholds).log2_thresholds() == thresholds
    upper = {group: np.ceil(value) for group, value in thresholds.items()}
    assert regenerate(net.model(output), graph, upper).quantizer_graph() == graph
    barely = {group: value - 1 + 1e-12 for group, value in upper.items()}
    assert regenerate(net.model(output), graph, barely).quantizer_graph() == graph
    with pytest.raises(ModelError, match=r"Received: 99"):
        regenerate(net.model(output), graph, thresholds | {"add": 99.0})


def test_weights_come_back_in_the_onnx_layout(assorted):
    net, output = assorted("layer32")
    model = regenerate(net.model(output), net.graph())
    floats = {name: array for name, array in net.constants.items() if name in model.arrays()}
    assert "dw/w:0" in floats
    assert "stem/conv/max" not in model.arrays()
    for name, array in floats.items():
        assert (model.arrays()[name] == array).all()
        assert (model.float_model().graph.initializers[name].const_value.numpy() == array).all()
    assert set(model.true_names.values()) == set(floats) | set(net.graph().groups())
    shapes = {variable.name: tuple(variable.shape) for variable in model.variables}
    assert shapes["w.dw-2Fw-3A0"] == (3, 3, 8, 2)
    assert shapes["w.stem-2Fconv-2Fw-3A0"] == (3, 3, 3, 8)
    assert shapes["w.hidden-2Fw"] == (96, 10)
    assert shapes["log2_t.add"] == ()


def test_reciprocals_are_not_trained(net):
    built = net("layer16", (4, 4, 3))
    weight = built.constant("r", np.full((3, 1, 4, 4), 1 / 16, np.float32))
    built.quantize("r", 8, False, "reciprocal", -11)
    y = built.node(
        "Conv",
        [built.top, weight],
        "y",
        role="reciprocal",
        kernel_shape=[4, 4],
        strides=[4, 4],
        pads=[0] * 4,
        dilations=[1, 1],
        group=3,
    )
    built.quantize(y, 8, True, "activation", -6)
    model = regenerate(built.model(y), built.graph())
    assert [model.true_names[variable.name] for variable in model.non_trainable_variables] == ["r"]
    assert_same_integers(model, built, built.images())


def test_refusals(net):
    built = net()
    y = built.node("Conv", [built.top, built.normal("w", 4, 3, 3, 3)], "y", auto_pad="SAME_UPPER", kernel_shape=[3, 3])
    with pytest.raises(UnsupportedError, match=r"Conv 'y'.*auto_pad"):
        regenerate(built.model(y))
    z = built.node("Sin", [built.top], "z")
    with pytest.raises(UnsupportedError, match=r"^node 'z': Sin has no counterpart.*Received: Sin$"):
        regenerate(built.model(z))
    flat = net(shape=(8, 8, 4))
    flat.node("Conv", [flat.top, flat.normal("w", 4, 3, 3, 3)], "y", kernel_shape=[3, 3], group=2)
    with pytest.raises(UnsupportedError, match=r"Conv 'y'.*6 input channels.*Received: 4"):
        regenerate(flat.model("y"))
    spread = net(shape=(8, 8, 4))
    spread.node("ConvTranspose", [spread.top, spread.normal("w", 4, 3, 3, 3)], "y", kernel_shape=[3, 3], auto_pad="SAME_UPPER")
    with pytest.raises(UnsupportedError, match=r"ConvTranspose 'y'.*explicit pads"):
        regenerate(spread.model("y"))
    built = net()
    y = built.conv("c", built.top, (3, 4))
    with pytest.raises(ModelError, match="'nowhere'"):
        built.quantize("nowhere", 8, True, "activation", 0)
        regenerate(built.model(y), built.graph())


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"y": np.zeros((1, 8, 8, 3), np.float32)}, "'x'"),
        ({"x": np.zeros((1, 8, 8, 3))}, "float64"),
        ({"x": np.zeros((1, 3, 8, 8), np.float32)}, r"\(1, 3, 8, 8\)"),
        ({"x": np.zeros((0, 8, 8, 3), np.float32)}, "'x': 0"),
    ],
)
def test_feeds_are_checked(net, feeds, message):
    built = net()
    model = regenerate(built.model(built.conv("c", built.top, (3, 4))), built.graph())
    with pytest.raises(DataError, match=message):
        model.integers(feeds)
    with pytest.raises(DataError, match="expected"):
        model(np.zeros((1, 3, 8, 8), np.float32))


def test_one_element(net):
    built = net("layer32", (1, 1, 1))
    y = built.conv("c", built.top, (1, 1), (1, 1), pads=(0, 0, 0, 0))
    model = regenerate(built.model(y), built.graph())
    assert_same_integers(model, built, built.images(1))
    assert integer_name(y) in model.integers({"x": built.images(1)})
