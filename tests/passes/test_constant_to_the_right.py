from __future__ import annotations

import numpy as np

from tqt_onnx.passes.constant_to_the_right import ConstantToTheRight

W = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_the_constant_is_transposed_and_goes_behind(golden):
    golden(
        ConstantToTheRight(),
        "g (float[n,3,5] x) => (float[n,4,5] y) { y = MatMul(w, x) }",
        """g (float[n,3,5] x) => (float[n,4,5] y)
        { y__turned = Transpose<perm = [0, 2, 1]>(x) y__product = MatMul(y__turned, w__transposed)
          y = Transpose<perm = [0, 2, 1]>(y__product) }""",
        {"w": W},
        {"w__transposed": W.T.copy()},
    )


def test_a_batch_of_matrices_is_transposed_one_by_one(rewritten):
    model = rewritten(
        [ConstantToTheRight()],
        "g (float[n,2,3,5] x) => (float[n,2,4,5] y) { y = MatMul(w, x) }",
        {"w": np.stack([W, -W])},
    )
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul", "Transpose"]
    assert model.graph.initializers["w__transposed"].const_value.shape == (2, 3, 4)


def test_sums_over_the_batch_and_two_constants_are_left(untouched):
    untouched(ConstantToTheRight(), "g (float[3,5] x) => (float[4,5] y) { y = MatMul(w, x) }", {"w": W})
    untouched(
        ConstantToTheRight(),
        "g (float[3,5] x) => (float[2,4,5] y) { y = MatMul(w, x) }",
        {"w": np.stack([W, W])},
    )
