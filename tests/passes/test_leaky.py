"""Leaky relus (L3): recognised, lowered to a maximum, annotated with 16 bits, written as Q/DQ and read back."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import Quantizer, UnsupportedError, name_of
from tqt_onnx.passes import PASSES, BitWidths, annotate, insert_qdq, islands, lower, optimize, remove_qdq, run_passes
from tqt_onnx.passes.leaky_to_max import LeakyToMax
from tqt_onnx.passes.lower import SplitBias
from tqt_onnx.passes.max_to_leaky import MaxToLeaky

CONV = "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1]>"
IO = "g (float[n,2,4,4] x) => (float[n,2,4,4] y)"
TALL = "g (float[n,2,4,4] x) => (float[n,4,4,4] y)"
W = {name: np.random.default_rng(0).normal(size=(2, 2, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
BIAS = {"b1": np.array([0.25, -0.5], np.float32)}
ALPHA = {"y__alpha": np.float32(0.1)}


def operators(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def types(quantizers: dict[str, Quantizer]) -> dict[str, tuple[str, str, str]]:
    """value -> (role, type, group)."""
    return {name: (q.role, f"{'i' if q.signed else 'u'}{q.bits}", q.group) for name, q in quantizers.items()}


# --- recognition


@pytest.mark.parametrize(
    ("body", "slope"),
    [
        ("{ s = Mul(x, a) y = Max(x, s) }", 0.25),
        ("{ s = Mul(a, x) y = Max(s, x) }", 0.25),
        ("{ s = Mul(a, x) y = Min(s, x) }", 1.5),
        ("{ s = Mul(x, a) y = Max(x, s) }", -0.5),
        ("{ y = PRelu(x, a) }", 0.25),
        ("{ p = Relu(x) n = Neg(x) m = Relu(n) s = Mul(a, m) y = Sub(p, s) }", 0.25),
    ],
)
@pytest.mark.parametrize("shape", [(), (1, 1, 1), (2, 1, 1)])
def test_every_way_to_write_it(golden, body, slope, shape):
    arrays = {"a": np.full(shape, slope, np.float32)}
    golden(MaxToLeaky(), f"{IO} {body}", f"{IO} {{ y = LeakyRelu<alpha = {slope}>(x) }}", arrays)


def test_keras_writes_minus_the_slope(golden):
    body = "{ p = Relu(x) n = Neg(x) m = Relu(n) s = Mul(m, a) y = Add(s, p) }"
    golden(MaxToLeaky(), f"{IO} {body}", f"{IO} {{ y = LeakyRelu<alpha = 0.25>(x) }}", {"a": np.float32(-0.25)})


@pytest.mark.parametrize(
    ("body", "slope"),
    [
        ("{ s = Mul(x, a) y = Max(x, s) }", 1.5),  # the larger of x and 1.5 x is no leaky relu
        ("{ s = Mul(x, a) y = Min(x, s) }", 0.5),
        ("{ s = Mul(x, a) y = Max(x, s) }", np.inf),
        ("{ s = Mul(x, a) t = Abs(x) y = Min(s, t) }", 0.5),
        ("{ n = Neg(x) p = Relu(n) m = Relu(x) s = Mul(m, a) y = Add(s, p) }", 0.5),
        ("{ p = Relu(x) n = Neg(x) m = Relu(n) s = Mul(m, a) y = Sub(s, p) }", 0.5),
    ],
)
def test_what_is_no_leaky_relu_stays(untouched, body, slope):
    untouched(MaxToLeaky(), f"{IO} {body}", {"a": np.float32(slope)})


SLOPES = {"a": np.array([0.1, 0.5], np.float32).reshape(2, 1, 1)}


@pytest.mark.parametrize(
    "body",
    [
        "{ s = Mul(a, x) y = Max(s, x) }",
        "{ p = Relu(x) n = Neg(x) m = Relu(n) s = Mul(a, m) y = Sub(p, s) }",
        "{ p = Max(x, zero) m = Min(x, zero) s = Mul(a, m) y = Add(s, p) }",
        "{ p = Clip(x, zero) m = Clip(x, , zero) s = Mul(a, m) y = Add(s, p) }",
        "{ p = Relu(x) b = Abs(x) d = Sub(x, b) h = Mul(d, a) s = Mul(h, half) y = Add(s, p) }",
        "{ p = Relu(x) b = Abs(x) d = Sub(x, b) h = Mul(d, a) s = Div(h, two) y = Add(s, p) }",
        "{ p = Relu(x) q = Sub(x, p) s = Mul(q, a) y = Add(p, s) }",
    ],
)
def test_slopes_that_differ_become_a_prelu(golden, body):
    given = {name: np.float32(number) for name, number in (("zero", 0), ("half", 0.5), ("two", 2)) if name in body}
    golden(MaxToLeaky(), f"{IO} {body}", f"{IO} {{ y = PRelu(x, y__slopes) }}", SLOPES | given, {"y__slopes": SLOPES["a"]})


def test_slopes_of_a_sum_of_two_halves(golden):
    """`0.5 (1 + a) x + 0.5 (1 - a) |x|`: the slope above zero is 1 but for a rounding."""
    body = "{ s = Mul(x, p) b = Abs(x) t = Mul(b, q) y = Add(s, t) }"
    arrays = {"p": np.float32(0.6), "q": np.float32(0.4)}
    golden(MaxToLeaky(), f"{IO} {body}", f"{IO} {{ y = LeakyRelu<alpha = 0.20000001788139343>(x) }}", arrays)


def test_slopes_that_differ_stay(untouched, onnx_text):
    text = f"{IO} {{ y = PRelu(x, a) }}"
    untouched(MaxToLeaky(), text, SLOPES)
    assert islands(onnx_text(text, SLOPES)) == []


def test_computed_slopes_stay_and_say_why(onnx_text):
    (island,) = islands(onnx_text("g (float[n,2,4,4] x, float[n,2,4,4] a) => (float[n,2,4,4] y) { y = PRelu(x, a) }"))
    assert "its slopes are computed" in island.reason


def test_a_slope_that_makes_the_value_grow_stays(untouched):
    io = "g (float[n,1,4,4] x) => (float[n,2,4,4] y)"
    untouched(MaxToLeaky(), f"{io} {{ s = Mul(x, a) y = Max(x, s) }}", {"a": np.full((2, 1, 1), 0.5, np.float32)})


@pytest.mark.parametrize(("slope", "operator"), [(0.0, "Relu"), (1.0, "Identity")])
def test_slopes_zero_and_one(golden, slope, operator):
    golden(MaxToLeaky(), f"{IO} {{ y = LeakyRelu<alpha = {slope}>(x) }}", f"{IO} {{ y = {operator}(x) }}")


def test_the_optimizer_finds_it_before_its_product_becomes_a_layer(rewritten):
    model = rewritten(
        [], f"{IO} {{ c = Conv{CONV}(x, w1) s = Mul(a, c) y = Max(s, c) }}", {"w1": W["w1"], "a": np.full((1, 1, 1), 0.1, "f4")}
    )
    optimize(model)
    assert operators(model) == ["Conv", "LeakyRelu"]


# --- lowering


@pytest.mark.parametrize(
    ("slopes", "body", "after"),
    [
        ([0.1, 1.0], "y__scaled = Mul(x, y__alpha) y = Max(x, y__scaled)", {"y__alpha": [0.1, 1.0]}),
        ([1.5, 1.0], "y__scaled = Mul(x, y__alpha) y = Min(x, y__scaled)", {"y__alpha": [1.5, 1.0]}),
        (
            [0.1, 1.5],
            """y__up_to_1__scaled = Mul(x, y__up_to_1__alpha) y__up_to_1__leaky = Max(x, y__up_to_1__scaled)
               y__scaled = Mul(y__up_to_1__leaky, y__alpha) y = Min(y__up_to_1__leaky, y__scaled)""",
            {"y__up_to_1__alpha": [0.1, 1.0], "y__alpha": [1.0, 1.5]},
        ),
    ],
)
def test_one_slope_per_channel(golden, slopes, body, after):
    arrays = {name: np.array(numbers, np.float32).reshape(2, 1, 1) for name, numbers in ({"a": slopes} | after).items()}
    golden(
        LeakyToMax(),
        f"{IO} {{ x_ = Add(x, x) y = PRelu(x_, a) }}",
        f"{IO} {{ x_ = Add(x, x) {body.replace('(x', '(x_')} }}",
        {"a": arrays.pop("a")},
        arrays,
    )


def test_slopes_of_both_signs_leave_a_signed_value():
    """One negative slope for all leaves nothing negative (L3), one of several does."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> {IO} {{ y = PRelu(x, a) }}'
    for slopes, signed in (([0.1, -0.5], True), ([-0.1, -0.5], False)):
        model = onnx_ir.from_onnx_text(text, initializers=[onnx_ir.tensor(np.float32(slopes).reshape(2, 1, 1), name="a")])
        model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))
        lower(model, "layer16")
        quantizers = annotate(model).by_value()
        assert types(quantizers)["y"] == ("activation", "i8" if signed else "u8", "y")
        assert types(quantizers)["y__alpha"] == ("alpha", "i10", "y__alpha")


def test_a_layers_sum_is_rounded_once(golden):
    model = golden(
        LeakyToMax(),
        f"{IO} {{ c = Conv{CONV}(x, w1) y = LeakyRelu<alpha = 0.1>(c) }}",
        f"{IO} {{ c = Conv{CONV}(x, w1) y__scaled = Mul(c, y__alpha) y = Max(c, y__scaled) }}",
        {"w1": W["w1"]},
        {"w1": W["w1"], **ALPHA},
    )
    assert [node.metadata_props.get("tqt_onnx.role", "") for node in model.graph] == ["", "slope", "leaky"]


@pytest.mark.parametrize(
    ("before", "value"),
    [("", "x"), ("m = MaxPool<kernel_shape = [1, 1]>(x)", "m"), ("c = Concat<axis = 2>(x, x)", "c"), ("c = Sin(x)", "c")],
)
def test_what_has_a_quantizer_already_gets_a_value_of_its_own(rewritten, before, value):
    io = "g (float[n,2,4,4] x) => (float[b,c,h,v] y)"
    model = rewritten([LeakyToMax()], f"{io} {{ {before} y = LeakyRelu({value}) }}")
    assert operators(model)[-3:] == ["Identity", "Mul", "Max"]
    identity = list(model.graph)[-3]
    assert name_of(identity.outputs[0]) == f"{value}__to__y" and identity.metadata_props["tqt_onnx.role"] == "rescale"


def test_a_sum_that_others_read_too_keeps_its_eight_bits(rewritten):
    body = f"{{ c = Conv{CONV}(x, w1) l = LeakyRelu<alpha = 0.1>(c) y = Add(c, l) }}"
    assert operators(rewritten([LeakyToMax()], f"{IO} {body}", {"w1": W["w1"]})) == ["Conv", "Identity", "Mul", "Max", "Add"]


def test_one_behind_the_other(rewritten):
    body = "{ a = Add(x, x) b = LeakyRelu<alpha = 0.5>(a) c = LeakyRelu<alpha = 3.0>(b) y = LeakyRelu<alpha = -0.2>(c) }"
    assert operators(rewritten([LeakyToMax()], f"{IO} {body}")) == ["Add", "Mul", "Max", "Mul", "Min", "Mul", "Max"]


def test_of_what_is_never_negative_it_is_a_relu(rewritten):
    model = rewritten([LeakyToMax()], f"{IO} {{ r = Relu(x) y = LeakyRelu(r) }}")
    assert operators(model) == ["Relu", "Relu"]
    model = rewritten([], f"{IO} {{ y = LeakyRelu(x) }}")
    assert run_passes(model, [LeakyToMax(unsigned_input=True)]) and operators(model) == ["Relu"]


def test_the_float_tail_stays_and_so_does_what_is_not_finite(untouched, onnx_text):
    untouched(LeakyToMax(), f"{IO} {{ s = Softmax<axis = 1>(x) y = LeakyRelu(s) }}")
    model = onnx_text(f"{IO} {{ y = LeakyRelu(x) }}")
    next(iter(model.graph)).attributes["alpha"] = onnx_ir.AttrFloat32("alpha", float("nan"))
    assert LeakyToMax().apply(model) is False
    assert [island.reason for island in islands(model)] == ["its slope is not finite"]


def test_the_accumulator_of_a_layer_without_bias_is_not_split(rewritten):
    body = f"{{ c = Conv{CONV}(x, w1) y = LeakyRelu(c) }}"
    model = rewritten([LeakyToMax(), SplitBias()], f"{IO} {body}", {"w1": W["w1"]})
    assert operators(model) == ["Conv", "Mul", "Max"]  # O5: two 16-bit quantizers in a row would be merged
    assert run_passes(model, [LeakyToMax(), SplitBias()]) is False


@pytest.mark.parametrize("clips", [1, 2])
def test_nor_is_it_where_clips_stand_in_between(rewritten, clips):
    """The clipped sum is the 16-bit value: rounded once, behind the last clip (L2)."""
    steps = " ".join(f"k{i + 1} = Clip(k{i}, low, high)" for i in range(clips))
    body = f"{{ k0 = Conv{CONV}(x, w1) {steps} y = LeakyRelu(k{clips}) }}"
    arrays = {"w1": W["w1"], "low": np.float32(-2), "high": np.float32(2)}
    model = rewritten([LeakyToMax(), SplitBias()], f"{IO} {body}", arrays)
    assert operators(model) == ["Conv", *["Clip"] * clips, "Mul", "Max"]


def test_a_clip_with_other_readers_does_not_hold_the_split_off(rewritten):
    body = f"{{ c = Conv{CONV}(x, w1) k = Clip(c, low, high) l = LeakyRelu(k) y = Add(l, c) }}"
    arrays = {"w1": W["w1"], "low": np.float32(-2), "high": np.float32(2)}
    model = rewritten([LeakyToMax(), SplitBias()], f"{IO} {body}", arrays)
    assert operators(model)[:2] == ["Conv", "Identity"]


def test_lowering_undone_by_nobody(rewritten):
    """The optimizer would recognise the maximum it was lowered to, if its role did not say where it comes from."""
    model = rewritten([LeakyToMax()], f"{IO} {{ c = Add(x, x) y = LeakyRelu(c) }}")
    assert MaxToLeaky().apply(model) is False
    assert {"leaky-to-max", "max-to-leaky"} <= set(PASSES)


# --- annotation


@pytest.fixture
def annotated(rewritten):
    """Lowers (numbers unchanged), annotates."""

    def make(body: str, bits: BitWidths, io: str = IO):
        arrays = {name: array for name, array in (W | BIAS).items() if name in body}
        model = rewritten([], f"{io} {body}", arrays)
        lower(model, bits.contract, unsigned_input=bits.unsigned_input)
        return model, annotate(model, bits)

    return make


def test_layer16(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1, b1) y = LeakyRelu<alpha = 0.1>(c) }}", BitWidths(layer=16))
    assert types(graph.by_value()) == {
        "x__input": ("input", "i8", "x__input"),
        "w1": ("weight", "i8", "w1"),
        "c__acc": ("accumulator", "i16", "c__acc"),
        "b1": ("bias", "i16", "c__acc"),
        "c": ("activation", "i16", "c"),
        "y__alpha": ("alpha", "i10", "y__alpha"),
        "y__scaled": ("activation", "i16", "c"),
        "y": ("activation", "i8", "y"),
    }


def test_layer16_without_bias_starts_from_the_accumulator(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) y = LeakyRelu(c) }}", BitWidths(layer=16))
    assert types(graph.by_value())["c"] == ("accumulator", "i16", "c")
    assert types(graph.by_value())["y__scaled"] == ("activation", "i16", "c")


def test_layer32_keeps_the_intermediates_at_16_bits(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1, b1) y = LeakyRelu(c) }}", BitWidths(layer=32))
    found = types(graph.by_value())
    assert (found["b1"][1], found["c"], found["y__scaled"]) == ("i32", ("activation", "i16", "c"), ("activation", "i16", "c"))


@pytest.mark.parametrize("layer", [16, 32])
def test_an_input_stays_eight_bits_wide(annotated, layer):
    _, graph = annotated(f"{{ l = LeakyRelu(x) y = Conv{CONV}(l, w1) }}", BitWidths(layer=layer))
    found = types(graph.by_value())
    assert found["x__input"] == ("input", "i8", "x__input")
    assert found["x__input__to__l"] == ("rescale", "i16", "x__input__to__l")


def test_a_negative_slope_leaves_nothing_negative(annotated):
    _, graph = annotated("{ a = Add(x, x) y = LeakyRelu<alpha = -0.5>(a) }", BitWidths(relu=7))
    assert types(graph.by_value())["y"] == ("activation", "u7", "y")


def test_a_relu_behind_it_follows_without_a_quantizer_in_between(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) l = LeakyRelu(c) y = Relu(l) }}", BitWidths(layer=32))
    assert "l" not in graph.by_value() and types(graph.by_value())["y"][1] == "u8"


@pytest.mark.parametrize("layer", [16, 32])
def test_concat_of_a_relu_branch_and_a_leaky_one(annotated, layer):
    """L5: the odd branch is rescaled, the leaky one takes the shared scale with its own quantizer."""
    body = f"""{{ c = Conv{CONV}(x, w1) r = Relu(c) d = Conv{CONV}(x, w2) l = LeakyRelu<alpha = 0.1>(d)
                  y = Concat<axis = 1>(r, l) }}"""
    model, graph = annotated(body, BitWidths(layer=layer), TALL)
    found = types(graph.by_value())
    assert found["r"] == ("activation", "u8", "r")
    assert found["r__to__y"] == ("rescale", "i8", "l")
    assert found["l"] == ("activation", "i8", "l")
    assert found["d"][1:] == ("i16", "d") and found["l__scaled"] == ("activation", "i16", "d")
    assert "y" not in found
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 1.0)))
    lines = {name_of(node.outputs[0]): [name_of(value) for value in node.inputs] for node in quantized.graph}
    assert lines["r__to__y__q"] == ["r", "tqt_scale_2^-6", "tqt_zero_int8"]
    assert lines["l__q"] == ["l__float", "tqt_scale_2^-6", "tqt_zero_int8"]
    assert lines["y__float"] == ["r__to__y", "l"]


# --- Q/DQ


def test_insertion_golden(annotated):
    model, graph = annotated(f"{{ c = Conv{CONV}(x, w1, b1) y = LeakyRelu<alpha = 0.1>(c) }}", BitWidths(layer=32))
    decided = graph.decide({"x__input": 0.0, "w1": 1.0, "c": 3.0, "y__alpha": -3.0, "y": 2.0})
    quantized = insert_qdq(model, decided)
    assert [
        f"{', '.join(str(v.name) for v in node.outputs)} = {node.op_type}({', '.join(str(v.name) for v in node.inputs)})"
        for node in quantized.graph
    ] == [
        "x__input__q = QuantizeLinear(x, tqt_scale_2^-7, tqt_zero_int8)",
        "x__input = DequantizeLinear(x__input__q, tqt_scale_2^-7, tqt_zero_int8)",
        "w1 = DequantizeLinear(w1__q, tqt_scale_2^-6, tqt_zero_int8)",
        "b1 = DequantizeLinear(b1__q, tqt_scale_2^-13, tqt_zero_int32)",
        "c__float = Conv(x__input, w1, b1)",
        "c__q = QuantizeLinear(c__float, tqt_scale_2^-12, tqt_zero_int16)",
        "c = DequantizeLinear(c__q, tqt_scale_2^-12, tqt_zero_int16)",
        "y__alpha = DequantizeLinear(y__alpha__q, tqt_scale_2^-12, tqt_zero_int16)",
        "y__scaled__float = Mul(c, y__alpha)",
        "y__scaled__q = QuantizeLinear(y__scaled__float, tqt_scale_2^-12, tqt_zero_int16)",
        "y__scaled = DequantizeLinear(y__scaled__q, tqt_scale_2^-12, tqt_zero_int16)",
        "y__float = Max(c, y__scaled)",
        "y__q = QuantizeLinear(y__float, tqt_scale_2^-5, tqt_zero_int8)",
        "y = DequantizeLinear(y__q, tqt_scale_2^-5, tqt_zero_int8)",
    ]
    alpha = quantized.graph.initializers["y__alpha__q"].const_value.numpy()
    assert (alpha.dtype, int(alpha)) == (np.int16, 410)  # round(0.1 * 2^12)


def test_no_threshold_makes_the_slope_too_wide_for_an_exact_product(annotated):
    """`|a_q| <= 2^9` holds by the width, whatever a threshold is set or trained to (X1)."""
    model, graph = annotated("{ a = Add(x, x) y = LeakyRelu<alpha = -0.3>(a) }", BitWidths())
    for log2_t in (-9.0, -2.0, -1.0, 4.0):
        quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 1.0) | {"y__alpha": log2_t}))
        assert -512 <= int(quantized.graph.initializers["y__alpha__q"].const_value.numpy()) <= 511


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize(
    "body",
    [
        f"{{ c = Conv{CONV}(x, w1, b1) y = LeakyRelu(c) }}",
        f"{{ c = Conv{CONV}(x, w1) l = LeakyRelu<alpha = 2.0>(c) s = Add(l, c) y = LeakyRelu<alpha = -0.1>(s) }}",
        f"{{ l = LeakyRelu(x) m = MaxPool<kernel_shape = [1, 1]>(l) k = LeakyRelu(m) y = Conv{CONV}(k, w1) }}",
    ],
)
def test_removal_is_the_inverse(annotated, layer, body):
    model, graph = annotated(body, BitWidths(layer=layer))
    decided = graph.decide(dict.fromkeys(graph.groups(), 1.5))
    quantized = insert_qdq(model, decided)
    restored, found = remove_qdq(quantized)
    assert found == decided
    assert operators(insert_qdq(restored, found)) == operators(quantized)
    assert not any("Linear" in op for op in operators(restored))


def test_products_outside_the_exact_range_are_refused(annotated):
    model, graph = annotated("{ a = Add(x, x) y = LeakyRelu(a) }", BitWidths())
    thresholds = dict.fromkeys(graph.groups(), 0.0) | {"y__alpha": -60.0, "a": -60.0}
    with pytest.raises(UnsupportedError, match="Q5"):
        insert_qdq(model, graph.decide(thresholds))
