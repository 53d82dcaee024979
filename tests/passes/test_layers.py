"""Everything that folds into a layer: Gemm form, bias, affine, batch norm, lone affine."""

from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.ir import SOURCE_KEY, ModelError, UnsupportedError
from tqt_onnx.passes.affine_to_depthwise import AffineToDepthwise
from tqt_onnx.passes.bias_from_add import BiasFromAdd
from tqt_onnx.passes.fold_affine import FoldAffine
from tqt_onnx.passes.fold_batch_norm import FoldBatchNorm
from tqt_onnx.passes.plain_gemm import PlainGemm

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def types(model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_plain_gemm(golden):
    golden(
        PlainGemm(),
        """g (float[n,2] x) => (float[n,3] y) <float[3,2] w = {1.0,2.0,3.0,4.0,5.0,6.0}, float[1,3] b = {1.0,2.0,3.0}>
        { y = Gemm<alpha = 2.0, beta = 0.5, transB = 1>(x, w, b) }""",
        """g (float[n,2] x) => (float[n,3] y) <float[2,3] w = {2.0,6.0,10.0,4.0,8.0,12.0}, float[3] b = {0.5,1.0,1.5}>
        { y = Gemm(x, w, b) }""",
    )


def test_plain_gemm_refusals(untouched):
    untouched(
        PlainGemm(),
        """g (float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1.0,2.0,3.0,4.0}, float[2,1] b = {1.0,2.0}>
        { y = Gemm<transA = 1>(x, w) z = Gemm(x, w, b) }""",
    )


def test_add_becomes_bias_and_is_added_to_one(golden):
    golden(
        BiasFromAdd(),
        """g (float[n,1,2,2] x) => (float[n,2,2,2] y)
        <float[2,1,1,1] w = {1.0,2.0}, float[1,2,1,1] b = {3.0,4.0}, float s = {0.5}> { c = Conv(x, w) d = Add(b, c)
          y = Add(d, s) }""",
        """g (float[n,1,2,2] x) => (float[n,2,2,2] y) <float[2,1,1,1] w = {1.0,2.0}, float[2] b = {3.5,4.5}> {
          y = Conv(x, w, b) }""",
    )


def test_matmul_with_add_becomes_gemm(golden):
    golden(
        BiasFromAdd(),
        """g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1.0,2.0,3.0,4.0}, float[2] b = {3.0,4.0}> { m = MatMul(x, w)
          y = Add(m, b) }""",
        """g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1.0,2.0,3.0,4.0}, float[2] b = {3.0,4.0}> { y = Gemm(x, w, b) }""",
    )


def test_bias_refusals(untouched):
    w, v = {"w": normal(2, 1, 1, 1)}, {"v": normal(3, 2)}
    io = "g (float[n,1,2,2] x) => (float[n,2,2,2] y"
    untouched(
        BiasFromAdd(), io + ", float[n,2,2,2] z) <float s = {1.0}> { c = Conv(x, w) y = Add(c, s) z = Relu(c) }", w
    )  # two readers
    untouched(BiasFromAdd(), io + ", float[n,2,2,2] c) <float s = {1.0}> { c = Conv(x, w) y = Add(c, s) }", w)  # an output
    untouched(BiasFromAdd(), io + ") <float[2] s = {1.0, 2.0}> { c = Conv(x, w) y = Add(c, s) }", w)  # per column
    untouched(  # enlarges: one channel against three numbers
        BiasFromAdd(),
        "g (float[n,1,2,2] x) => (float[n,3,2,2] y) <float[3,1,1] s = {1.0,2.0,3.0}, float[1,1,1,1] u = {1.0}> {"
        " c = Conv(x, u) y = Add(c, s) }",
    )
    untouched(  # no Gemm of rank 3
        BiasFromAdd(), "g (float[n,4,3] x) => (float[n,4,2] y) <float[2] s = {1.0, 2.0}> { c = MatMul(x, v) y = Add(c, s) }", v
    )


def test_a_shared_weight_is_not_changed_for_its_other_reader(rewritten):
    model = rewritten(
        [FoldAffine()],
        "g (float[n,1,2,2] x) => (float[n,2,2,2] y, float[n,2,2,2] z) <float s = {3.0}> { c = Conv(x, w) y = Mul(c, s)"
        " z = Conv(x, w) }",
        {"w": normal(2, 1, 1, 1)},
    )
    assert types(model) == ["Conv", "Conv"]
    assert set(model.graph.initializers) == {"w", "w_1"}


def test_affine_goes_into_weight_and_bias(golden):
    golden(
        FoldAffine(),
        """g (float[n,1,2,2] x) => (float[n,2,2,2] y)
        <float[2,1,1,1] w = {1.0,2.0}, float[2] b = {1.0,1.0}, float[2,1,1] g = {-2.0,0.0},
         float[1,2,1,1] h = {5.0,6.0}, float d = {2.0}>
        { c = Conv(x, w, b) m = Mul(c, g) s = Sub(m, h) e = Div(s, d) y = Sub(d, e) }""",
        """g (float[n,1,2,2] x) => (float[n,2,2,2] y)
        <float[2,1,1,1] w = {1.0,0.0}, float[2] b = {5.5,5.0}> { y = Conv(x, w, b) }""",
    )


def test_a_lone_sub_becomes_an_add(golden):
    golden(
        FoldAffine(),
        "g (float[n,2] x) => (float[n,2] y) <float[2] c = {1.0,-2.0}> { a = Relu(x) y = Sub(a, c) }",
        "g (float[n,2] x) => (float[n,2] y) <float[2] c = {-1.0,2.0}> { a = Relu(x) y = Add(a, c) }",
    )


def test_affine_refusals(untouched):
    untouched(
        FoldAffine(),
        """g (float[n,1,2,2] x) => (float[n,1,2,2] y) <float[1,1,1,1] w = {1.0}, float one = {1.0}>
        { c = Conv(x, w) y = Div(one, c) }""",
    )


def test_batch_norm_behind_small_operators_behind_dense(rewritten):
    """Keras writes BatchNormalization on vectors as Mul and Add."""
    model = rewritten(
        [BiasFromAdd(), FoldAffine()],
        "g (float[n,3] x) => (float[n,4] y) { m = MatMul(x, w) a = Add(m, b) g = Mul(a, s) y = Add(g, t) }",
        {"w": normal(3, 4), "b": normal(4), "s": -abs(normal(4)), "t": normal(4)},
    )
    assert types(model) == ["Gemm"]


BN = {"gamma": np.float32([-1.5, 0, 2, 1e-3]), "beta": normal(4), "mean": normal(4), "var": np.float32([0, 1e-8, 4, 100])}


@pytest.mark.parametrize(
    ("before", "io", "arrays"),
    [
        ("c = Conv(x, w)", ("n,3,5,5", "n,4,3,3"), {"w": normal(4, 3, 3, 3)}),
        ("c = Conv<group = 2>(x, w, b)", ("n,2,5,5", "n,4,3,3"), {"w": normal(4, 1, 3, 3), "b": normal(4)}),
        ("c = Gemm(x, w, b)", ("n,3", "n,4"), {"w": normal(3, 4), "b": normal(4)}),
        ("c = MatMul(x, w)", ("n,3", "n,4"), {"w": normal(3, 4)}),
    ],
)
def test_batch_norm_with_negative_gamma_and_zero_variance(rewritten, before, io, arrays):
    norm = "y = BatchNormalization<epsilon = 0.001>(c, gamma, beta, mean, var)"
    text = f"g (float[{io[0]}] x) => (float[{io[1]}] y) {{ {before} {norm} }}"
    model = rewritten([FoldBatchNorm()], text, {**arrays, **BN})
    assert len(types(model)) == 1 and "BatchNormalization" not in types(model)
    assert set(model.graph.initializers) == {"w", "b" if "b" in arrays else "beta"}
    scale = BN["gamma"].astype(np.float64) / np.sqrt(BN["var"].astype(np.float64) + np.float64(np.float32(0.001)))  # B1
    shape = (4, 1, 1, 1) if arrays["w"].ndim == 4 else (1, 4)
    folded = model.graph.initializers["w"].const_value.numpy()
    assert (folded == (arrays["w"].astype(np.float64) * scale.reshape(shape)).astype(np.float32)).all()  # bit for bit


def test_a_transposed_convolution_has_its_output_channels_in_axis_1(rewritten):
    weight, bias = normal(3, 4, 2, 2), normal(4)
    model = rewritten(
        [BiasFromAdd(), FoldBatchNorm(), FoldAffine()],
        """g (float[n,3,4,4] x) => (float[n,4,8,8] y) <float half = {0.5}> { c = ConvTranspose<strides = [2,2]>(x, w) a = Add(c, b)
           n = BatchNormalization<epsilon = 0.001>(a, gamma, beta, mean, var) y = Mul(n, half) }""",
        {"w": weight, "b": bias.reshape(4, 1, 1), **BN},
    )
    assert types(model) == ["ConvTranspose"]
    scale = BN["gamma"].astype(np.float64) / np.sqrt(BN["var"].astype(np.float64) + np.float64(np.float32(0.001)))
    folded = model.graph.initializers["w"].const_value.numpy()
    assert (folded == (weight.astype(np.float64) * scale.reshape(1, 4, 1, 1)).astype(np.float32) / 2).all()


def test_in_groups_a_transposed_convolution_has_them_in_both_axes(rewritten):
    weight = normal(6, 2, 2, 2)
    model = rewritten(
        [FoldBatchNorm()],
        """g (float[n,6,4,4] x) => (float[n,4,8,8] y) { c = ConvTranspose<strides = [2,2], group = 2>(x, w)
           y = BatchNormalization<epsilon = 0.001>(c, gamma, beta, mean, var) }""",
        {"w": weight, **BN},
    )
    assert types(model) == ["ConvTranspose"]
    scale = BN["gamma"].astype(np.float64) / np.sqrt(BN["var"].astype(np.float64) + np.float64(np.float32(0.001)))
    folded = model.graph.initializers["w"].const_value.numpy()
    rows = np.repeat(scale.reshape(2, 2), 3, axis=0).reshape(6, 2, 1, 1)
    assert (folded == (weight.astype(np.float64) * rows).astype(np.float32)).all()


def test_batch_norms_in_a_row_are_rounded_once(rewritten):
    weight = normal(4, 3, 1, 1)
    norms = "a = BatchNormalization<epsilon = 0.5>(c, gamma, beta, mean, one)"
    model = rewritten(
        [FoldBatchNorm()],
        f"""g (float[n,3,2,2] x) => (float[n,4,2,2] y)
        {{ c = Conv(x, w) {norms} y = BatchNormalization<epsilon = 0.25>(a, g2, beta, mean, one) }}""",
        {
            "w": weight,
            **{name: BN[name] for name in ("gamma", "beta", "mean")},
            "g2": np.float32([3, 0.7, -1, 1]),
            "one": np.ones(4, np.float32),
        },
    )
    assert types(model) == ["Conv"]
    scale = np.float64([3, np.float32(0.7), -1, 1]) / np.sqrt(1.25) * (BN["gamma"].astype(np.float64) / np.sqrt(1.5))
    np.testing.assert_array_equal(
        model.graph.initializers["w"].const_value.numpy(),
        (weight.astype(np.float64) * scale.reshape(4, 1, 1, 1)).astype(np.float32),
    )


def test_small_operators_behind_a_batch_norm_go_into_it(golden):
    norm = "BatchNormalization<epsilon = 0.001>"
    golden(
        FoldAffine(),
        f"""g (float[n,4,2,2] x) => (float[n,4,2,2] y) <float[4,1,1] f = {{2.0,-1.0,0.5,0.0}}, float h = {{0.25}}>
        {{ r = Relu(x) n = {norm}(r, gamma, beta, mean, var) m = Mul(n, f) y = Sub(m, h) }}""",
        f"g (float[n,4,2,2] x) => (float[n,4,2,2] y) {{ r = Relu(x) y = {norm}(r, gamma, beta, mean, var) }}",
        BN,
        {
            **BN,
            "gamma": BN["gamma"] * np.float32([2, -1, 0.5, 0]),
            "beta": (BN["beta"].astype(np.float64) * [2, -1, 0.5, 0] - 0.25).astype(np.float32),
        },
    )


def test_lone_batch_norm_becomes_depthwise(rewritten):
    text = """g (float[n,4,3,3] x) => (float[n,2,3,3] y)
    { a = Relu(x) b = BatchNormalization(a, gamma, beta, mean, var) y = Conv(b, w) }"""
    arrays = {**BN, "w": normal(2, 4, 1, 1)}
    arrays["var"] = np.float32([0.01, 1, 4, 100])
    model = rewritten([FoldBatchNorm(), AffineToDepthwise()], text, arrays)
    assert types(model) == ["Relu", "Conv", "Conv"]
    depthwise = list(model.graph)[1]
    assert depthwise.attributes["group"].value == 4
    assert [value.name for value in depthwise.inputs] == ["a", "gamma", "beta"]


def test_batch_norms_can_be_left(untouched):
    text = "g (float[n,4,3,3] x) => (float[n,4,3,3] y) { y = BatchNormalization(x, gamma, beta, mean, var) }"
    untouched(AffineToDepthwise(batch_norms=False), text, BN)


def test_rescaling_at_the_input_becomes_depthwise(golden):
    golden(
        AffineToDepthwise(),
        """g (float[n,2,2,2] x) => (float[n,2,2,2] y) <float m = {0.5}, float[2,1,1] s = {2.0,4.0}>
        { d = Sub(x, m) r = Div(d, s) y = Relu(r) }""",
        """g (float[n,2,2,2] x) => (float[n,2,2,2] y) <float[2] m = {-0.25,-0.125}, float[2,1,1,1] s = {0.5,0.25}>
        { r = Conv<group = 2, kernel_shape = [1,1], strides = [1,1], dilations = [1,1], pads = [0,0,0,0]>(x, s, m) y = Relu(r) }""",
    )


DEPTHWISE = "Conv<group = 4, kernel_shape = [1,1], strides = [1,1], dilations = [1,1], pads"


def test_vectors_become_images_for_it(golden):
    golden(
        AffineToDepthwise(),
        """g (float[n,4] x) => (float[n,4] y) <float[4] f = {1.0,2.0,3.0,-4.0}, float h = {1.0}>
        { r = Relu(x) m = Mul(f, r) y = Add(m, h) }""",
        f"""g (float[n,4] x) => (float[n,4] y) <float[4,1,1,1] f = {{1.0,2.0,3.0,-4.0}}, float[4] h = {{1.0,1.0,1.0,1.0}},
        int64[4] y__image__shape = {{-1,4,1,1}}, int64[2] y__back__shape = {{-1,4}}>
        {{ r = Relu(x) y__image = Reshape(r, y__image__shape) y__conv = {DEPTHWISE} = [0,0,0,0]>(y__image, f, h)
           y = Reshape(y__conv, y__back__shape) }}""",
    )


def test_sequences_become_images_for_it(rewritten):
    text = "g (float[n,4,5] x) => (float[n,4,5] y) { r = Relu(x) y = BatchNormalization(r, gamma, beta, mean, var) }"
    model = rewritten([AffineToDepthwise()], text, {**BN, "var": np.float32([0.01, 1, 4, 100])})
    assert types(model) == ["Relu", "Unsqueeze", "Conv", "Squeeze"]


def test_padding_in_front_of_the_new_layer_is_its_own(golden):
    golden(
        AffineToDepthwise(),
        """g (float[n,4,2,2] x) => (float[n,4,3,4] y) <float[4,1,1] f = {1.0,2.0,3.0,-4.0}, float h = {1.0},
        int64[8] pads = {0,0,1,1,0,0,0,1}> { r = Relu(x) p = Pad(r, pads) m = Mul(p, f) y = Add(m, h) }""",
        f"""g (float[n,4,2,2] x) => (float[n,4,3,4] y) <float[4,1,1,1] f = {{1.0,2.0,3.0,-4.0}}, float[4] h = {{1.0,1.0,1.0,1.0}}>
        {{ r = Relu(x) y = {DEPTHWISE} = [1,1,0,1]>(r, f, h) }}""",
    )


def test_what_stands_behind_a_softmax_stays(untouched):
    untouched(
        AffineToDepthwise(),
        "g (float[n,4] x) => (float[n,4] y) <float f = {2.0}> { s = Softmax(x) a = Identity(s) y = Mul(a, f) }",
    )


def test_scalars_and_lists_are_no_images(untouched):
    untouched(
        AffineToDepthwise(),
        "g (float x, float[n] l) => (float y, float[n] z) <float f = {2.0}> { y = Mul(x, f) z = Mul(l, f) }",
    )


def test_a_lone_term_and_a_factor_per_column_stay(untouched):
    untouched(
        AffineToDepthwise(),
        "g (float[n,2,2,2] x) => (float[n,2,2,2] y) <float[2] c = {1.0,2.0}, float s = {1.0}> { a = Add(x, s) y = Mul(a, c) }",
    )


def test_batch_norm_in_training_mode_is_refused(onnx_text):
    text = """g (float[n,4,3,3] x) => (float[n,4,3,3] y)
    { y, m, v = BatchNormalization<training_mode = 1>(x, gamma, beta, mean, var) }"""
    with pytest.raises(UnsupportedError, match="training_mode=1"):
        FoldBatchNorm().apply(onnx_text(text, BN))


def test_a_variance_that_is_not_one_is_named(onnx_text):
    text = "g (float[n,4,3,3] x) => (float[n,4,3,3] y) { y = BatchNormalization(x, gamma, beta, mean, var) }"
    with pytest.raises(ModelError, match=r"variance \+ epsilon must be positive. Received: -0.99"):
        FoldBatchNorm().apply(onnx_text(text, {**BN, "var": np.float32([1, -1, 1, 1])}))


def test_weights_that_overflow_are_named(onnx_text):
    text = (
        "g (float[n,1,1,1] x) => (float[n,1,1,1] y) <float[1,1,1,1] w = {1e30}, float s = {1e30}> { c = Conv(x, w) y = Mul(c, s) }"
    )
    with pytest.raises(ModelError, match="the folded constant 'w' is not finite"):
        FoldAffine().apply(onnx_text(text))


def test_the_source_of_the_layer_is_kept(onnx_text):
    model = onnx_text(
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1.0,2.0,3.0,4.0}, float s = {2.0}> { m = MatMul(x, w) y = Add(m, s) }"
    )
    for node, source in zip(model.graph, ("dense/MatMul", "dense/BiasAdd"), strict=True):
        node.metadata_props[SOURCE_KEY] = source
    BiasFromAdd().apply(model)
    assert [node.metadata_props[SOURCE_KEY] for node in model.graph] == ["dense/MatMul"]
