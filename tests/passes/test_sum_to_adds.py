from __future__ import annotations

from tqt_onnx.passes.sum_to_adds import SumToAdds


def test_a_chain_of_additions_in_order(golden):
    golden(
        SumToAdds(),
        "g (float[n,3] a, float[n,3] b, float[n,3] c) => (float[n,3] y) { y = Sum(a, b, c) }",
        "g (float[n,3] a, float[n,3] b, float[n,3] c) => (float[n,3] y) { y__0 = Add(a, b) y = Add(y__0, c) }",
    )


def test_two_and_one(golden):
    golden(
        SumToAdds(),
        "g (float[n,3] a) => (float[n,3] y, float[n,3] z) { y = Sum(a, a) z = Sum(a) }",
        "g (float[n,3] a) => (float[n,3] y, float[n,3] z) { y = Add(a, a) z = Identity(a) }",
    )
