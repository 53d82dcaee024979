from __future__ import annotations

import pytest

from tqt_onnx.passes.max_to_max_pool import MaxToMaxPool

POOL = "MaxPool<kernel_shape = [4, 5], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0]>(x)"


@pytest.mark.parametrize(("op", "axes"), [("ReduceMax<keepdims = 1>(x, a)", "<int64[2] a = {-1, 2}>"), ("GlobalMaxPool(x)", "")])
def test_dimensions_kept(golden, op, axes):
    golden(
        MaxToMaxPool(),
        f"g (float[n,3,4,5] x) => (float[n,3,1,1] y) {axes} {{ y = {op} }}",
        f"g (float[n,3,4,5] x) => (float[n,3,1,1] y) {{ y = {POOL} }}",
    )


def test_dimensions_dropped_behind_a_channels_last_transpose(golden):
    golden(
        MaxToMaxPool(),
        """g (float[n,3,4,5] x) => (float[n,3] y) <int64[2] a = {1, 2}>
        { t = Transpose<perm = [0, 2, 3, 1]>(x) y = ReduceMax<keepdims = 0>(t, a) }""",
        f"g (float[n,3,4,5] x) => (float[n,3] y) {{ y__pool = {POOL} y = Flatten<axis = 1>(y__pool) }}",
    )


def test_a_sequence_is_an_image_of_height_1(golden):
    golden(
        MaxToMaxPool(),
        "g (float[n,3,5] x) => (float[n,3] y) <int64[1] a = {2}> { y = ReduceMax<keepdims = 0>(x, a) }",
        """g (float[n,3,5] x) => (float[n,3] y) <int64[1] y__image__axis = {2}>
        { y__image = Unsqueeze(x, y__image__axis)
          y__pool = MaxPool<kernel_shape = [1, 5], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0]>(y__image)
          y = Flatten<axis = 1>(y__pool) }""",
    )


@pytest.mark.parametrize(
    ("before", "axes", "after"),
    [("n,3,4,5", "{1}", "n,1,4,5"), ("n,3,4,5", "{3}", "n,3,4,1"), ("n,3,h,5", "{2, 3}", "n,3,1,1"), ("n,4,5", "{1, 2}", "n,1,1")],
)
def test_other_maxima_stay(untouched, before, axes, after):
    size = axes.count(",") + 1
    text = f"<int64[{size}] a = {axes}> {{ y = ReduceMax<keepdims = 1>(x, a) }}"
    untouched(MaxToMaxPool(), f"g (float[{before}] x) => (float[{after}] y) {text}")


def test_a_maximum_of_one_element_only_moves(golden):
    golden(
        MaxToMaxPool(),
        "g (float[n,1,1,5] x) => (float[n,5] y) <int64[2] a = {1, 2}> { y = ReduceMax<keepdims = 0>(x, a) }",
        "g (float[n,1,1,5] x) => (float[n,5] y) <int64[2] y__axes = {1, 2}> { y = Squeeze(x, y__axes) }",
    )
