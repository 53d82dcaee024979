from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.passes.sink_transposes import SinkTransposes

LAST, FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"
RNG = np.random.default_rng(3)


def types(model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_inverse_pairs_cancel(golden):
    golden(
        SinkTransposes(),
        f"""g (float[n,2,3,4] x) => (float[n,2,3,4] y) <float[4] c = {{1.0,2.0,3.0,4.0}}>
        {{ a = Relu(x) b = {LAST}(a) d = {FIRST}(b) y = Add(d, c) }}""",
        "g (float[n,2,3,4] x) => (float[n,2,3,4] y) <float[4] c = {1.0,2.0,3.0,4.0}> { a = Relu(x) y = Add(a, c) }",
    )


def test_three_in_a_row_become_one(golden):
    golden(
        SinkTransposes(),
        """g (float[5,2,3] x) => (float[2,5,3] y)
        { p = Transpose<perm = [1,2,0]>(x) q = Transpose<perm = [1,0,2]>(p) y = Transpose<perm = [1,2,0]>(q) }""",
        "g (float[5,2,3] x) => (float[2,5,3] y) { y = Transpose<perm = [1,0,2]>(x) }",
    )


def test_a_pair_between_two_names_to_keep_stays(untouched):
    untouched(SinkTransposes(), f"g (float[n,2,3,4] x) => (float[n,2,3,4] y) {{ b = {LAST}(x) y = {FIRST}(b) }}")


def test_sinking_to_the_output_keeps_its_name_and_order(golden):
    golden(
        SinkTransposes(),
        f"""g (float[n,2,3,4] x) => (float[n,3,4,2] y) <float[2] c = {{1.0,2.0}}>
        {{ a = Neg(x) b = {LAST}(a) d = Mul(b, c) y = Relu(d) }}""",
        f"""g (float[n,2,3,4] x) => (float[n,3,4,2] y) <float[2,1,1] c = {{1.0,2.0}}>
        {{ a = Neg(x) d = Mul(a, c) y__nchw = Relu(d) y = {LAST}(y__nchw) }}""",
    )


def test_hoisting_to_the_input(golden):
    """Rescaling and padding in NHWC in front of the first convolution."""
    golden(
        SinkTransposes(),
        f"""g (float[n,3,4,2] x) => (float[n,2,4,5] y)
          <float[2] c = {{1.0,2.0}}, int64[8] p = {{0,0,0,0, 0,1,1,0}}, float s = {{3.0}}>
        {{ a = Mul(s, x) b = Sub(a, c) d = Pad(b, p) t = {FIRST}(d) y = Relu(t) }}""",
        f"""g (float[n,3,4,2] x) => (float[n,2,4,5] y)
          <float[2,1,1] c = {{1.0,2.0}}, int64[8] p = {{0,0,0,0, 0,0,1,1}}, float s = {{3.0}}>
        {{ x__nchw = {FIRST}(x) a = Mul(s, x__nchw) b = Sub(a, c) d = Pad(b, p) y = Relu(d) }}""",
    )


def test_a_residual_block_written_in_nhwc(rewritten):
    text = f"""g (float[n,6,6,2] x) => (float[n,6,6,2] y)
    {{ t = {FIRST}(x) c = Conv<pads = [1,1,1,1]>(t, w) a = {LAST}(c) r = Relu(a)
       t2 = {FIRST}(r) c2 = Conv<pads = [1,1,1,1]>(t2, w) b = {LAST}(c2) s = Add(b, r) y = Relu(s) }}"""
    model = rewritten([SinkTransposes()], text, {"w": RNG.normal(size=(2, 2, 3, 3)).astype(np.float32)})
    assert types(model) == ["Transpose", "Conv", "Relu", "Conv", "Add", "Relu", "Transpose"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax(t)",
        "y = Softmax<axis = 1>(t)",
        "u = Relu(t) y = Concat<axis = -1>(t, u)",
        "y = ReduceMean<keepdims = 0>(t, one_two)",
        "y = ReduceMean<keepdims = 1>(t, one_two)",
        "y = ReduceMax<keepdims = 0>(t, two)",
        "y = ReduceSum(t)",
        "m = ReduceMean<keepdims = 1>(t, one_two) y = Squeeze(m, one_two)",
        "m = ReduceMean<keepdims = 1>(t, one_two) g = Sigmoid(m) y = Mul(t, g)",
        'y = Pad<mode = "reflect">(t, pads)',
        "y = Pad(t, two_pads, zero, one_two)",
        "y = Slice(t, one_two, three_four, one_two)",
        "a, b = Split<axis = 3, num_outputs = 2>(t) y = Sub(a, b)",
        "y = ArgMax<axis = 3, keepdims = 0>(t)",
        "y = LeakyRelu(t)",
        "y = PRelu(t, slope)",
        "y = Sub(image, t)",
    ],
)
def test_numbers_stay_whatever_is_passed(rewritten, body):
    """Integers in the constants, every size different: a wrong axis changes the result or fails."""
    outputs = {"ArgMax": "int64"}.get(body.split("<")[0].removeprefix("y = "), "float")
    constants = {
        "one_two": np.int64([1, 2]),
        "two": np.int64([2]),
        "three_four": np.int64([3, 4]),
        "pads": np.int64([0, 1, 2, 0, 0, 0, 1, 1]),
        "two_pads": np.int64([1, 2, 3, 4]),
        "zero": np.float32(0.5),
        "slope": RNG.normal(size=6).astype(np.float32),
        "image": RNG.normal(size=(4, 5, 6)).astype(np.float32),
    }
    ranks = 2 if "Squeeze" in body else 1
    text = f"g (float[n,6,4,5] x) => ({outputs}{_unknown(body)} y) {{ r = Neg(x) t = {LAST}(r) {body} }}"
    model = rewritten([SinkTransposes()], text, {name: array for name, array in constants.items() if _reads(body, name)})
    position = types(model).index("Transpose") if "Transpose" in types(model) else len(types(model))
    assert position >= ranks + 1  # it went down behind the operator, or vanished
    assert SinkTransposes().apply(model) is False


def _reads(body: str, name: str) -> bool:
    return any(name == word.strip("(), ") for word in body.replace("(", " ").replace(",", " ").replace(")", " ").split())


def _unknown(body: str) -> str:
    if "keepdims = 0>(t, one_two)" in body or "Squeeze" in body:
        return "[n,c]"
    return "[n,c,d]" if "keepdims = 0" in body else "[n,c,d,e]" if "ReduceSum" not in body else "[i,c,d,e]"


def test_operands_in_different_orders_stay(untouched):
    untouched(SinkTransposes(), f"g (float[n,2,3,4] x, float[n,3,4,2] z) => (float[n,3,4,2] y) {{ t = {LAST}(x) y = Add(t, z) }}")


def test_twins_become_one(golden):
    golden(
        SinkTransposes(),
        f"g (float[n,2,3,4] x) => (float[n,4,2,3] y, float[n,4,2,3] z) {{ a = {FIRST}(x) b = {FIRST}(x) y = Elu(a) z = Neg(b) }}",
        f"g (float[n,2,3,4] x) => (float[n,4,2,3] y, float[n,4,2,3] z) {{ a = {FIRST}(x) y = Elu(a) z = Neg(a) }}",
    )


def test_an_image_of_one_pixel_is_turned_with_the_other_operand(golden):
    """Squeeze-and-excite: the factors come as [n, 1, 1, c], without a transpose of their own."""
    golden(
        SinkTransposes(),
        """g (float[n,3,4,5] x, float[n,1,1,3] s) => (float[n,3] y)  <int64[2] a = {1, 2}>
        { t = Transpose<perm = [0, 2, 3, 1]>(x) m = Mul(t, s) r = Relu(m) y = ReduceMean<keepdims = 0>(r, a) }""",
        """g (float[n,3,4,5] x, float[n,1,1,3] s) => (float[n,3] y) <int64[2] a = {2, 3}>
        { s__nchw = Transpose<perm = [0, 3, 1, 2]>(s) m = Mul(x, s__nchw) r = Relu(m) y = ReduceMean<keepdims = 0>(r, a) }""",
    )
