from __future__ import annotations

import pytest

from tqt_onnx.passes.drop_redundant_relu import DropRedundantRelu
from tqt_onnx.passes.merge_clips import MergeClips

IO = "g (float[n,4] x) => (float[n,4] y)"
BOUNDS = "float zero = {0.0}, float[1] six = {6.0}, float one = {1.0}, float huge = {3.4028235e38}"


@pytest.mark.parametrize(
    "body",
    [
        "m = Max(x, zero) y = Min(m, six)",
        "m = Min(six, x) y = Max(zero, m)",
        "m = Relu(x) y = Clip(m, zero, six0)",
        "m = Relu(x) y = Min(m, six)",
        "m = Clip(x, , six0) y = Relu(m)",
        "m = Clip(x, zero, huge) n = Min(m, huge) y = Min(n, six)",
    ],
)
def test_every_relu6(golden, body):
    bounds = BOUNDS + ", float six0 = {6.0}"
    used = ", ".join(b for b in bounds.split(", ") if f" {b.split()[1]}" in body.replace("(", " "))
    golden(
        MergeClips(),
        f"{IO} <{used}> {{ {body} }}",
        f"{IO} <float y__min = {{0.0}}, float y__max = {{6.0}}> {{ y = Clip(x, y__min, y__max) }}",
    )


@pytest.mark.parametrize(
    "body", ["y = Max(zero, x)", "y = Clip(x, zero)", "y = Clip(x, zero, huge)", "m = Max(x, zero) y = Relu(m)"]
)
def test_every_relu(golden, body):
    used = ", ".join(b for b in BOUNDS.split(", ") if b.split()[1] in body)
    golden(MergeClips(), f"{IO} <{used}> {{ {body} }}", f"{IO} {{ y = Relu(x) }}")


def test_a_shared_inner_value_stays_and_a_wider_outer_one_goes(golden, untouched):
    two = "g (float[n,4] x) => (float[n,4] y, float[n,4] z)"
    untouched(
        MergeClips(), f"{two} <float zero = {{0.0}}, float six = {{6.0}}> {{ m = Relu(x) y = Clip(m, zero, six) z = Neg(m) }}"
    )
    golden(
        MergeClips(),
        f"{two} <float zero = {{0.0}}, float six = {{6.0}}> {{ m = Clip(x, zero, six) r = Relu(m) y = Neg(r) z = Neg(m) }}",
        f"{two} <float zero = {{0.0}}, float six = {{6.0}}> {{ m = Clip(x, zero, six) y = Neg(m) z = Neg(m) }}",
    )


def test_one_bound_is_a_clip(golden):
    after = "<float y__min = {0.5}> { y = Clip(x, y__min) }"
    golden(MergeClips(), f"{IO} <float half = {{0.5}}> {{ y = Max(half, x) }}", f"{IO} {after}")
    after = "<float y__max = {-1.0}> { y = Clip(x, , y__max) }"
    golden(MergeClips(), f"{IO} <float minus = {{-1.0}}> {{ y = Min(x, minus) }}", f"{IO} {after}")


def test_other_intervals_stay(untouched):
    untouched(MergeClips(), f"{IO} <float one = {{1.0}}, float six = {{6.0}}> {{ y = Clip(x, one, six) }}")
    untouched(MergeClips(), f"{IO} <float huge = {{3.4028235e38}}> {{ y = Min(x, huge) }}")
    untouched(MergeClips(), f"{IO} <float[1,4] v = {{0.0,0.0,0.0,0.0}}> {{ y = Max(x, v) }}")
    untouched(MergeClips(), f"{IO} <float zero = {{0.0}}, float six = {{6.0}}> {{ y = Clip(x, six, zero) }}")  # empty
    untouched(MergeClips(), "g (float[4] x) => (float[1,4] y) <float[1,1] zero = {0.0}> { y = Max(x, zero) }")  # adds a dimension


IMAGE = "g (float[n,2,4,4] x) => (float[n,2,h,v] y)"


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("a = Relu(x) p = MaxPool<kernel_shape=[2,2]>(a) y = Relu(p)", ["Relu", "MaxPool"]),
        ("a = Sigmoid(x) b = Identity(a) y = Relu(b)", ["Sigmoid", "Identity"]),
        ("a = Softmax(x) b = Relu(x) s = Add(a, b) y = Relu(s)", ["Softmax", "Relu", "Add"]),
        ("a = Abs(x) c = Concat<axis = 1>(a, a) r = Relu(c) y = Slice(r, i0, i2, i1)", ["Abs", "Concat", "Slice"]),
        ("a = Relu(x) p = Pad(a, pads) y = Relu(p)", ["Relu", "Pad"]),
        ("a = Exp(x) m = Max(a, x) y = Relu(m)", ["Exp", "Max"]),
        ("a = Relu(x) b = Relu(a) c = GlobalAveragePool(b) y = Relu(c)", ["Relu", "GlobalAveragePool"]),
    ],
)
def test_redundant_relus_go(rewritten, body, after):
    constants = {
        "pads": "int64[8] pads = {0,0,1,1,0,0,1,1}",
        "i0": "int64[1] i0 = {0}",
        "i1": "int64[1] i1 = {1}",
        "i2": "int64[1] i2 = {2}",
    }
    used = ", ".join(text for name, text in constants.items() if name in body)
    model = rewritten([DropRedundantRelu()], f"{IMAGE} {f'<{used}>' if used else ''} {{ {body} }}")
    assert [node.op_type for node in model.graph] == after
    assert model.graph.outputs[0].name == "y"
    assert DropRedundantRelu().apply(model) is False


@pytest.mark.parametrize(
    "body",
    [
        "a = Neg(x) y = Relu(a)",
        "a = Relu(x) b = Sub(a, a) y = Relu(b)",
        "a = Relu(x) b = Add(a, x) y = Relu(b)",
        "a = Relu(x) b = Min(a, x) y = Relu(b)",
        "a = Relu(x) p = Pad(a, pads, minus) y = Relu(p)",
        "a = Relu(x) b = Clip(a, minus, minus) y = Relu(b)",
    ],
)
def test_useful_relus_stay(untouched, body):
    constants = {"pads": "int64[8] pads = {0,0,1,1,0,0,1,1}", "minus": "float minus = {-1.0}"}
    used = ", ".join(text for name, text in constants.items() if name in body)
    untouched(DropRedundantRelu(), f"{IMAGE} {f'<{used}>' if used else ''} {{ {body} }}")


def test_a_relu_between_two_outputs_stays(untouched):
    untouched(DropRedundantRelu(), "g (float[n,4] x) => (float[n,4] a, float[n,4] y) { a = Relu(x) y = Relu(a) }")
