from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import ModelError
from tqt_onnx.passes.fold_constants import FoldConstants
from tqt_onnx.passes.infer_shapes import InferShapes


def test_constant_nodes_are_evaluated(golden):
    golden(
        FoldConstants(),
        """g (float[n,2] x) => (float[n,2] y) <float[1] a = {2.0}, float[1] b = {3.0}>
        { c = Mul(a, b) d = Sqrt(c) y = Add(x, d) }""",
        "g (float[n,2] x) => (float[n,2] y) <float[1] d = {2.4494898}> { y = Add(x, d) }",
    )


def test_a_computed_reshape_target_keeps_only_the_batch_open(golden):
    golden(
        FoldConstants(),
        """g (float[n,4,4,3] x) => (float[n,k] y) <int64[1] zero = {0}, int64[1] one = {1}, int32[1] rest = {48}>
        { s = Shape(x) i = Cast<to = 6>(s) b = Slice(i, zero, one, zero, one)
          t = Concat<axis = 0>(b, rest) l = Cast<to = 7>(t) y = Reshape(x, l) }""",
        "g (float[n,4,4,3] x) => (float[n,k] y) <int64[2] y__shape = {-1, 48}> { y = Reshape(x, y__shape) }",
    )


def test_a_minus_one_beside_the_batch_is_resolved(golden):
    golden(
        FoldConstants(),
        """g (float[n,4,4,3] x) => (float[n,48] y) <int64 zero = {0}, int64[1] axes = {0}, int64[1] rest = {-1}>
        { s = Shape(x) b = Gather(s, zero) u = Unsqueeze(b, axes) t = Concat<axis = 0>(u, rest) y = Reshape(x, t) }""",
        "g (float[n,4,4,3] x) => (float[n,48] y) <int64[2] y__shape = {-1, 48}> { y = Reshape(x, y__shape) }",
    )


def test_fixed_entries_of_a_shape_are_constants(golden):
    golden(
        FoldConstants(),
        """g (float[n,4,5,3] x) => (int64[1] y) <int64[1] one = {1}, int64[1] three = {3}, int64[1] m = {-1}>
        { s = Shape(x) hw = Slice(s, one, three) a = Shape<start = 1, end = 2>(x) p = Mul(a, m) q = Add(p, hw)
          r = ReduceMax<keepdims = 1>(q) y = Neg(r) }""",
        "g (float[n,4,5,3] x) => (int64[1] y) <int64[1] r = {1}> { y = Neg(r) }",
    )


def test_two_open_dimensions_stay_computed(untouched):
    untouched(
        FoldConstants(),
        """g (float[n,h,4,3] x) => (float[a,b,c] y) <int64[1] rest = {12}>
        { s = Shape<start = 0, end = 2>(x) t = Concat<axis = 0>(s, rest) y = Reshape(x, t) }""",
    )


def test_weights_behind_dequantization_stay_encoded(untouched):
    untouched(
        FoldConstants(),
        """g (float[n,2] x) => (float[n,2] y) <int8[2] w = {1, 2}, float s = {0.5}, int8 z = {0}>
        { d = DequantizeLinear(w, s, z) y = Mul(x, d) }""",
    )


def test_results_above_the_limit_stay(untouched):
    untouched(
        FoldConstants(limit=100),
        "g (float[101] x) => (float[101] y) <int64[1] s = {101}> { z = ConstantOfShape(s) y = Add(x, z) }",
    )


def test_random_nodes_stay(untouched):
    untouched(FoldConstants(), "g (float[2] x) => (float[2] y) <float[2] a = {1.0, 2.0}> { r = RandomNormalLike(a) y = Add(x, r) }")


def test_an_impossible_constant_node_is_a_typed_error(onnx_text):
    model = onnx_text(
        "g (float[n,2] x) => (float[n,2] y) <float[2] a = {1.0, 2.0}, float[2] b = {1.0, 2.0}> { c = Add(a, b) y = Add(x, c) }"
    )
    node = next(iter(model.graph))
    node.inputs[1].const_value = onnx_ir.tensor(np.zeros(3, np.float32))
    with pytest.raises(ModelError, match=r"Add node .* has constant inputs but cannot be evaluated"):
        FoldConstants().apply(model)


def test_shapes_behind_follow(onnx_text):
    model = onnx_text(
        """g (float[n,2,2,3] x) => (float[n,k] y) <int64[1] z = {0}, int64[1] o = {1}, int64[1] r = {12}>
        { s = Shape(x) b = Slice(s, z, o) t = Concat<axis = 0>(b, r) f = Reshape(x, t) y = Relu(f) }"""
    )
    FoldConstants().apply(model)
    InferShapes().apply(model)
    assert [list(node.outputs[0].shape)[1:] for node in model.graph if node.op_type in ("Reshape", "Relu")] == [[12], [12]]
