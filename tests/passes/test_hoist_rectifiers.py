from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes import hoist_rectifiers
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


def test_parts_that_are_all_rectified(golden):
    """Equal relus of one value are one, which then follows the sum (L2)."""
    bounds = {"one": np.array([1]), "two": np.array([2]), "zero": np.array([0])}
    io = "g (float[n,2,4,4] x) => (float[n,1,4,4] y, float[n,1,4,4] z)"
    golden(
        HoistRectifiers(),
        f"{io} {{ a = Neg(x) p = Slice(a, zero, one, one) q = Slice(a, one, two, one) y = Relu(p) z = Relu(q) }}",
        f"{io} {{ a = Neg(x) y__hoisted = Relu(a) y = Slice(y__hoisted, zero, one, one) z = Slice(y__hoisted, one, two, one) }}",
        bounds,
        bounds,
    )


@pytest.mark.parametrize(
    "body",
    [
        "p = Slice(a, zero, one, one) q = Slice(a, one, two, one) y = LeakyRelu<alpha = 0.5>(p) z = LeakyRelu<alpha = 0.25>(q)",
        "p = Slice(a, zero, one, one) q = Slice(a, one, two, one) y = Relu(p) z = Neg(q)",
        "p = Slice(a, zero, one, one) q = Gather<axis = 1>(a, one) r = Relu(p) y = Add(r, a) z = Relu(q)",
    ],
)
def test_parts_that_are_rectified_in_different_ways_keep_their_relus(untouched, body):
    """On the whole value, K parts would be K times the work."""
    bounds = {"one": np.array([1]), "two": np.array([2]), "zero": np.array([0])}
    used = {name: array for name, array in bounds.items() if f" {name}" in body}
    io = "g (float[n,2,4,4] x) => (float[n,b,4,4] y, float[n,1,4,4] z)"
    untouched(HoistRectifiers(), f"{io} {{ a = Neg(x) {body} }}", used)


def test_a_thousand_relus_of_one_value_are_compared_once_each(onnx_text, monkeypatch):
    count = 1000
    nodes = " ".join(f"l{i} = LeakyRelu<alpha = {(i + 1) / 2048}>(c)" for i in range(count))
    model = onnx_text(
        f"g (float[n,4] x) => (float[n,4] y) {{ c = Neg(x) {nodes} y = Sum({', '.join(f'l{i}' for i in range(count))}) }}"
    )
    asked = []
    kind = hoist_rectifiers._kind
    monkeypatch.setattr(hoist_rectifiers, "_kind", lambda node: asked.append(node) or kind(node))
    assert HoistRectifiers().apply(model) is False
    assert len(asked) == count


@pytest.mark.parametrize(
    "mover",
    [
        "Gather<axis = 1>(a, zero)",
        "SpaceToDepth<blocksize = 2>(a)",
        "Transpose<perm = [0, 1, 3, 2]>(a)",
        "Tile(a, ones)",
        'Pad<mode = "reflect">(a, pads)',
        "Pad(a, pads)",
        POOL + "(a)",
    ],
)
@pytest.mark.parametrize("rectifier", ["Relu(m)", "Clip(m, low, high)", "LeakyRelu<alpha = 0.3>(m)"])
def test_every_relu_in_front_of_every_mover(rewritten, mover, rectifier):
    arrays = {
        "zero": np.array([0]),
        "ones": np.array([1, 2, 1, 1]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "low": np.float32(-0.5),
        "high": np.float32(0.75),
    }
    used = {name: array for name, array in arrays.items() if f", {name}" in mover.split(">")[-1] + rectifier}
    model = rewritten([HoistRectifiers()], f"{IO} {{ a = Neg(x) m = {mover} y = {rectifier} }}", used)
    assert [node.op_type for node in model.graph] == [
        "Neg",
        rectifier.split("(")[0].split("<")[0],
        mover.split("(")[0].split("<")[0],
    ]


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        (f"{{ a = Neg(x) p = {POOL}(a) y = LeakyRelu<alpha = -0.3>(p) }}", {}),  # falls where numbers rise
        ("{ a = Neg(x) p = Pad(a, k) y = Clip(p, low, high) }", {"low": np.float32(0.5), "high": np.float32(1)}),  # zero is lifted
        ("{ a = Neg(x) p = Pad(a, k, one) y = Relu(p) }", {"one": np.float32(1)}),
    ],
)
def test_what_does_not_commute(untouched, body, arrays):
    pads = {"k": np.array([0, 0, 1, 1, 0, 0, 1, 1])} if "Pad" in body else {}
    untouched(HoistRectifiers(), f"{IO} {body}", pads | arrays)
