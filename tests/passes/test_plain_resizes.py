from __future__ import annotations

import itertools

import numpy as np
import pytest

from tqt_onnx.passes.infer_shapes import InferShapes
from tqt_onnx.passes.plain_resizes import PlainResizes

IO = "g (float[n,2,4,6] x) => (float[n,2,h,w] y)"
PLAIN = '<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
MODES = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_half_pixel_for_nn")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def resize(mode: str, rounding: str = "floor", interpolation: str = "nearest") -> str:
    return f'<mode = "{interpolation}", coordinate_transformation_mode = "{mode}", nearest_mode = "{rounding}">'


def test_repetition_takes_one_form(golden):
    golden(
        PlainResizes(),
        f"{IO} {{ y = Resize{resize('tf_half_pixel_for_nn')}(x, , k) }}",
        f"{IO} {{ y = Resize{PLAIN}(x, , y__scales) }}",
        {"k": np.array([1, 1, 2, 3], np.float32)},
        {"y__scales": np.array([1, 1, 2, 3], np.float32)},
    )


def test_every_second_row_is_a_slice(golden):
    bounds = {"y__start": [1], "y__end": [4], "y__axis": [2], "y__step": [2]}
    golden(
        PlainResizes(),
        f"{IO} {{ y = Resize{resize('tf_half_pixel_for_nn')}(x, , k) }}",
        f"{IO} {{ y = Slice(x, y__start, y__end, y__axis, y__step) }}",
        {"k": np.array([1, 1, 0.5, 1], np.float32)},
        {name: np.array(numbers) for name, numbers in bounds.items()},
    )


def test_any_other_choice_is_a_gather(golden):
    fixed = "g (float[2,2,4,6] x) => (float[2,2,h,w] y)"
    golden(
        PlainResizes(),
        f"{fixed} {{ y = Resize{resize('align_corners', 'round_prefer_ceil')}(x, , , s) }}",
        f"{fixed} {{ y = Gather<axis = 2>(x, y__positions) }}",
        {"s": np.array([2, 2, 7, 6])},
        {"y__positions": np.array([0, 1, 1, 2, 2, 3, 3])},
    )


@pytest.mark.parametrize(("mode", "rounding"), itertools.product(MODES, ROUNDINGS))
@pytest.mark.parametrize("size", [(8, 18), (12, 6), (7, 11), (2, 3), (3, 4), (1, 1), (5, 13)])
def test_the_elements_are_onnxruntimes(rewritten, mode, rounding, size):
    """Bit for bit: every way of choosing the nearest, larger and smaller, by whole factors and others."""
    text = f"g (float[2,2,4,6] x) => (float[2,2,h,w] y) {{ y = Resize{resize(mode, rounding)}(x, , , s) }}"
    model = rewritten([PlainResizes(), InferShapes()], text, {"s": np.array([2, 2, *size])})
    assert {node.op_type for node in model.graph} <= {"Resize", "Slice", "Gather"}
    for node in model.graph:
        if node.op_type == "Resize":
            assert node.attributes["coordinate_transformation_mode"].value == "asymmetric"


def test_interpolation_that_hits_elements_is_a_slice(rewritten):
    text = f"{IO} {{ y = Resize{resize('asymmetric', interpolation='linear')}(x, , k) }}"
    model = rewritten([PlainResizes()], text, {"k": np.array([1, 1, 0.5, 1], np.float32)})
    assert [node.op_type for node in model.graph] == ["Slice"]


def test_a_size_computed_from_a_shape(rewritten):
    text = f"""{IO} {{ s = Shape(x) b = Slice(s, zero, two) t = Concat<axis = 0>(b, hw)
                       y = Resize{resize("asymmetric")}(x, , , t) }}"""
    arrays = {"zero": np.array([0]), "two": np.array([2]), "hw": np.array([8, 6])}
    model = rewritten([PlainResizes()], text, arrays)
    (node,) = (node for node in model.graph if node.op_type == "Resize")
    assert node.inputs[2].const_value.numpy().tolist() == [1, 1, 2, 1]


def test_a_resize_to_the_same_size_goes(golden):
    golden(
        PlainResizes(),
        f"{IO} {{ r = Relu(x) y = Resize{resize('half_pixel')}(r, , k) }}",
        f"{IO} {{ y = Relu(x) }}",
        {"k": np.ones(4, np.float32)},
        None,
    )


@pytest.mark.parametrize("text", [
    f"g (float[n,2,h,w] x) => (float[n,2,a,b] y) {{ y = Resize{resize('half_pixel')}(x, , k) }}",
    f"{IO} {{ y = Resize{resize('half_pixel', interpolation='linear')}(x, , k) }}",
    f"{IO} {{ y = Resize{PLAIN}(x, , k) }}",
])  # fmt: skip
def test_refusals(untouched, text):
    untouched(PlainResizes(), text, {"k": np.array([1, 1, 2, 2], np.float32)})
