from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.hoist_rectifiers import HoistRectifiers

POOL = "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
IO = "g (float[n,2,4,4] x) => (float[b,c,h,v] y)"


def test_in_front_of_a_pool_and_a_reshape(golden):
    shape = {"s": np.array([-1, 4, 2, 4])}
    golden(
        HoistRectifiers(),
        f"{IO} {{ a = Neg(x) p = {POOL}(a) r = Reshape(p, s) y = Relu(r) }}",
        f"{IO} {{ a = Neg(x) p = Relu(a) r = {POOL}(p) y = Reshape(r, s) }}",
        shape,
        shape,
    )


def test_relu6(golden):
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    golden(
        HoistRectifiers(),
        f"{IO} {{ a = Relu(x) p = {POOL}(a) y = Clip(p, low, high) }}",
        f"{IO} {{ a = Relu(x) p = Clip(a, low, high) y = {POOL}(p) }}",
        bounds,
        bounds,
    )


@pytest.mark.parametrize(
    "body",
    [
        "{ t = Transpose<perm = [0, 2, 3, 1]>(x) y = Relu(t) }",
        f"{{ p = {POOL}(x) r = Relu(p) y = Add(p, r) }}",
        f"{{ r = Relu(x) y = {POOL}(r) }}",
    ],
)
def test_refusals(untouched, body):
    untouched(HoistRectifiers(), f"{IO} {body}")
