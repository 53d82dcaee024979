from __future__ import annotations

from tqt_onnx.passes.mean_to_global_average_pool import MeanToGlobalAveragePool


def test_dimensions_kept(golden):
    golden(
        MeanToGlobalAveragePool(),
        "g (float[n,3,4,5] x) => (float[n,3,1,1] y) <int64[2] a = {-1, 2}> { y = ReduceMean<keepdims = 1>(x, a) }",
        "g (float[n,3,4,5] x) => (float[n,3,1,1] y) { y = GlobalAveragePool(x) }",
    )


def test_dimensions_dropped(golden):
    model = golden(
        MeanToGlobalAveragePool(),
        "g (float[n,3,4,5] x) => (float[n,3] y) <int64[2] a = {2, 3}> { y = ReduceMean<keepdims = 0>(x, a) }",
        "g (float[n,3,4,5] x) => (float[n,3] y) { y__pool = GlobalAveragePool(x) y = Flatten<axis = 1>(y__pool) }",
    )
    assert [str(dim) for dim in next(iter(model.graph)).outputs[0].shape] == ["n", "3", "1", "1"]


def test_channels_last(golden):
    golden(
        MeanToGlobalAveragePool(),
        """g (float[n,3,4,5] x) => (float[n,3] y) <int64[2] a = {1, 2}>
        { t = Transpose<perm = [0, 2, 3, 1]>(x) y = ReduceMean<keepdims = 0>(t, a) }""",
        "g (float[n,3,4,5] x) => (float[n,3] y) { y__pool = GlobalAveragePool(x) y = Flatten<axis = 1>(y__pool) }",
    )


def test_sequences(golden):
    """As images of height 1; dimensions dropped or kept, channels-last looked through."""
    golden(
        MeanToGlobalAveragePool(),
        """g (float[n,3,5] x) => (float[n,3] y, float[n,3] z, float[n,3,1] k) <int64[1] a = {2}, int64[1] b = {1}>
        { y = ReduceMean<keepdims = 0>(x, a) t = Transpose<perm = [0,2,1]>(x) z = ReduceMean<keepdims = 0>(t, b)
          k = ReduceMean<keepdims = 1>(x, a) }""",
        """g (float[n,3,5] x) => (float[n,3] y, float[n,3] z, float[n,3,1] k)
        <int64[1] y__image__axis = {2}, int64[1] z__image__axis = {2}, int64[1] k__image__axis = {2}, int64[1] k__axis = {2}>
        { y__image = Unsqueeze(x, y__image__axis) y__pool = GlobalAveragePool(y__image) y = Flatten<axis = 1>(y__pool)
          z__image = Unsqueeze(x, z__image__axis) z__pool = GlobalAveragePool(z__image) z = Flatten<axis = 1>(z__pool)
          k__image = Unsqueeze(x, k__image__axis) k__pool = GlobalAveragePool(k__image) k = Squeeze(k__pool, k__axis) }""",
    )


def test_channels_last_without_a_transpose(golden):
    golden(
        MeanToGlobalAveragePool(),
        """g (float[n,3,4,5] x) => (float[n,5] y, float[n,1,1,5] k) <int64[2] a = {1, 2}>
        { y = ReduceMean<keepdims = 0>(x, a) k = ReduceMean<keepdims = 1>(x, a) }""",
        """g (float[n,3,4,5] x) => (float[n,5] y, float[n,1,1,5] k) <int64[2] k__axes = {1, 2}>
        { y__nchw = Transpose<perm = [0, 3, 1, 2]>(x) y__pool = GlobalAveragePool(y__nchw) y = Flatten<axis = 1>(y__pool)
          k__nchw = Transpose<perm = [0, 3, 1, 2]>(x) k__pool = GlobalAveragePool(k__nchw) k__flat = Flatten<axis = 1>(k__pool)
          k = Unsqueeze(k__flat, k__axes) }""",
    )


def test_refusals(untouched):
    untouched(
        MeanToGlobalAveragePool(),
        """g (float[n,3,4,5] x) => (float[n,4] y, float[n,3,5] z) <int64[2] a = {1, 3}, int64[1] b = {2}>
        { y = ReduceMean<keepdims = 0>(x, a) z = ReduceMean<keepdims = 0>(x, b) }""",
    )


def test_a_mean_of_one_element_only_moves(golden):
    golden(
        MeanToGlobalAveragePool(),
        """g (float[n,1,1,5] x) => (float[n,5] y, float[n,1,1,5] z) <int64[2] a = {1, 2}>
        { y = ReduceMean<keepdims = 0>(x, a) z = ReduceMean<keepdims = 1>(x, a) }""",
        """g (float[n,1,1,5] x) => (float[n,5] y, float[n,1,1,5] z) <int64[2] y__axes = {1, 2}>
        { y = Squeeze(x, y__axes) z = Identity(x) }""",
    )
