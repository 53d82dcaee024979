from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.fence_resizes import FenceResizes

IO = "g (float[n,3,4,6] x) => (float[b,c,h,w] y)"
CUBIC = 'Resize<mode = "cubic">'
HALF = {"s": np.array([1, 1, 0.5, 0.5], np.float32)}


@pytest.mark.parametrize("end", ["", " y = Relu(r)"])
def test_a_reshape_to_its_own_shape_follows(golden, end):
    name = "r" if end else "y"
    before = f"{IO} {{ {name} = {CUBIC}(x, , s){end} }}"
    after = f"{IO} {{ {name}__resized = {CUBIC}(x, , s) {name} = Reshape({name}__resized, {name}__shape){end} }}"
    golden(FenceResizes(), before, after, HALF, HALF | {f"{name}__shape": np.array([0, 3, 2, 3])})


def test_what_repeats_and_what_has_no_known_size_stays(untouched):
    nearest = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
    untouched(FenceResizes(), f"{IO} {{ y = {nearest}(x, , s) }}", {"s": np.array([1, 1, 2, 2], np.float32)})
    untouched(FenceResizes(), f"g (float[n,3,h,w] x) => (float[b,c,d,e] y) {{ y = {CUBIC}(x, , s) }}", HALF)
