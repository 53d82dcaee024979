"""Other roundings than the model's: each by its definition, and what they change, by hand (H1)."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import examples, quantized
from hypothesis import given
from hypothesis import strategies as st

import tqt_onnx
from tqt_onnx.ir import UsageError, grid_of
from tqt_onnx.verify import ROUNDINGS, RULES, FixedPoint, Oracle, measure_rounding, rounding_ops
from tqt_onnx.verify.oracle_ops.quantization import POOL_ROUNDINGS, rounds_average_pool
from tqt_onnx.verify.rounding import OutputEffect, RoundingEffect, TensorEffect

HALF = Fraction(1, 2)

DEFINITIONS = {
    "half_even": round,  # Python's round of a Fraction: ties to even
    "half_up": lambda x: math.floor(x + HALF),
    "half_away": lambda x: math.floor(abs(x) + HALF) * (1 if x >= 0 else -1),
    "floor_pool": round,
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(st.integers(-(2**40), 2**40), st.integers(-3, 66), st.integers(2, 16), st.booleans())
def test_each_rounding_is_its_definition(rounding, value, shift, bits, signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    expected = min(max(DEFINITIONS[rounding](Fraction(value) / Fraction(2) ** shift), low), high)
    assert ROUNDINGS[rounding](np.array([value]), 0, shift, bits, signed).tolist() == [expected]


@pytest.mark.parametrize("value", [-6, -5, -3, -2, -1, 1, 2, 3, 5, 6, 10])
def test_ties_in_halves_and_quarters(value):
    for shift, rounding in itertools.product((1, 2), ROUNDINGS):
        expected = DEFINITIONS[rounding](Fraction(value, 1 << shift))
        assert ROUNDINGS[rounding](np.array([value]), -5, shift - 5, 8, True).tolist() == [expected], (shift, rounding)


@given(st.integers(-(2**61), 2**61), st.integers(-3, 66), st.integers(2, 16), st.booleans())
def test_pools_are_rounded_down(value, shift, bits, signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    expected = min(max(math.floor(Fraction(value) / Fraction(2) ** shift), low), high)
    assert POOL_ROUNDINGS["floor_pool"](np.array([value]), 0, shift, bits, signed).tolist() == [expected]


def test_every_rounding_has_a_rule_in_words():
    assert list(RULES) == list(ROUNDINGS)
    assert set(POOL_ROUNDINGS) <= set(ROUNDINGS)


def test_every_target_rounds_in_a_way_that_can_be_simulated():
    from tqt_onnx.export import EXPORTERS

    assert {exporter.rounding for exporter in EXPORTERS.values()} <= set(ROUNDINGS)


def same_padded() -> onnx_ir.Model:
    """An average pool whose windows at the borders hold fewer elements, a relu behind it, and an enlargement by interpolation."""
    net = Builder(2)
    net.constants |= {"no roi": np.zeros(0, np.float32), "twice": np.array([1, 1, 2, 2], np.float32)}
    x = net.layer("Conv", "x", "conv", (2, 3, 1, 1), 2)
    x = net.op("AveragePool", x, name="mean", kernel_shape=[3, 3], pads=[1] * 4)
    x = net.op("Relu", net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2]), name="relu")
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    net.op("Resize", x, "no roi", "twice", name="y", **attributes)
    return net.model({"x": (3, 8, 8)}, {"y": (2, 8, 8)})


def rounded_pools(model: onnx_ir.Model) -> list[str]:
    return [str(node.outputs[0].name) for node in model.graph if node.op_type == "QuantizeLinear" and rounds_average_pool(node)]


def test_average_pools_are_found_and_nothing_else():
    assert rounded_pools(quantized("residual")) == ["average__q"]
    assert rounded_pools(quantized("concat", 32)) == ["average__q"]
    assert [rounded_pools(quantized(name)) for name in ("depthwise", "leaky", "transposed", "tail")] == [[]] * 4
    model = tqt_onnx.quantize(same_padded(), np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)).model
    roles = [node.op_type for node in model.graph if node.metadata_props.get("tqt_onnx.role") == "reciprocal"]
    assert sorted(roles) == ["Conv", "Mul"]  # the Conv enlarges
    assert rounded_pools(model) == ["relu__hoisted__q"]  # the relu behind the max pool follows the average at once


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ["residual", "concat", "same padded"])
def test_every_requantization_is_rounded_by_the_rule(name, rounding, layer):
    """The simulated oracle against the definition, number by number, on what each QuantizeLinear was given."""
    images = np.random.default_rng(3).normal(size=(8, 3, 8, 8)).astype(np.float32)
    if name == "same padded":
        bits = tqt_onnx.BitWidths(layer=layer)
        model, x = tqt_onnx.quantize(same_padded(), images, bits=bits).model, images[:2]
    else:
        model, x = quantized(name, layer), examples(2, 4)
    pools, seen = rounded_pools(model), []

    def look(node, inputs, output):
        given_, grid = inputs[0], grid_of(node) if node.op_type == "QuantizeLinear" else None
        if grid is None or not isinstance(given_, FixedPoint) or given_.integers.size > 20_000:
            return
        pooled = rounding == "floor_pool" and node.outputs[0].name in pools
        rule = math.floor if pooled else DEFINITIONS[rounding]
        factor = Fraction(2) ** (given_.exponent - grid.exponent)
        distinct, places = np.unique(given_.integers, return_inverse=True)
        expected = np.clip([rule(int(integer) * factor) for integer in distinct], *grid.bounds)
        np.testing.assert_array_equal(output.integers.reshape(-1), expected[places.reshape(-1)])
        seen.append(node.outputs[0].name)

    Oracle(model, rounding_ops(rounding)).run({"x": x}, observe=look)
    assert set(pools) <= set(seen)
    assert len(seen) > 3


def by_hand(net):
    """`x` on quarters, twice coarser in `a` (bounded at 3, as by a relu6), and again in `y`; `b` is a copy."""
    n = net(["n", 4])
    x = n.quantized("x", "x4", -2, "u8")
    a = n.quantized(x, "a", -1, "u8", upper=3)
    n.quantized(a, "b", -1, "u16")
    n.quantized(a, "y", 0, "i8")
    return n.model("y")


def test_what_changes_by_hand(net):
    """Quarters 1 3 5 9, halves by half_even 0 2 2 3 (9/2 = 4.5, bounded), ones 0 1 1 2; by half_up 1 2 3 3, then 1 1 2 2."""
    x = np.array([[1, 3, 5, 9], [0, 2, 4, 6]], np.float32) / 4  # the second row: 0 1 2 3, then 0 0 1 2; by half_up 0 1 1 2
    effect = measure_rounding(by_hand(net), [{"x": x[:1]}, {"x": x[1:]}], "half_up")
    assert effect.tensors == (
        TensorEffect("a__r", 3, 8, 2, 2),  # 9/2 is cut to 3 either way, so it is no tie
        TensorEffect("y__q", 3, 8, 1 + 1, 2 + 1),  # decided on the halves of the simulation: 1 2 3 3 and 0 1 2 3
    )
    assert effect.outputs == (OutputEffect("y", True, 8, 3, 2, 1),)  # the largest of 0 1 1 2 is the last, of 1 1 2 2 the third
    assert (effect.ends, effect.images) == ((), 2)
    assert (effect.numbers, effect.changed, effect.answers, effect.answers_changed) == (8, 3, 2, 1)


@pytest.mark.parametrize("name", ["residual", "concat", "tail", "swish"])
def test_it_counts_what_two_oracles_give(name):
    model, x = quantized(name), examples(70, 7)
    effect = measure_rounding(model, [{"x": x[:40]}, {"x": x[40:]}], "half_up")
    plain, up = (Oracle(model, ops).run({"x": x}) for ops in (rounding_ops("half_even"), rounding_ops("half_up")))
    assert effect == measure_rounding(model, [{"x": x}], "half_up")
    assert effect.images == 70
    assert len(effect.tensors) > 2
    for item in effect.tensors:
        kept = item.tensor if item.tensor.endswith("__q") else item.tensor.removesuffix("__r") + "__q"
        assert item.changed == int((plain[kept].integers != up[kept].integers).sum()), item
        assert item.requantized == plain[kept].integers.size
        assert item.decided <= item.requantized
    assert sum(item.decided for item in effect.tensors) > 0
    assert sum(item.changed for item in effect.tensors) > 0
    (output,) = effect.outputs
    before, behind = (run[output.output] for run in (plain, up))
    assert output.integer is (name != "tail")
    if output.integer:
        before, behind = before.integers, behind.integers
    assert (output.numbers, output.changed) == (before.size, int((before != behind).sum()))
    changed = int((before.argmax(-1) != behind.argmax(-1)).sum())
    assert (output.answers, output.answers_changed) == (70, changed)


def test_behind_a_float_part_its_last_integers_count():
    effect = measure_rounding(quantized("tail"), [{"x": examples(800, 7)}], "half_up")
    (end,) = effect.ends
    assert (end.output, end.integer, end.numbers) == ("y__q", True, 4000)
    assert (effect.numbers, effect.changed) == (end.numbers, end.changed)  # the probabilities are no integers
    assert effect.answers == effect.outputs[0].answers == 800
    assert 0 < effect.outputs[0].answers_changed == effect.answers_changed == end.answers_changed


def test_the_models_own_rounding_changes_nothing():
    effect = measure_rounding(quantized("residual"), [{"x": examples(8)}], "half_even")
    assert any(item.ties for item in effect.tensors)
    assert {(item.decided, item.changed) for item in effect.tensors} == {(0, 0)}
    assert (effect.changed, effect.answers_changed) == (0, 0)


def test_only_pools_decide_otherwise_when_only_they_are_rounded_down():
    effect = measure_rounding(quantized("residual"), [{"x": examples(32)}], "floor_pool")
    assert [item.tensor for item in effect.tensors if item.decided] == ["average__q"]
    assert [item.changed for item in effect.tensors if item.tensor == "average__q"] != [0]


def test_an_output_that_is_no_vector_of_classes_has_no_answers():
    effect = measure_rounding(quantized("transposed"), [{"x": examples(8)}], "half_away")
    assert [(item.answers, item.answers_changed) for item in effect.outputs] == [(0, 0)]
    assert effect.numbers == 8 * 8 * 8 * 2


def test_an_unknown_rounding_is_refused():
    with pytest.raises(UsageError, match=r"half_even, half_up, half_away, floor_pool. Received: 'up'"):
        measure_rounding(quantized("residual"), [], "up")


def test_no_data_is_no_effect():
    effect = measure_rounding(quantized("residual"), [], "half_up")
    assert (effect.images, effect.tensors, effect.outputs, effect.numbers) == (0, (), (), 0)


def test_every_field_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z0-9_]+)`", page))
    fields = {name for entry in (RoundingEffect, TensorEffect, OutputEffect) for name in entry.__dataclass_fields__}
    assert (fields | set(measure_rounding(quantized("residual"), [], "half_up").to_dict())) - documented == set()
