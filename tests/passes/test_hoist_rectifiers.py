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
        f"{IO} {{ a = Neg(x) y__hoisted = Relu(a) p__hoisted = {POOL}(y__hoisted) y = Reshape(p__hoisted, s) }}",
        shape,
        shape,
    )


def test_relu6(golden):
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    golden(
        HoistRectifiers(),
        f"{IO} {{ a = Relu(x) p = {POOL}(a) y = Clip(p, low, high) }}",
        f"{IO} {{ a = Relu(x) y__hoisted = Clip(a, low, high) y = {POOL}(y__hoisted) }}",
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


def test_several_of_both(golden):
    """Each rectifier passes all that moves; only the last name is still given to anything, everything else is new."""
    golden(
        HoistRectifiers(),
        f"{IO} {{ a = Neg(x) p = {POOL}(a) r = Relu(p) q = {POOL}(r) y = Clip(q, low, high) }}",
        f"{IO} {{ a = Neg(x) r__hoisted = Relu(a) y__hoisted = Clip(r__hoisted, low, high) p__hoisted = {POOL}(y__hoisted) "
        f"y = {POOL}(p__hoisted) }}",
        {"low": np.float32(0), "high": np.float32(6)},
        {"low": np.float32(0), "high": np.float32(6)},
    )


def test_a_forked_source_keeps_its_name(rewritten):
    model = rewritten([HoistRectifiers()], f"{IO} {{ a = Neg(x) p = {POOL}(a) r = Relu(p) q = {POOL}(r) y = Add(a, q) }}")
    assert [node.op_type for node in model.graph] == ["Neg", "Relu", "MaxPool", "MaxPool", "Add"]
    assert [node.outputs[0].name for node in model.graph] == ["a", "r__hoisted", "r", "q", "y"]
