from __future__ import annotations

from tqt_onnx.passes.lift_constants import LiftConstants


def test_lift(golden):
    golden(
        LiftConstants(),
        """g (float[n,2] x) => (float[n,2] y)
        { c = Constant<value = float[2] {1.0, 2.0}>() s = Constant<value_float = 3.0>() t = Mul(x, c) y = Add(t, s) }""",
        """g (float[n,2] x) => (float[n,2] y) <float[2] c = {1.0, 2.0}, float s = {3.0}> { t = Mul(x, c) y = Add(t, s) }""",
    )


def test_a_constant_that_is_an_output_stays(untouched):
    untouched(LiftConstants(), "g (float[n,2] x) => (float[1] c) { c = Constant<value = float[1] {1.0}>() }")
