"""Ranges of the source's FakeQuant nodes as thresholds of share groups."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tqt_onnx.ir import RANGES_KEY, ModelError
from tqt_onnx.passes import annotate, lower, optimize
from tqt_onnx.passes.annotate import BitWidths
from tqt_onnx.passes.recorded_ranges import recorded_ranges, recorded_thresholds

RESIDUAL = """g (float[n,2,4,4] x) => (float[n,2,4,4] y)
    { c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) d = Conv<pads = [1,1,1,1]>(r, v) s = Add(d, r) y = Relu(s) }"""


@pytest.fixture(name="lowered")
def lowered_network(onnx_text):
    rng = np.random.default_rng(3)
    model = onnx_text(RESIDUAL, {name: rng.normal(size=(2, 2, 3, 3)).astype(np.float32) for name in "wv"})
    optimize(model)
    lower(model, "layer16")
    return model, annotate(model, BitWidths())


def given(lowered, ranges):
    model, graph = lowered
    model.metadata_props[RANGES_KEY] = json.dumps(ranges)
    by_value = {quantizer.value: quantizer.group for quantizer in graph.quantizers}
    return recorded_thresholds(model, graph), by_value


def test_signs_decide_which_end_of_the_range_counts(lowered):
    found, groups = given(lowered, {"x": [-4.0, 1.0], "y": [-9.0, 2.0]})
    assert found == {groups["x__input"]: 2.0, groups["y"]: 1.0}


def test_a_group_takes_its_ranges_only_where_all_members_have_one(lowered):
    found, groups = given(lowered, {"r": [0.0, 8.0]})
    shared = [value for value, group in groups.items() if group == groups["d"]]
    assert len(shared) > 1  # the convolution's output and the shortcut's rescale have one scale (L4)
    assert groups["d"] not in found
    assert found[groups["r"]] == 3.0
    found, groups = given(lowered, {"r": [0.0, 8.0], "d": [-16.0, 1.0]})
    assert found[groups["d"]] == 4.0


def test_weights_biases_accumulators_and_empty_ranges_are_left_to_calibration(lowered):
    found, _ = given(lowered, {"w": [-1.0, 1.0], "c__acc": [-1.0, 1.0], "x": [0.0, 0.0], "nobody": [0.0, 1.0]})
    assert found == {}


def test_a_range_behind_a_reshape_or_a_pool_is_that_of_the_tensor_in_front(onnx_text):
    text = """g (float[n,2,4,4] x) => (float[n,8] y)
        { c = Conv(x, w) p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c) y = Flatten(p) }"""
    model = onnx_text(text, {"w": np.ones((2, 2, 1, 1), np.float32)})
    optimize(model)
    lower(model, "layer32")
    found, groups = given((model, annotate(model, BitWidths(layer=32))), {"y": [-8.0, 8.0]})
    assert found == {groups["c"]: 3.0}


def test_a_model_without_record_has_none(lowered):
    assert recorded_thresholds(*lowered) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"a": [1]}', '{"a": [2, 1]}', '{"a": [0, "b"]}', '{"a": [0, NaN]}', '{"a": [0, 1e999]}']
)
def test_a_damaged_record_is_refused(lowered, text):
    lowered[0].metadata_props[RANGES_KEY] = text
    with pytest.raises(ModelError, match=r"tqt_onnx\.ranges.*Received"):
        recorded_ranges(lowered[0])
