from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.fold_pad import FoldPad

W = {"w": np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3)}


def test_zero_padding_joins_the_convolution(golden):
    golden(
        FoldPad(),
        """g (float[n,1,5,5] x) => (float[n,2,6,4] y) <int64[8] p = {0,0,1,0, 0,0,1,1}>
        { a = Pad(x, p) y = Conv<pads = [1, 0, 0, 0]>(a, w) }""",
        "g (float[n,1,5,5] x) => (float[n,2,6,4] y) { y = Conv<pads = [2, 0, 1, 1]>(x, w) }",
        W,
        W,
    )


def test_axes_as_input_valid_padding_and_another_reader(golden):
    golden(
        FoldPad(),
        """g (float[n,1,5,5] x) => (float[n,2,5,5] y, float[n,1,7,7] z)
          <int64[4] p = {1,1,1,1}, float v = {0.0}, int64[2] axes = {-1,2}>
        { a = Pad(x, p, v, axes) y = Conv<auto_pad = "VALID">(a, w) z = Relu(a) }""",
        """g (float[n,1,5,5] x) => (float[n,2,5,5] y, float[n,1,7,7] z)
          <int64[4] p = {1,1,1,1}, float v = {0.0}, int64[2] axes = {-1,2}>
        { a = Pad(x, p, v, axes) y = Conv<pads = [1, 1, 1, 1]>(x, w) z = Relu(a) }""",
        W,
        W,
    )


def test_refusals(untouched):
    body = "y = Conv(a, w) }"
    io = "g (float[n,1,5,5] x) => (float[b,2,h,v] y)"
    for constants, pad in (
        ("int64[8] p = {0,0,1,1,0,0,1,1}, float v = {1.0}", "Pad(x, p, v)"),
        ("int64[8] p = {0,0,1,1,0,0,1,1}", 'Pad<mode = "reflect">(x, p)'),
        ("int64[8] p = {0,0,-1,1,0,0,1,1}", "Pad(x, p)"),
        ("int64[8] p = {1,0,1,1,0,0,1,1}", "Pad(x, p)"),
    ):
        untouched(FoldPad(), f"{io} <{constants}> {{ a = {pad} {body}", W)
    untouched(FoldPad(), f'{io} <int64[8] p = {{0,0,1,1,0,0,1,1}}> {{ a = Pad(x, p) y = Conv<auto_pad = "SAME_UPPER">(a, w) }}', W)


POOLED = "g (float[n,2,4,4] x) => (float[n,2,h,w] y)"
BORDERS = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 0])}


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_what_is_never_the_maximum(golden, lowest):
    golden(
        FoldPad(),
        f"{POOLED} {{ a = Pad(x, p, v) y = MaxPool<kernel_shape = [2, 2], pads = [0, 0, 0, 1]>(a) }}",
        f"{POOLED} {{ y = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 1, 1]>(x) }}",
        BORDERS | {"v": np.float32(lowest)},
        None,
    )


@pytest.mark.parametrize(("fill", "kernel"), [(-100.0, 3), (0.0, 3), (-np.inf, 1)])
def test_a_number_or_a_window_outside_stays(untouched, fill, kernel):
    text = f"{POOLED} {{ a = Pad(x, p, v) y = MaxPool<kernel_shape = [{kernel}, {kernel}]>(a) }}"
    untouched(FoldPad(), text, BORDERS | {"v": np.float32(fill)})
