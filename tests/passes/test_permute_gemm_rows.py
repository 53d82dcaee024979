from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.permute_gemm_rows import PermuteGemmRows

W = {"w": np.random.default_rng(5).normal(size=(24, 5)).astype(np.float32)}
IO = "g (float[n,2,3,4] x) => (float[n,5] y)"
T = "t = Transpose<perm = [0, 2, 3, 1]>(x)"


def test_golden(golden):
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    golden(
        PermuteGemmRows(),
        "g (float[n,2,1,2] x) => (float[n,2] y) { t = Transpose<perm = [0,2,3,1]>(x) f = Flatten(t) y = MatMul(f, w) }",
        "g (float[n,2,1,2] x) => (float[n,2] y) { f = Flatten(x) y = MatMul(f, w) }",
        {"w": rows},
        {"w": rows[[0, 2, 1, 3]]},
    )


@pytest.mark.parametrize("body", ["r = Reshape(t, s) f = Relu(r) y = Gemm(f, w)", "f = Flatten(t) y = MatMul(f, w)"])
@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2]])
def test_numbers_for_every_order(rewritten, body, perm):
    text = f"{IO} <int64[2] s = {{-1, 24}}> {{ t = Transpose<perm = {perm}>(x) {body} }}"
    model = rewritten([PermuteGemmRows()], text, W)
    assert "Transpose" not in [node.op_type for node in model.graph]
    assert set(model.graph.initializers) - {"s"} == {"w"}
    assert PermuteGemmRows().apply(model) is False


def test_two_matrices_behind_one_flattening_with_one_weight(rewritten):
    model = rewritten(
        [PermuteGemmRows()],
        f"g (float[n,2,3,4] x) => (float[n,5] y, float[n,5] z) {{ {T} f = Flatten(t) y = MatMul(f, w) z = Gemm(f, w) }}",
        W,
    )
    assert "Transpose" not in [node.op_type for node in model.graph]


def test_refusals(untouched):
    io = "g (float[n,2,3,4] x) => (float[n,5] y, float[n,24] z)"
    untouched(PermuteGemmRows(), f"{io} {{ {T} f = Flatten(t) y = MatMul(f, w) z = Neg(f) }}", W)
    untouched(PermuteGemmRows(), f"{io.replace('z)', 'f)')} {{ {T} f = Flatten(t) y = MatMul(f, w) }}", W)
    moved = "g (float[2,n,3,4] x) => (float[n,5] y) { t = Transpose<perm = [1,0,2,3]>(x) f = Flatten(t) y = MatMul(f, w) }"
    untouched(PermuteGemmRows(), moved, W)
