from __future__ import annotations

from tqt_onnx.passes.transpose_to_reshape import TransposeToReshape

LAST, FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"


def test_a_transpose_of_single_pixels_joins_the_reshape(golden):
    golden(
        TransposeToReshape(),
        f"""g (float[n,5,1,1] x) => (float[n,5] y) <int64[2] s = {{-1, 5}}> {{ a = Relu(x) t = {LAST}(a) f = Reshape(t, s)
          y = Neg(f) }}""",
        "g (float[n,5,1,1] x) => (float[n,5] y) <int64[2] s = {-1, 5}> { a = Relu(x) f = Reshape(a, s) y = Neg(f) }",
    )


def test_reshapes_in_a_row_are_one_and_the_output_keeps_its_name(golden):
    golden(
        TransposeToReshape(),
        """g (float[n,2,3,1] x) => (float[n,6] y) <int64[1] a = {3}, int64[1] b = {1}>
        { s = Squeeze(x, a) u = Unsqueeze(s, b) y = Flatten(u) }""",
        "g (float[n,2,3,1] x) => (float[n,6] y) <int64[2] y__shape = {-1, 6}> { y = Reshape(x, y__shape) }",
    )


def test_a_reshape_to_the_same_shape_goes(golden):
    golden(
        TransposeToReshape(),
        "g (float[n,6] x) => (float[n,6] y) <int64[2] s = {-1, 6}> { a = Relu(x) f = Reshape(a, s) y = Flatten(f) }",
        "g (float[n,6] x) => (float[n,6] y) { y = Relu(x) }",
    )


def test_a_reshaped_value_takes_the_transpose_to_channels_first(golden):
    golden(
        TransposeToReshape(),
        f"g (float[n,5] x) => (float[n,5,1,1] y) <int64[4] s = {{-1,1,1,5}}> {{ f = Reshape(x, s) y = {FIRST}(f) }}",
        "g (float[n,5] x) => (float[n,5,1,1] y) <int64[4] y__shape = {-1,5,1,1}> { y = Reshape(x, y__shape) }",
    )


def test_refusals(untouched):
    untouched(TransposeToReshape(), f"g (float[n,4,4,1] x) => (float[n,1,4,4] y) {{ y = {FIRST}(x) }}")  # one-channel input
    untouched(TransposeToReshape(), f"g (float[n,2,1,3] x) => (float[n,1,3,2] y) {{ y = {LAST}(x) }}")  # elements move
    untouched(TransposeToReshape(), "g (float[n,6] x) => (float[n,6] y) { y = Flatten(x) }")  # two names


def test_other_readers_keep_the_value_in_between(golden):
    io = "g (float[n,6] x) => (float[n,2,3] y, float[n,3,2] z) <int64[3] s = {-1,2,3}, int64[3] t = {-1,3,2}>"
    golden(
        TransposeToReshape(),
        f"{io} {{ y = Reshape(x, s) z = Reshape(y, t) }}",
        f"{io} {{ y = Reshape(x, s) z = Reshape(x, t) }}",
    )
