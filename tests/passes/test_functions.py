"""Functions of one tensor through annotation, lowering and insertion: a quantizer on each side, none inside (L12)."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tqt_onnx.passes import BitWidths, annotate, flow, functions, insert_qdq, islands, lower, optimize, remove_qdq

CONV = "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1]>"
IO = "g (float[n,2,4,4] x) => (float[n,2,4,4] y)"
RNG = np.random.default_rng(0)
ARRAYS = {
    "w": RNG.normal(size=(2, 2, 1, 1)), "v": RNG.normal(size=(2, 2, 1, 1)), "three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6,
    "half": 0.5, "four": 4.0,
}  # fmt: skip


@pytest.fixture(name="lowered")
def lowered_fixture(onnx_text):
    def make(body, *, layer=32, unsigned=False, io=IO):
        used = {name: np.asarray(value, np.float32) for name, value in ARRAYS.items() if re.search(rf"[(, ]{name}[),]", body)}
        model = onnx_text(f"{io} {{ {body} }}", used)
        optimize(model)
        lower(model, "layer32" if layer == 32 else "layer16", unsigned_input=unsigned)
        return model, annotate(model, BitWidths(layer=layer, unsigned_input=unsigned))

    return make


def specs(graph):
    return {q.value: f"{'i' if q.signed else 'u'}{q.bits}" for q in graph.quantizers}


@pytest.mark.parametrize("layer", [16, 32])
def test_one_quantizer_on_each_side_and_none_inside(lowered, layer):
    body = f"c = Conv{CONV}(x, w) a = Add(c, three) k = Clip(a, zero, six) s = Mul(k, sixth) m = Mul(c, s) y = Conv{CONV}(m, v)"
    model, graph = lowered(body, layer=layer)
    assert {name: spec for name, spec in specs(graph).items() if name in "cakms"} == {"c": "i8", "m": "i8"}
    assert islands(model) == []
    (table,) = functions(model)
    assert (table.operators, table.input, table.signed) == (("Add", "Clip", "Mul", "Mul"), "c", True)
    quantized = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    inside = [node.op_type for node in quantized.graph]
    start = inside.index("Clip")
    assert inside[start - 1 : start + 3] == ["Add", "Clip", "Mul", "Mul"]
    again = insert_qdq(*remove_qdq(quantized))
    assert [(node.op_type, node.outputs[0].name) for node in again.graph] == [
        (node.op_type, node.outputs[0].name) for node in quantized.graph
    ]


@pytest.mark.parametrize(
    ("function", "unsigned", "expected"),
    [
        ("f = Sigmoid(c)", False, "u8"),
        ("f = Tanh(c)", False, "i8"),
        ("r = Relu(c) f = Tanh(r)", False, "u8"),
        ("s = Sigmoid(c) f = Mul(c, s)", False, "i8"),
        ("s = Sigmoid(c) m = Mul(c, s) f = Relu(m)", False, "u8"),
        ("q = Mul(c, c) a = Add(q, four) r = Sqrt(a) f = Add(c, r)", False, "u8"),  # squareplus
        ("f = Mul(c, c)", False, "u8"),
        ("s = Softplus(c) f = Neg(s)", False, "i8"),
        ("f = Sqrt(c)", False, "i8"),  # no number at all where c is negative
        ("r = Relu(c) f = Sqrt(r)", False, "u8"),
        ("f = Abs(c)", False, "u8"),
        ("f = Softmax<axis = 1>(c)", False, "u8"),  # an island
    ],
)
def test_what_is_never_negative_is_unsigned(lowered, function, unsigned, expected):
    _, graph = lowered(f"c = Conv{CONV}(x, w) {function} y = Conv{CONV}(f, v)", unsigned=unsigned)
    assert specs(graph)["f"] == expected


def test_the_sign_of_the_input_counts(lowered):
    body = f"s = Sigmoid(x) f = Mul(x, s) y = Conv{CONV}(f, w)"
    assert specs(lowered(body)[1])["f"] == "i8"
    model, graph = lowered(body, unsigned=True)
    assert specs(graph)["f"] == "u8"
    assert [table.signed for table in functions(model, unsigned_input=True)] == [False]
    assert [table.signed for table in functions(model)] == [True]


def test_a_constant_that_others_quantize_is_copied(lowered):
    """3.0 is an addend with a scale of its own, and a number of the function."""
    body = f"c = Conv{CONV}(x, w) r = MaxPool<kernel_shape = [1, 1]>(x) b = Add(r, three) e = Exp(c) f = Add(e, three)"
    _, graph = lowered(f"{body} d = Add(b, f) y = Conv{CONV}(d, v)")
    assert sum(value.startswith("three") for value in specs(graph)) == 1


def test_the_result_shares_a_scale_like_any_other(lowered):
    model, graph = lowered(f"c = Conv{CONV}(x, w) s = Sigmoid(c) d = Conv{CONV}(x, v) y = Add(s, d)")
    groups = {q.value: q.group for q in graph.quantizers}
    assert groups["s__to__y"] == groups["d"] and specs(graph)["s__to__y"] == "i8" and specs(graph)["s"] == "u8"
    assert islands(model) == []


def test_what_only_float_operators_read_stays_float(lowered):
    model, graph = lowered(f"c = Conv{CONV}(x, w) s = Tanh(c) t = Sin(s) y = Conv{CONV}(t, v)")
    assert "s" not in specs(graph) and functions(model) == []
    assert [island.op_type for island in islands(model)] == ["Tanh", "Sin"]


UNREAD = "part of a function that only float operators read (L12)"


@pytest.mark.parametrize(
    "function",
    [
        "a = Add(c, three) b = Clip(a, zero, six) d = Mul(b, sixth) h = Mul(c, d)",
        "s = Sigmoid(c) h = Mul(c, s)",
        "s = Sigmoid(c) r = Mul(c, s) h = LeakyRelu(r)",
        "h = Mul(c, c)",
    ],
)
@pytest.mark.parametrize("layer", [16, 32])
def test_then_no_part_of_it_is_quantized_for_itself(lowered, function, layer):
    """Neither its sums nor its products, though one of their operands is rounded."""
    model, graph = lowered(f"c = Conv{CONV}(x, w) {function} t = Sin(h) y = Conv{CONV}(t, v)", layer=layer)
    activations = [quantizer.value for quantizer in graph.quantizers if quantizer.role in ("activation", "rescale")]
    assert activations == ["c", "t", "y"] and functions(model) == []
    *inside, last = islands(model)
    assert {island.reason for island in inside} == {UNREAD} and len(inside) == function.count("=")
    assert (last.op_type, last.reason) == ("Sin", "Sin has no fixed-point form")


def test_what_moves_and_clips_behind_it_stays_float_too(lowered):
    body = f"c = Conv{CONV}(x, w) a = Tanh(c) m = MaxPool<kernel_shape = [1, 1]>(a) k = Clip(m, half, six) t = Sin(k)"
    model, graph = lowered(f"{body} y = Conv{CONV}(t, v)")
    assert not {"a", "m", "k"} & set(specs(graph))
    assert [island.op_type for island in islands(model)] == ["Tanh", "Clip", "Sin"]


@pytest.mark.parametrize("last", ["Sin", "Relu"])
def test_a_long_chain_of_functions_is_walked_a_few_times(lowered, last, monkeypatch):
    """Whoever reads the last one decides about all: not one walk for each."""
    walks = []
    walk = flow._walk
    monkeypatch.setattr(flow, "_walk", lambda *arguments: walks.append(1) or walk(*arguments))
    chain = " ".join(
        f"a{i} = Tanh(m{i - 1}) m{i} = MaxPool<kernel_shape = [1, 1], pads = [0, 0, 0, 0]>(a{i})" for i in range(1, 31)
    )
    model, _ = lowered(f"m0 = Conv{CONV}(x, w) {chain} t = {last}(m30) y = Conv{CONV}(t, v)")
    walks.clear()
    assert len(functions(model)) == (0 if last == "Sin" else 30) and len(walks) <= 3


def test_a_computed_bound_says_nothing_about_the_sign(lowered, onnx_text):
    """Where a Slice ends is a signed number, what it cuts out is not."""
    arrays = {"w": np.ones((2, 2, 1, 1), np.float32), "one": np.ones(1, np.int64), "start": np.zeros(1, np.int64)}
    body = f"c = Conv{CONV}(x, w) r = Relu(c) s = Shape<start = 0, end = 1>(x) e = Add(s, one) t = Slice(r, start, e, one)"
    model = onnx_text(f"g (float[n,2,4,4] x) => (float[n,m,4,4] y) {{ {body} y = Identity(t) }}", arrays)
    found = flow.analyse(model.graph)
    assert {value.name: signed for value, signed in found.signed.items() if value.name in "rt"} == {"r": False, "t": False}


def test_behind_a_softmax_everything_is_float(lowered):
    model, _ = lowered(f"c = Conv{CONV}(x, w) s = Softmax<axis = 1>(c) y = Sigmoid(s)")
    assert functions(model) == [] and [island.expected for island in islands(model)] == [True, True]


def test_a_factor_behind_goes_into_the_next_layer_and_one_inside_stays(lowered):
    body = f"c = Conv{CONV}(x, w) h = Mul(c, half) s = Sigmoid(h) m = Mul(c, s) t = Mul(m, sixth) y = Conv{CONV}(t, v)"
    model, _ = lowered(body)
    assert [table.operators for table in functions(model)] == [("Mul", "Sigmoid", "Mul")]
    assert sum(node.op_type == "Conv" for node in model.graph) == 2


@pytest.mark.parametrize(
    ("body", "inside"),
    [
        ("k = Clip(c, half) f = Reciprocal(k)", ("Clip", "Reciprocal")),
        ("k = Clip(c, half, six) f = Log(k)", ("Clip", "Log")),
        ("k = Clip(c, half) f = Div(three, k)", ("Clip", "Div")),
        ("k = Clip(c, half) s = Sqrt(k) f = Reciprocal(s)", ("Clip", "Sqrt", "Reciprocal")),
        ("k = Clip(c, half) f = Tanh(k)", ("Tanh",)),
        ("k = Clip(c, zero, six) f = Exp(k)", ("Exp",)),
        ("r = Relu(c) a = Add(r, three) f = Reciprocal(a)", ("Add", "Reciprocal")),
    ],
)
def test_a_clip_that_keeps_a_division_from_zero_is_part_of_the_function(lowered, body, inside):
    model, _ = lowered(f"c = Conv{CONV}(x, w) {body} y = Conv{CONV}(f, v)")
    (table,) = functions(model)
    assert table.operators == inside
