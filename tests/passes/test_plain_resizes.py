from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from tqt_onnx.passes import islands
from tqt_onnx.passes.infer_shapes import InferShapes
from tqt_onnx.passes.plain_resizes import PlainResizes
from tqt_onnx.passes.resizes import repeats_whole

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


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize(("size", "left"), [((33, 33), {"Resize"}), ((5, 1), {"Resize"}), ((1, 1), {"Relu"})])
def test_interpolation_between_nothing_is_repetition(rewritten, mode, size, left):
    """One element, whatever lies around it: the image-level feature of atrous spatial pyramids."""
    text = (
        f"g (float[2,3,1,1] x) => (float[2,3,h,w] y) {{ r = Relu(x) y = Resize{resize(mode, interpolation='linear')}(r, , , s) }}"
    )
    model = rewritten([PlainResizes()], text, {"s": np.array([2, 3, *size])})
    assert {node.op_type for node in model.graph} == {"Relu"} | left
    assert all(repeats_whole(node) for node in model.graph if node.op_type == "Resize")


def test_sizes_of_some_axes(golden):
    attributes = resize("tf_half_pixel_for_nn")[:-1] + ", axes = [3, -2]>"
    golden(
        PlainResizes(),
        f"{IO} {{ y = Resize{attributes}(x, , , s) }}",
        f"{IO} {{ y = Resize{PLAIN}(x, , y__scales) }}",
        {"s": np.array([18, 8])},
        {"y__scales": np.array([1, 1, 2, 3], np.float32)},
    )


@pytest.mark.parametrize("given", ["x, , k", "x, , , s"])
def test_an_interpolation_along_some_axes_says_so_for_all(golden, given):
    linear = resize("half_pixel", interpolation="linear")
    golden(
        PlainResizes(),
        f"{IO} {{ y = Resize{linear[:-1]}, axes = [2, 3]>({given}) }}",
        f"{IO} {{ y = Resize{linear}(x, , y__scales) }}",
        {"k": np.array([2, 3], np.float32)} if "k" in given else {"s": np.array([8, 18])},
        {"y__scales": np.array([1, 1, 2, 3], np.float32)},
    )


@pytest.mark.parametrize(
    ("attributes", "given", "reason"),
    [
        ('mode = "nearest", axes = [2, 3], keep_aspect_ratio_policy = "not_larger"', "x, , , s", "proportions.*not_larger"),
        ('mode = "nearest", axes = [2, 3]', "x, , k", "axis of 134217728 elements; at most 16777216"),
        ('mode = "linear"', "x, , k4", "axis of 134217728 elements"),
    ],
)
def test_what_is_left_says_why(untouched, onnx_text, attributes, given, reason):
    """Before anything is made of a size."""
    arrays = {"s": np.array([8, 8]), "k": np.array([1 << 25, 1], np.float32), "k4": np.array([1, 1, 1 << 25, 1], np.float32)}
    used = {name: array for name, array in arrays.items() if name in given.split(", ")}
    text = f"{IO} {{ y = Resize<{attributes}>({given}) }}"
    untouched(PlainResizes(), text, used)
    (island,) = islands(onnx_text(text, used))
    assert re.search(reason, island.reason)


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
