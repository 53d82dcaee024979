from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.plain_pads import PlainPads

IO = "g (float[n,3,4,5] x) => (float[b,c,h,w] y)"


@pytest.mark.parametrize(
    ("amounts", "axes", "plain"),
    [
        ([1, 2], [3], [0, 0, 0, 1, 0, 0, 0, 2]),
        ([1, 2, 3, 0], [-1, 2], [0, 0, 2, 1, 0, 0, 0, 3]),
        ([1, -2], [-2], [0, 0, 1, 0, 0, 0, -2, 0]),
    ],
)
@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_amounts_for_every_axis(golden, amounts, axes, plain, mode):
    before = f'{IO} {{ y = Pad<mode = "{mode}">(x, p, , a) }}'
    after = f'{IO} {{ y = Pad<mode = "{mode}">(x, p) }}'
    golden(PlainPads(), before, after, {"p": np.array(amounts), "a": np.array(axes)}, {"p": np.array(plain)})


def test_what_it_pads_with_stays_and_so_does_what_others_read(golden):
    given = {"p": np.array([1, 2]), "a": np.array([3]), "c": np.float32(0.5)}
    before = f"{IO} {{ z = Pad(x, p, c, a) y = Pad(z, p, c, a) }}"
    after = f"{IO} {{ z = Pad(x, p_1, c) y = Pad(z, p, c) }}"
    whole = np.array([0, 0, 0, 1, 0, 0, 0, 2])
    golden(PlainPads(), before, after, given, {"p": whole, "p_1": whole, "c": given["c"]})


def test_computed_axes_and_plain_pads_stay(untouched):
    untouched(PlainPads(), "g (float[n,3] x, int64[1] a) => (float[b,c] y) { y = Pad(x, p, , a) }", {"p": np.array([1, 1])})
    untouched(PlainPads(), "g (float[n,3] x) => (float[b,c] y) { y = Pad(x, p) }", {"p": np.array([0, 1, 0, 1])})
