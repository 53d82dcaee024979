"""Operators of two tensors: what shares a scale, what carries it, what rounds (L4, L5, L13), and the Q/DQ that says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import QuantizerGraph, UnsupportedError
from tqt_onnx.passes import BitWidths, annotate, insert_qdq, islands, lower, remove_qdq

CONV = "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1]>"
TWO = f"a = Conv{CONV}(x, w1) b = Conv{CONV}(x, w2)"
RELUS = f"c = Conv{CONV}(x, w1) d = Conv{CONV}(x, w2) a = Relu(c) b = Relu(d)"
MIXED = f"c = Conv{CONV}(x, w1) a = Relu(c) b = Conv{CONV}(x, w2)"
ARRAYS = {
    **{name: np.random.default_rng(0).normal(size=(2, 2, 1, 1)).astype(np.float32) for name in ("w1", "w2", "w3")},
    "map": np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32),
}

Lowered = Callable[..., tuple[onnx_ir.Model, QuantizerGraph]]


@pytest.fixture
def lowered(rewritten) -> Lowered:
    """Lowers for `layer32`, numbers unchanged, and annotates."""

    def make(body: str, **arrays: np.ndarray) -> tuple[onnx_ir.Model, QuantizerGraph]:
        text = f"g (float[n,2,4,4] x) => (float[n,2,4,4] y) {{ {body} }}"
        used = {name: array for name, array in ARRAYS.items() if f"{name})" in text or f"{name}," in text}
        model = rewritten([], text, used | arrays)
        lower(model, "layer32")
        assert islands(model) == []
        return model, annotate(model, BitWidths(layer=32))

    return make


def found(graph: QuantizerGraph) -> dict[str, tuple[str, str]]:
    """value -> (type, group), of activations, inputs and rescales, and of constants that are no layer's."""
    return {
        q.value: (f"{'i' if q.signed else 'u'}{q.bits}", q.group)
        for q in graph.quantizers
        if q.value not in ("w1", "w2", "w3") and q.role != "input"
    }


def quantized(model: onnx_ir.Model, graph: QuantizerGraph) -> onnx_ir.Model:
    result = insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0)))
    again = insert_qdq(*remove_qdq(result))
    assert sorted(node.op_type for node in again.graph) == sorted(node.op_type for node in result.graph)
    return result


def behind(model: onnx_ir.Model, op_type: str) -> list[str]:
    """The chain of operators behind the first node of that type, by first readers."""
    node = next(node for node in model.graph if node.op_type == op_type)
    chain = []
    while readers := node.outputs[0].uses():
        node = readers[0][0]
        chain.append(node.op_type)
    return chain


# --- products


@pytest.mark.parametrize(("branches", "sign"), [(TWO, "i8"), (RELUS, "u8"), (MIXED, "i8")])
def test_factors_have_their_own_scales(lowered, branches, sign):
    model, graph = lowered(f"{branches} y = Mul(a, b)")
    types = found(graph)
    assert [types[name][1] for name in ("a", "b", "y")] == ["a", "b", "y"]
    assert types["y"][0] == sign
    assert behind(quantized(model, graph), "Mul") == ["QuantizeLinear", "DequantizeLinear"]


def test_what_rectifies_a_product_follows_it(lowered):
    model, graph = lowered(f"{TWO} m = Mul(a, b) y = Relu(m)")
    assert found(graph) == {"a": ("i8", "a"), "b": ("i8", "b"), "y": ("u8", "y")}
    assert behind(quantized(model, graph), "Mul") == ["Relu", "QuantizeLinear", "DequantizeLinear"]


def test_a_map_is_a_constant_of_eight_bits(lowered):
    _, graph = lowered(f"a = Conv{CONV}(x, w1) y = Mul(map, a)")
    assert found(graph) == {"a": ("i8", "a"), "map": ("i8", "map"), "y": ("i8", "y")}
    assert graph.by_value()["map"].role == "weight"


def test_a_map_of_two_products_is_copied(lowered):
    _, graph = lowered(f"{TWO} p = Mul(map, a) q = Add(map, b) y = Mul(p, q)")
    assert sum("map" in value for value in found(graph)) == 2


def test_scales_whose_product_leaves_the_exact_range_are_refused(lowered):
    model, graph = lowered(f"{TWO} y = Mul(a, b)")
    with pytest.raises(UnsupportedError, match=r"\(Q5\)"):
        insert_qdq(model, graph.decide(dict.fromkeys(graph.groups(), 0.0) | {"a": -60.0, "b": -60.0}))


# --- differences


@pytest.mark.parametrize(("branches", "operands"), [(TWO, "i8"), (RELUS, "u8")])
def test_a_difference_shares_one_scale_and_is_signed(lowered, branches, operands):
    _, graph = lowered(f"{branches} y = Sub(a, b)")
    types = found(graph)
    assert types["a"] == (operands, "a") and types["b"] == (operands, "a") and types["y"] == ("i8", "y")


def test_a_shortcut_that_is_subtracted_is_rescaled(lowered):
    _, graph = lowered(f"c = Conv{CONV}(x, w1) a = Relu(c) b = Conv{CONV}(a, w2) y = Sub(b, a)")
    assert found(graph) == {"a": ("u8", "a"), "b": ("i8", "b"), "a__to__y": ("i8", "b"), "y": ("i8", "y")}


def test_a_map_shares_the_scale_of_what_it_is_subtracted_from(lowered):
    _, graph = lowered(f"a = Conv{CONV}(x, w1) y = Sub(map, a)")
    assert found(graph)["map"][1] == found(graph)["a"][1]


# --- selections


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize(("branches", "sign"), [(TWO, "i8"), (RELUS, "u8")])
def test_a_selection_carries_the_scale_of_its_operands(lowered, op, branches, sign):
    model, graph = lowered(f"{branches} m = {op}(a, b) y = Conv{CONV}(m, w3)")
    assert found(graph) == {"a": (sign, "a"), "b": (sign, "a"), "y": ("i8", "y")}
    result = quantized(model, graph)
    assert behind(result, op)[:2] == ["QuantizeLinear", "DequantizeLinear"]
    pair = next(node for node in result.graph if node.op_type == op).outputs[0].uses()[0][0]
    one = next(node for node in result.graph if node.op_type == "DequantizeLinear" and node.outputs[0].name == "a")
    assert pair.inputs[1:] == one.inputs[1:]


def test_the_odd_sign_is_rescaled(lowered):
    _, graph = lowered(f"{MIXED} m = Max(a, b) y = Conv{CONV}(m, w3)")
    assert found(graph) == {"a": ("u8", "a"), "a__to__m": ("i8", "b"), "b": ("i8", "b"), "y": ("i8", "y")}


def test_what_rectifies_a_selection_rounds_it(lowered):
    model, graph = lowered(f"{TWO} m = Max(a, b) y = Relu(m)")
    assert found(graph) == {"a": ("i8", "a"), "b": ("i8", "a"), "y": ("u8", "y")}
    assert behind(quantized(model, graph), "Max") == ["Relu", "QuantizeLinear", "DequantizeLinear"]


def test_a_leaky_relu_rounds_a_selection_to_16_bits(lowered):
    _, graph = lowered(f"{TWO} m = Max(a, b) y = LeakyRelu(m)")
    assert found(graph)["m"] == ("i16", "m") and found(graph)["a"] == found(graph)["b"] == ("i8", "a")


def test_three_operands_share_one_scale(lowered):
    _, graph = lowered(f"{TWO} c = Conv{CONV}(x, w3) y = Max(a, b, c)")
    assert {group for _, group in found(graph).values()} == {"a"}


def test_a_constant_joins_the_scale(lowered):
    _, graph = lowered(f"a = Conv{CONV}(x, w1) y = Max(a, map)")
    assert found(graph) == {"a": ("i8", "a"), "map": ("i8", "a")}


def test_selections_in_a_row_share_one_scale_and_a_sum_behind_them_too(lowered):
    _, graph = lowered(f"{TWO} m = Max(a, b) c = Conv{CONV}(x, w3) n = Min(m, c) d = Conv{CONV}(x, w3) y = Add(n, d)")
    assert {group for value, (_, group) in found(graph).items() if value != "y"} == {"a"}
