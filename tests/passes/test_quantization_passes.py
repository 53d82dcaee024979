"""From the optimized graph to Q/DQ: lowering keeps the numbers, annotation follows the L rules, insertion writes O1-O5."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import (
    ModelError,
    Quantizer,
    QuantizerGraph,
    UnsupportedError,
    UsageError,
    name_of,
    quantizers_of,
    replace_value,
    unique_name,
)
from tqt_onnx.passes import BitWidths, annotate, insert_qdq, islands, lower, remove_qdq, run_passes, weight_floors
from tqt_onnx.passes.average_pool_to_depthwise import AveragePoolToDepthwise, why_not
from tqt_onnx.passes.insert_rescale import InsertRescale
from tqt_onnx.passes.lower import OwnConstants, OwnInputs, SplitBias, lowering

rng = np.random.default_rng(0)
W = {
    "w1": rng.normal(size=(2, 2, 1, 1)).astype(np.float32),
    "w2": rng.normal(size=(2, 2, 1, 1)).astype(np.float32),
    "b1": np.array([0.25, -0.5], np.float32),
    "zero": np.float32(0),
    "six": np.float32(6),
}
CONV = "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1]>"
IO = "g (float[n,2,4,4] x) => (float[n,2,4,4] y)"
ANY = "g (float[n,2,4,4] x) => (float[b,c,h,v] y)"


def used(text: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in W.items() if f"{name})" in text or f"{name}," in text}


def quantizers(graph: QuantizerGraph) -> dict[str, tuple[str, str, str]]:
    """value -> (role, type, group)."""
    return {q.value: (q.role, f"{'i' if q.signed else 'u'}{q.bits}", q.group) for q in graph.quantizers}


def operators(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.fixture
def annotated(rewritten):
    """Lowers (numbers unchanged), annotates."""

    def make(body: str, bits: BitWidths | None = None, io: str = IO, **constants):
        chosen = bits or BitWidths(layer=32)
        text = f"{io} {body}"
        own = {name: rng.normal(size=c).astype(np.float32) if isinstance(c, tuple) else c for name, c in constants.items()}
        model = rewritten([], text, used(text) | own)
        lower(model, chosen.contract, unsigned_input=chosen.unsigned_input)
        return model, annotate(model, chosen)

    return make


# --- lowering


@pytest.mark.parametrize(
    "body",
    [
        f"{{ c = Conv{CONV}(x, w1, b1) y = Relu(c) }}",
        f"{{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2, b1) y = Add(c, d) }}",
        "{ p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) r = Relu(p) y = Concat<axis = 2>(r, p) }",
    ],
)
@pytest.mark.parametrize("contract", ["layer16", "layer32"])
def test_lowering_keeps_every_number_and_is_idempotent(rewritten, body, contract):
    text = f"{ANY} {body}"
    steps = [
        AveragePoolToDepthwise(),
        OwnInputs(),
        OwnConstants(),
        *([SplitBias()] if contract == "layer16" else []),
        InsertRescale(),
    ]
    model = rewritten(steps, text, used(text))
    before = onnx_ir.to_onnx_text(model)
    assert run_passes(model, steps) is False
    assert onnx_ir.to_onnx_text(model) == before


def test_average_pool_becomes_depthwise(golden):
    io = "g (float[n,2,4,4] x) => (float[n,2,2,2] y)"
    golden(
        AveragePoolToDepthwise(),
        f"{io} {{ y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) }}",
        f"""{io} {{ y = Conv<dilations = [1, 1], group = 2, kernel_shape = [2, 2], pads = [0, 0, 0, 0],
                             strides = [2, 2]>(x, y__reciprocal) }}""",
        {},
        {"y__reciprocal": np.full((2, 1, 2, 2), 0.25, np.float32)},
    )


@pytest.mark.parametrize(
    ("attributes", "counts"),
    [
        ("pads = [1, 1, 1, 1], strides = [1, 1]", [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]),
        ("pads = [0, 0, 1, 2], strides = [2, 2]", [[9, 6], [6, 4]]),
        ("pads = [2, 0, 0, 1], strides = [3, 1]", [[3, 3, 2], [9, 9, 6]]),
    ],
)
def test_an_average_over_fewer_elements_at_the_borders_is_a_sum_times_a_map(golden, attributes, counts):
    io = f"g (float[n,2,4,4] x) => (float[n,2,{len(counts)},{len(counts[0])}] y)"
    golden(
        AveragePoolToDepthwise(),
        f"{io} {{ y = AveragePool<kernel_shape = [3, 3], {attributes}>(x) }}",
        f"""{io} {{ y__sum = Conv<dilations = [1, 1], group = 2, kernel_shape = [3, 3], {attributes}>(x, y__ones)
                    y = Mul(y__sum, y__reciprocal) }}""",
        {},
        {
            "y__ones": np.ones((2, 1, 3, 3), np.float32),
            "y__reciprocal": (1 / np.array(counts, np.float64)).astype(np.float32)[None, None],
        },
    )


@pytest.mark.parametrize(("size", "count"), [(1 << 25, 1), (1 << 13, 1 << 13)])
def test_a_pool_of_a_huge_image_is_refused_before_anything_is_made_of_its_size(onnx_text, size, count):
    pool = "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)"
    model = onnx_text(f"g (float[n,1,{size},{count}] x) => (float[n,1,h,v] y) {{ y = {pool} }}")
    assert str(1 << 24) in str(why_not(next(iter(model.graph))))


def test_a_dilated_pool(golden):
    """Taps 2 apart: of a window that begins at -1, rows -1, 1 and 3."""
    io = "g (float[n,2,5,6] x) => (float[n,2,3,2] y)"
    golden(
        AveragePoolToDepthwise(),
        f"{io} {{ y = AveragePool<kernel_shape = [3, 3], dilations = [2, 2], pads = [1, 0, 1, 0]>(x) }}",
        f"""{io} {{ y__sum = Conv<dilations = [2, 2], group = 2, kernel_shape = [3, 3], pads = [1, 0, 1, 0], strides = [1, 1]>
                        (x, y__ones)
                    y = Mul(y__sum, y__reciprocal) }}""",
        {},
        {
            "y__ones": np.ones((2, 1, 3, 3), np.float32),
            "y__reciprocal": (1 / np.array([[6, 6], [9, 9], [6, 6]], np.float64)).astype(np.float32)[None, None],
        },
    )


def test_padding_that_is_counted_or_leaves_one_window_keeps_one_reciprocal(golden):
    io = "g (float[n,2,2,2] x) => (float[n,2,2,2] y, float[n,2,1,1] z)"
    golden(
        AveragePoolToDepthwise(),
        f"""{io} {{ y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)
                    z = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [3, 3]>(x) }}""",
        f"""{io} {{ y = Conv<dilations = [1, 1], group = 2, kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1]>
                        (x, y__reciprocal)
                    z = Conv<dilations = [1, 1], group = 2, kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [3, 3]>
                        (x, z__reciprocal) }}""",
        {},
        {
            "y__reciprocal": np.full((2, 1, 3, 3), 1 / 9, np.float32),
            "z__reciprocal": np.full((2, 1, 3, 3), 1 / 4, np.float32),
        },
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1", "ceil_mode"),
        ("kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], ceil_mode = 1, count_include_pad = 1", "which it counts"),
    ],
)
def test_average_pools_that_stay_float_say_why(untouched, onnx_text, attributes, reason):
    text = f"g (float[n,2,4,4] x) => (float[n,2,h,v] y) {{ y = AveragePool<{attributes}>(x) }}"
    untouched(AveragePoolToDepthwise(), text)
    (island,) = islands(onnx_text(text))
    assert reason in island.reason and not island.expected


def test_split_bias(golden):
    golden(
        SplitBias(),
        f"{IO} {{ c = Conv{CONV}(x, w1, b1) y = Conv{CONV}(c, w2) }}",
        f"""{IO} {{ c__acc = Conv{CONV}(x, w1) c = Add(c__acc, b1)
                    y__acc = Conv{CONV}(c, w2) y = Identity(y__acc) }}""",
        {name: W[name] for name in ("w1", "w2", "b1")},
        {"w1": W["w1"], "w2": W["w2"], "b1": W["b1"].reshape(2, 1, 1)},
    )


def test_a_shared_bias_is_copied(golden):
    golden(
        OwnConstants(),
        f"{IO} {{ c = Conv{CONV}(x, w1, b1) y = Conv{CONV}(c, w2, b1) }}",
        f"{IO} {{ c = Conv{CONV}(x, w1, b1) y = Conv{CONV}(c, w2, b1__of__y) }}",
        {name: W[name] for name in ("w1", "w2", "b1")},
        {"w1": W["w1"], "w2": W["w2"], "b1": W["b1"], "b1__of__y": W["b1"]},
    )


def test_an_identity_shortcut_gets_its_rescale(golden):
    golden(
        InsertRescale(),
        f"{IO} {{ r = Relu(x) c = Conv{CONV}(r, w1) y = Add(c, r) }}",
        f"{IO} {{ r = Relu(x) c = Conv{CONV}(r, w1) r__to__y = Identity(r) y = Add(c, r__to__y) }}",
        {"w1": W["w1"]},
        {"w1": W["w1"]},
    )


def test_the_rescale_stands_in_front_of_pass_through_operators(golden):
    pool = "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    golden(
        InsertRescale(),
        f"{IO} {{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) m = {pool}(c) y = Add(d, m) }}",
        f"{IO} {{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) c__to__m = Identity(c) m = {pool}(c__to__m) y = Add(d, m) }}",
        {"w1": W["w1"], "w2": W["w2"]},
        {"w1": W["w1"], "w2": W["w2"]},
    )


def test_branches_with_one_reader_and_one_sign_need_no_rescale(untouched):
    text = f"{IO} {{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) e = Conv{CONV}(x, w2) y = Add(d, e) }}"
    untouched(InsertRescale(), text, used(text))


# --- annotation


def test_layer16(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1, b1) r = Relu(c) y = Conv{CONV}(r, w2) }}", BitWidths(layer=16))
    assert quantizers(graph) == {
        "x__input": ("input", "i8", "x__input"),
        "w1": ("weight", "i8", "w1"),
        "c__acc": ("accumulator", "i16", "c__acc"),
        "b1": ("bias", "i16", "c__acc"),
        "r": ("activation", "u8", "r"),
        "w2": ("weight", "i8", "w2"),
        "y__acc": ("accumulator", "i16", "y__acc"),
        "y": ("activation", "i8", "y"),
    }


def test_layer32_bias_derives_its_scale_through_pass_through_operators(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) m = MaxPool<kernel_shape = [1, 1]>(c) y = Conv{CONV}(m, w2, b1) }}")
    assert graph.by_value()["b1"].derived_from == ("c", "w2")
    decided = graph.decide(dict.fromkeys(graph.groups(), 1.0))
    assert decided.by_value()["b1"].exponent == -6 + -6


def test_residual_shares_a_signed_scale(annotated):
    _, graph = annotated(f"{{ r = Relu(x) c = Conv{CONV}(r, w1) s = Add(c, r) y = Relu(s) }}")
    assert quantizers(graph)["c"] == ("activation", "i8", "c")
    assert quantizers(graph)["r__to__s"] == ("rescale", "i8", "c")
    assert quantizers(graph)["y"] == ("activation", "u8", "y")
    assert "s" not in quantizers(graph)  # L2: nothing between the sum and its relu


def test_concat_of_a_relu_branch_and_a_signed_one(annotated):
    _, graph = annotated(
        f"{{ c = Conv{CONV}(x, w1) r = Relu(c) d = Conv{CONV}(x, w2) k = Concat<axis = 1>(r, d) y = Relu(k) }}",
        io="g (float[n,2,4,4] x) => (float[n,4,4,4] y)",
    )
    assert quantizers(graph)["r__to__k"] == ("rescale", "i8", "d")
    assert quantizers(graph)["d"] == ("activation", "i8", "d")
    assert quantizers(graph)["r"][1] == "u8" and "k" not in quantizers(graph)


def test_relu_branches_share_an_unsigned_scale(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) r = Relu(c) d = Conv{CONV}(x, w2) q = Relu(d) y = Add(r, q) }}")
    assert {quantizers(graph)[name] for name in ("r", "q")} == {("activation", "u8", "r")}
    assert quantizers(graph)["y"][1] == "u8"  # the sum of two numbers that are not negative


def test_relu6_has_a_limit_and_an_unsigned_input_is_unsigned(annotated):
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) y = Clip(c, zero, six) }}", BitWidths(layer=32, unsigned_input=True))
    assert graph.by_value()["y"].limit == 6.0
    assert not graph.by_value()["x__input"].signed


def test_four_bits_spare_the_first_and_the_last_layer(annotated):
    body = f"{{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) y = Conv{CONV}(d, w3) }}"
    W["w3"] = W["w1"] + 1
    _, graph = annotated(body, BitWidths(layer=32, weight=4))
    assert [graph.by_value()[name].bits for name in ("w1", "w2", "w3")] == [8, 4, 8]
    _, graph = annotated(body, BitWidths(layer=32, weight=4, first_layer="d", last_layer="d"))
    assert [graph.by_value()[name].bits for name in ("w1", "w2", "w3")] == [4, 8, 4]
    with pytest.raises(ModelError, match="no compute layer is called"):
        annotated(body, BitWidths(layer=32, weight=4, first_layer="nobody"))


def test_softmax_and_what_follows_stays_float(annotated):
    model, graph = annotated(f"{{ c = Conv{CONV}(x, w1) s = Softmax<axis = 1>(c) y = Relu(s) }}")
    assert set(quantizers(graph)) == {"x__input", "w1", "c"}
    assert [(island.op_type, island.expected) for island in islands(model)] == [("Softmax", True), ("Relu", True)]


def test_an_unknown_operator_is_an_island_and_its_reader_quantizes_anew(annotated):
    model, graph = annotated(f"{{ c = Conv{CONV}(x, w1) s = Sin(c) y = Conv{CONV}(s, w2) }}")
    assert quantizers(graph)["s"] == ("activation", "i8", "s")
    assert [(island.op_type, island.expected) for island in islands(model)] == [("Sin", False)]


def test_nothing_to_quantize(annotated):
    with pytest.raises(UnsupportedError, match="nothing to quantize"):
        annotated("{ y = Softmax(x) }")


@pytest.mark.parametrize(("field", "value"), [("weight", 1), ("weight", 9), ("layer", 24), ("relu", 0), ("reciprocal", 16)])
def test_widths_out_of_range(field, value):
    with pytest.raises(UsageError):
        BitWidths(**{field: value})


# --- Q/DQ


def test_insertion_golden(annotated):
    model, graph = annotated(f"{{ c = Conv{CONV}(x, w1, b1) y = Clip(c, zero, six) }}")
    quantized = insert_qdq(model, graph.decide({"x__input": 0.0, "w1": 1.0, "y": 3.0}))
    lines = [
        f"{', '.join(str(v.name) for v in node.outputs)} = {node.op_type}({', '.join(str(v.name) for v in node.inputs)})"
        for node in quantized.graph
    ]
    assert lines == [
        "x__input__q = QuantizeLinear(x, tqt_scale_2^-7, tqt_zero_int8)",
        "x__input = DequantizeLinear(x__input__q, tqt_scale_2^-7, tqt_zero_int8)",
        "w1 = DequantizeLinear(w1__q, tqt_scale_2^-6, tqt_zero_int8)",
        "b1 = DequantizeLinear(b1__q, tqt_scale_2^-13, tqt_zero_int32)",
        "c = Conv(x__input, w1, b1)",
        "y__r = QuantizeLinear(c, tqt_scale_2^-5, tqt_zero_uint8)",
        "y__q = Clip(y__r, tqt_bound_uint8_0, tqt_bound_uint8_192)",
        "y = DequantizeLinear(y__q, tqt_scale_2^-5, tqt_zero_uint8)",
    ]
    constants = quantized.graph.initializers
    assert constants["b1__q"].const_value.numpy().tolist() == [2048, -4096]
    assert constants["w1__q"].const_value.numpy().dtype == np.int8
    assert [value.name for value in quantized.graph.outputs] == ["y"]
    assert quantizers_of(quantized).decided
    assert operators(model).count("QuantizeLinear") == 0  # the given model is unchanged


def test_pass_through_operators_get_carry_pairs(annotated):
    model, graph = annotated(f"{{ c = Conv{CONV}(x, w1) m = MaxPool<kernel_shape = [1, 1]>(c) y = Conv{CONV}(m, w2) }}")
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    pool = next(node for node in quantized.graph if node.op_type == "MaxPool")
    (reader,) = (node for node, _ in pool.outputs[0].uses())
    assert reader.op_type == "QuantizeLinear" and name_of(reader.outputs[0]) == "m__q"
    assert "m" not in graph.by_value()  # an exact no-op, not a quantizer


def test_int4_weights_are_stored_as_int4(annotated):
    W["w3"] = W["w1"] + 1
    model, graph = annotated(
        f"{{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) y = Conv{CONV}(d, w3) }}", BitWidths(layer=32, weight=4)
    )
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert quantized.graph.initializers["w2__q"].dtype == onnx_ir.DataType.INT4


@pytest.mark.parametrize("layer", [16, 32])
def test_removal_is_the_inverse(annotated, layer):
    body = f"""{{ c = Conv{CONV}(x, w1, b1) r = Clip(c, zero, six) d = Conv{CONV}(r, w2) s = Add(d, r)
                  p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(s) y = Concat<axis = 2>(p, p) }}"""
    model, graph = annotated(body, BitWidths(layer=layer), ANY)
    decided = graph.decide(dict.fromkeys(graph.groups(), 1.5))
    quantized = insert_qdq(model, decided)
    restored, found = remove_qdq(quantized)
    assert found == decided
    assert operators(insert_qdq(restored, found)) == operators(quantized)
    assert not any("Linear" in op for op in operators(restored))


def test_two_quantizers_in_a_row_are_refused(annotated):
    """O5: an unsigned input with a quantizer behind its relu would be rounded twice to one dtype, which onnxruntime merges."""
    model, graph = annotated(f"{{ r = Relu(x) y = Conv{CONV}(r, w1) }}", BitWidths(layer=32, unsigned_input=True))
    more = QuantizerGraph(graph.contract, (*graph.quantizers, Quantizer("r", "r", 8, False, "activation", "r")))
    with pytest.raises(UnsupportedError, match="O5"):
        insert_qdq(model, more.decide({"x__input": 0.0, "r": 1.0, "w1": 0.0, "y": 0.0}))


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize(
    ("body", "unsigned"),
    [
        (f"{{ r = Clip(x, zero, six) y = Conv{CONV}(r, w1) }}", True),  # relu6 of what is never negative
        (f"{{ r = Clip(x, low, six) y = Conv{CONV}(r, w1) }}", True),  # likewise: what it holds below 0 is never there
        (f"{{ r = Clip(x, low, high) y = Conv{CONV}(r, w1) }}", False),
        (
            f"{{ c = Concat<axis = 1>(x, x) s = Clip(c, low, high) r = MaxPool<kernel_shape = [1, 1]>(s) y = Conv{CONV}(r, w4) }}",
            False,
        ),
    ],
)
def test_a_clip_of_what_is_rounded_already_carries_its_scale(annotated, body, unsigned, layer):
    """L7: a quantizer of its own would have the type of the one in front (O5); its bounds go on that one's grid."""
    bits = BitWidths(layer=layer, unsigned_input=unsigned)
    own = {"low": np.float32(-0.3), "high": np.float32(0.7), "w4": (2, 4, 1, 1)}
    model, graph = annotated(body, bits, **{name: value for name, value in own.items() if name in body})
    assert not {"r", "s"} & set(graph.by_value())
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    (clip,) = (node for node in quantized.graph if node.op_type == "Clip")
    (quantize,) = (node for node, _ in clip.outputs[0].uses())
    assert quantize.op_type == "QuantizeLinear"
    assert [value.name for value in quantize.inputs[1:]] == [value.name for value in clip.inputs[0].producer().inputs[1:]]
    assert operators(insert_qdq(*remove_qdq(quantized))) == operators(quantized)


def test_a_clip_that_changes_the_sign_has_a_quantizer_of_its_own(annotated):
    _, graph = annotated(f"{{ r = Clip(x, zero, six) y = Conv{CONV}(r, w1) }}")
    assert quantizers(graph)["x__input"] == ("input", "i8", "x__input") and quantizers(graph)["r"] == ("activation", "u8", "r")


def test_an_input_has_one_integer_form_whoever_reads_it(annotated):
    """L8: two shared scales rescale it, each from the 8 bits that the network is given."""
    _, graph = annotated(f"{{ c = Conv{CONV}(x, w1) d = Conv{CONV}(c, w2) a = Add(x, d) y = Add(a, x) }}")
    found = quantizers(graph)
    assert found["x__input"] == ("input", "i8", "x__input")
    assert [name for name, (role, _, _) in found.items() if role == "rescale"] == ["x__input__to__a", "x__input__to__y"]


@pytest.mark.parametrize("reader", ["Relu(x)", "LeakyRelu(x)", "Clip(x, zero, six)"])
def test_a_rectifier_alone_makes_an_unsigned_input_fixed_point(annotated, reader):
    """L10: it would stay float, and nobody would be told."""
    io = "g (float[n,2,4,4] x, float[n,2,4,4] z) => (float[n,2,4,4] r, float[n,2,4,4] y)"
    bits = BitWidths(layer=32, unsigned_input=True)
    model, graph = annotated(f"{{ r = {reader} y = Conv{CONV}(z, w1) }}", bits, io)
    assert quantizers(graph)["x__input"] == ("input", "u8", "x__input")
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert [value.producer().op_type for value in quantized.graph.outputs] == ["DequantizeLinear", "DequantizeLinear"]


def test_a_relu_of_what_is_unsigned_carries_its_scale(annotated):
    model, graph = annotated(f"{{ r = Relu(x) y = Conv{CONV}(r, w1) }}", BitWidths(layer=32, unsigned_input=True))
    assert "r" not in graph.by_value()
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert [name_of(node.outputs[0]) for node in quantized.graph if node.op_type == "QuantizeLinear"] == [
        "x__input__q",
        "r__q",
        "y__q",
    ]


def test_a_clip_that_is_no_relu6_stays_in_front_of_its_quantizer(annotated):
    model, graph = annotated(
        f"{{ c = Conv{CONV}(x, w1) k = Clip(c, low, high) y = Conv{CONV}(k, w2) }}", low=np.float32(-0.3), high=np.float32(0.7)
    )
    assert quantizers(graph)["k"] == ("activation", "i8", "k") and "c" not in quantizers(graph)
    assert graph.by_value()["k"].limit is None and islands(model) == []
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert [op for op in operators(quantized) if op in ("Conv", "Clip", "QuantizeLinear")] == [
        "QuantizeLinear", "Conv", "Clip", "QuantizeLinear", "Conv", "QuantizeLinear",
    ]  # fmt: skip


def test_products_outside_the_exact_range_are_refused(annotated):
    model, graph = annotated(f"{{ y = Conv{CONV}(x, w1) }}")
    thresholds = dict.fromkeys(graph.groups(), -60.0)
    with pytest.raises(UnsupportedError, match="Q5"):
        insert_qdq(model, graph.decide(thresholds))


def test_a_bias_beyond_int32_is_refused_and_told_how_much_room_it_needs(annotated):
    model, graph = annotated(f"{{ y = Conv{CONV}(x, w1, b1) }}")
    thresholds = {"x__input": 0.0, "w1": -26.0, "y": 0.0}  # scales 2^-7 and 2^-33: 0.5 is 2^39
    decided = graph.decide(thresholds)
    with pytest.raises(UnsupportedError, match="int32"):
        insert_qdq(model, decided)
    floors = weight_floors(model, decided)
    roomy = graph.decide(thresholds | floors)
    assert weight_floors(model, roomy) == {}
    assert insert_qdq(model, roomy).graph.initializers["b1__q"].const_value.numpy().tolist() == [2**29, -(2**30)]
    finer = graph.decide(thresholds | {"w1": floors["w1"] - 1})
    assert weight_floors(model, finer) == floors  # one power of two less does not fit


def test_a_quantizer_on_nothing_is_refused(annotated):
    model, graph = annotated(f"{{ y = Conv{CONV}(x, w1) }}")
    stray = Quantizer("ghost", "ghost", 8, True, "activation", "ghost", exponent=0)
    decided = graph.decide(dict.fromkeys(graph.groups(), 0.0))
    with pytest.raises(ModelError, match="ghost"):
        insert_qdq(model, QuantizerGraph(decided.contract, (*decided.quantizers, stray)))


def test_two_thousand_nodes_in_a_chain(onnx_text):
    """No recursion, and no step that is quadratic in the nodes."""
    body = "".join(f"v{i + 1} = Conv{CONV}(v{i}, w1) " for i in range(2000)).replace("(v0,", "(x,").replace("v2000 =", "y =")
    model = onnx_text(f"{IO} {{ {body} }}", {"w1": W["w1"]})
    lower(model, "layer32")
    graph = annotate(model, BitWidths(layer=32))
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert operators(quantized).count("QuantizeLinear") == 2001
    restored, _ = remove_qdq(quantized)
    assert operators(restored).count("Conv") == 2000


def test_names_are_unique_also_in_a_clone(onnx_text):
    """A clone shares `meta` with its original; the names collected for one must not leak into the other."""
    model = onnx_text(f"{IO} {{ y = Relu(x) }}")
    assert unique_name(model.graph, "fresh") == "fresh"
    assert unique_name(model.clone().graph, "fresh") == "fresh"
    assert unique_name(model.graph, "fresh") == "fresh_1"
    with pytest.raises(ModelError, match="O3"):
        replace_value(model.graph.outputs[0], model.graph.inputs[0])


def test_upper_bounds_agree_with_real_rounding() -> None:
    for exponent in range(-8, 6):
        quantizer = Quantizer("r", "r", 8, False, "activation", "r", limit=6.0, exponent=exponent)
        assert quantizer.upper == min(255, round(math.ldexp(6.0, -exponent)))


def test_what_moves_an_islands_quantized_output_gets_a_carry_pair(annotated):
    """Without it onnxruntime does not load an int8 model: it writes the pair itself, with the wrong type."""
    model, graph = annotated(
        "{ s = Sin(x) f = Flatten(s) y = Gemm(f, dense) }", io="g (float[n,2,4,4] x) => (float[n,3] y)", dense=(32, 3)
    )
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert [op for op in operators(quantized) if op != "DequantizeLinear"] == [
        "Sin", "QuantizeLinear", "Flatten", "QuantizeLinear", "Gemm", "QuantizeLinear",
    ]  # fmt: skip


def test_every_output_of_an_island_is_quantized_that_a_layer_reads(annotated):
    model, graph = annotated(
        f"{{ a, b = Split<axis = 1, num_outputs = 2>(x) c = Conv{CONV}(a, one) d = Conv{CONV}(b, one) y = Add(c, d) }}",
        io=ANY,
        one=(2, 1, 1, 1),
    )
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    assert {"a__q", "b__q"} <= {name_of(node.outputs[0]) for node in quantized.graph}


def test_a_convolution_of_volumes_is_an_island(annotated):
    model, _ = annotated(
        f"{{ c = Conv{CONV}(x, w1) u = Unsqueeze(c, axis) y = Conv(u, cube) }}",
        io="g (float[n,2,4,4] x) => (float[b,c,d,h,v] y)",
        axis=np.array([2]),
        cube=(1, 2, 1, 1, 1),
    )
    assert ["height and width" in island.reason for island in islands(model)] == [True]


@pytest.mark.parametrize("contract", ["layer16", "layer32"])
def test_every_step_of_lowering_knows_the_sign_of_the_input(contract):
    told = [step.unsigned_input for step in lowering(contract, unsigned_input=True) if hasattr(step, "unsigned_input")]
    assert len(told) == (4 if contract == "layer16" else 3) and all(told)
