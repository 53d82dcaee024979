from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.explicit_transposed_pads import ExplicitTransposedPads

W = {"w": np.arange(2 * 3 * 3 * 4, dtype=np.float32).reshape(2, 3, 3, 4) / 8}


def test_everything_is_written_out(golden):
    io = "g (float[n,2,4,5] x) => (float[n,3,9,12] y, float[n,3,8,10] z)"
    golden(
        ExplicitTransposedPads(),
        f"""{io} {{ y = ConvTranspose<strides = [2, 2]>(x, w)
                    z = ConvTranspose<strides = [2, 2], output_shape = [8, 10]>(x, w) }}""",
        f"""{io} {{ y = ConvTranspose<kernel_shape = [3, 4], strides = [2, 2], dilations = [1, 1], pads = [0, 0, 0, 0], group = 1>
                        (x, w)
                    z = ConvTranspose<kernel_shape = [3, 4], strides = [2, 2], dilations = [1, 1], pads = [1, 1, 0, 1], group = 1>
                        (x, w) }}""",
        W,
        W,
    )


@pytest.mark.parametrize(
    ("attributes", "pads", "beyond"),
    [
        ('auto_pad = "SAME_UPPER"', [0, 1, 1, 1], []),
        ('auto_pad = "SAME_LOWER"', [1, 1, 0, 1], []),
        ('auto_pad = "VALID", output_padding = [1, 0]', [0, 0, 0, 0], [1, 0]),
        ("pads = [1, 1, 1, 1], output_padding = [1, 1]", [1, 1, 0, 0], []),  # what is added is cut off again
        ("pads = [0, 0, 0, 2], output_padding = [1, 1]", [0, 0, 0, 1], [1, 0]),
        ("output_shape = [10, 12]", [0, 0, 0, 0], [1, 0]),  # more than the kernel reaches
    ],
)
def test_what_is_cut_off(rewritten, attributes, pads, beyond):
    text = f"g (float[n,2,4,5] x) => (float[n,3,h,v] y) {{ y = ConvTranspose<strides = [2, 2], {attributes}>(x, w) }}"
    (node,) = rewritten([ExplicitTransposedPads()], text, W).graph
    assert list(node.attributes["pads"].value) == pads
    assert ("output_padding" in node.attributes) == bool(beyond)
    assert not beyond or list(node.attributes["output_padding"].value) == beyond
    assert not {"auto_pad", "output_shape"} & node.attributes.keys()


def test_open_sizes_and_a_same_that_reaches_too_little_are_left(untouched):
    untouched(
        ExplicitTransposedPads(),
        'g (float[n,2,h,5] x) => (float[n,3,a,b] y) { y = ConvTranspose<strides = [2, 2], auto_pad = "SAME_UPPER">(x, w) }',
        W,
    )
    wide = {"w": np.ones((2, 3, 1, 1), np.float32)}
    text = 'g (float[n,2,4,5] x) => (float[n,3,a,b] y) { y = ConvTranspose<strides = [2, 2], auto_pad = "SAME_UPPER">(x, w) }'
    untouched(ExplicitTransposedPads(), text, wide)
