from __future__ import annotations

import pytest

from tqt_onnx.passes.ceil_to_pads import CeilToPads
from tqt_onnx.passes.explicit_pads import ExplicitPads


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "expected"),
    [
        (6, 3, 2, (0, 0), (0, 1)),
        (7, 3, 2, (0, 0), (0, 0)),  # nothing left over
        (6, 3, 2, (1, 0), (1, 0)),
        (4, 3, 3, (1, 1), (1, 1)),
        (5, 4, 3, (2, 1), (2, 3)),
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_the_pads_behind_make_the_size(rewritten, op, size, kernel, stride, pads, expected):
    text = f"""g (float[n,2,{size},9] x) => (float[n,2,h,9] y)
    {{ y = {op}<kernel_shape = [{kernel}, 1], strides = [{stride}, 1], pads = [{pads[0]}, 0, {pads[1]}, 0], ceil_mode = 1>(x) }}"""
    (node,) = rewritten([ExplicitPads(), CeilToPads()], text).graph
    assert "ceil_mode" not in node.attributes
    assert tuple(node.attributes["pads"].value) == (expected[0], 0, expected[1], 0)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[n,2,5,5] x) => (float[n,2,3,3] y) { y = MaxPool<kernel_shape = [1, 1], strides = [3, 3], ceil_mode = 1>(x) }",
        "g (float[n,2,h,6] x) => (float[n,2,v,3] y) { y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x) }",
        """g (float[n,2,6,6] x) => (float[n,2,4,3] y) { y = AveragePool<kernel_shape = [3, 3], strides = [2, 2],
                       pads = [1, 0, 1, 0], ceil_mode = 1, count_include_pad = 1>(x) }""",
    ],
)
def test_windows_beyond_the_image_open_sizes_and_averages_that_count_their_padding_are_left(untouched, text):
    untouched(CeilToPads(), text)
