from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.explicit_pads import ExplicitPads

W = {"w": np.arange(2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 1, 3, 6) / 8}


def test_everything_is_written_out(golden):
    golden(
        ExplicitPads(),
        """g (float[n,1,8,8] x) => (float[n,2,h,v] y)
        { c = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)
          m = MaxPool<kernel_shape = [2, 2], auto_pad = "SAME_LOWER">(c)
          y = AveragePool<kernel_shape = [2, 1], auto_pad = "VALID">(m) }""",
        """g (float[n,1,8,8] x) => (float[n,2,3,4] y)
        { c = Conv<kernel_shape = [3, 6], strides = [2, 2], dilations = [1, 1], pads = [0, 2, 1, 2], group = 1>(x, w)
          m = MaxPool<kernel_shape = [2, 2], strides = [1, 1], dilations = [1, 1], pads = [1, 1, 0, 0]>(c)
          y = AveragePool<kernel_shape = [2, 1], strides = [1, 1], pads = [0, 0, 0, 0]>(m) }""",
        W,
        W,
    )


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_numbers_for_every_remainder(rewritten, size, stride, mode):
    text = f"""g (float[n,1,{size},9] x) => (float[n,2,h,v] y)
    {{ y = Conv<auto_pad = "{mode}", strides = [{stride}, {stride}]>(x, w) }}"""
    model = rewritten([ExplicitPads()], text, W)
    assert "auto_pad" not in next(iter(model.graph)).attributes


def test_stride_one_needs_no_sizes_and_more_does(golden, untouched):
    golden(
        ExplicitPads(),
        'g (float[n,1,h,v] x) => (float[n,2,a,b] y) { y = Conv<auto_pad = "SAME_UPPER">(x, w) }',
        """g (float[n,1,h,v] x) => (float[n,2,a,b] y)
        { y = Conv<kernel_shape = [3, 6], strides = [1, 1], dilations = [1, 1], pads = [1, 2, 1, 3], group = 1>(x, w) }""",
        W,
        W,
    )
    untouched(
        ExplicitPads(),
        'g (float[n,1,h,v] x) => (float[n,2,a,b] y) { y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w) }',
        W,
    )


def test_dilation_counts(onnx_text):
    """onnxruntime refuses SAME with dilation, so the pads are compared with the definition: total = 2 * 3 + 1 - 1."""
    model = onnx_text(
        'g (float[n,1,9,9] x) => (float[n,2,9,9] y) { y = Conv<auto_pad = "SAME_LOWER", dilations = [3, 1]>(x, w) }', W
    )
    assert ExplicitPads().apply(model) is True
    assert tuple(next(iter(model.graph)).attributes["pads"].value) == (3, 3, 3, 2)


def test_an_average_pool_says_nothing_of_dilations_it_does_not_have(golden):
    """tf2onnx and the opset converter write them; onnxruntime cannot load what it fuses from Q/DQ then."""
    pool = "AveragePool<kernel_shape = [3, 3], strides = [1, 1], {}pads = [1, 1, 1, 1]>(x)"
    golden(
        ExplicitPads(),
        f"g (float[n,1,8,8] x) => (float[n,1,8,8] y) {{ y = {pool.format('dilations = [1, 1], ')} }}",
        f"g (float[n,1,8,8] x) => (float[n,1,8,8] y) {{ y = {pool.format('')} }}",
    )
