from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.ir import ModelError, UsageError
from tqt_onnx.passes.fix_input_shape import FixInputShape

FLAT = {"flat": np.int64([1, -1])}


def shapes(model):
    return [[str(dim) for dim in value.shape] for value in (*model.graph.inputs, *model.graph.outputs)]


def test_open_dimensions_are_fixed_and_the_batch_opens(onnx_text):
    model = onnx_text("g (float[1,h,w,3] x) => (float[1,k] y) { a = Relu(x) y = Reshape(a, flat) }", FLAT)
    step = FixInputShape((8, 4, 3))
    assert step.apply(model) is True
    assert shapes(model) == [["batch", "8", "4", "3"], ["batch", "96"]]
    assert step.apply(model) is False


def test_a_fixed_batch_is_taken_out_of_reshapes(onnx_text):
    model = onnx_text("g (float[2,4,3] x) => (float[2,12] y) { y = Reshape(x, t) }", {"t": np.int64([2, 12])})
    assert FixInputShape().apply(model) is True
    assert shapes(model) == [["batch", "4", "3"], ["batch", "12"]]
    assert model.graph.initializers["t"].const_value.numpy().tolist() == [0, 12]
    assert FixInputShape().apply(model) is False


def test_a_batch_that_a_reshape_needs_stays(onnx_text):
    model = onnx_text("g (float[2,4] x) => (float[8] y) { y = Reshape(x, t) }", {"t": np.int64([8])})
    assert FixInputShape().apply(model) is False
    assert shapes(model) == [["2", "4"], ["8"]]


def test_named_batches_and_inputs_without_batch_stay(untouched):
    untouched(FixInputShape((5,)), "g (float[n,5] x, float scale) => (float[n,5] y) { y = Mul(x, scale) }")


@pytest.mark.parametrize("shape", [(), (4, 4), (4, 5, 3), (4, 4, 4, 3)])
def test_shapes_that_do_not_fit_are_refused(onnx_text, shape):
    model = onnx_text("g (float[1,h,4,3] x) => (float[1,h,4,3] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match=r"input 'x' has the shape \[1, None, 4, 3\].*Received: shape="):
        FixInputShape(shape).apply(model)


def test_an_unknown_rank_is_asked_for(onnx_text):
    model = onnx_text("g (float x) => (float y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    with pytest.raises(ModelError, match=r"'x' has an unknown shape; shape=H,W,C is expected"):
        FixInputShape().apply(model)


def test_sizes_are_positive():
    with pytest.raises(UsageError, match=r"positive numbers. Received: 3,0"):
        FixInputShape((3, 0))
