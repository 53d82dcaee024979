from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import tensorflow as tf

from tqt_onnx.passes.bilinear_to_depthwise import BilinearToDepthwise, why_not

CONV = "Conv<kernel_shape = [{k}, {k}], strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], group = 2>"
IO = "g (float[n,2,3,4] x) => (float[n,2,h,w] y)"


def resize(mode: str, interpolation: str = "linear") -> str:
    return f'Resize<mode = "{interpolation}", coordinate_transformation_mode = "{mode}">'


@pytest.mark.parametrize(
    ("mode", "edges", "kernel"), [("half_pixel", [1, 1], [0.25, 0.5, 0.25]), ("asymmetric", [0, 1], [0.5, 0.5])]
)
def test_by_two(golden, mode, edges, kernel):
    before, behind = edges
    weights = np.broadcast_to(np.multiply.outer(kernel, kernel), (2, 1, len(kernel), len(kernel))).astype(np.float32)
    golden(
        BilinearToDepthwise(),
        f"{IO} {{ y = {resize(mode)}(x, , k) }}",
        f"""{IO} {{ y__repeated = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
                      (x, , y__scales)
                    y__edged = Pad<mode = "edge">(y__repeated, y__edges)
                    y = {CONV.format(k=len(kernel))}(y__edged, y__weights) }}""",
        {"k": np.array([1, 1, 2, 2], np.float32)},
        {
            "y__scales": np.array([1, 1, 2, 2], np.float32),
            "y__edges": np.array([0, 0, before, before, 0, 0, behind, behind]),
            "y__weights": weights,
        },
    )


def test_between_one_row_and_itself_nothing_lies(rewritten):
    text = f"g (float[n,2,1,4] x) => (float[n,2,h,w] y) {{ y = {resize('half_pixel')}(x, , k) }}"
    *_, convolution = rewritten([BilinearToDepthwise()], text, {"k": np.array([1, 1, 33, 2], np.float32)}).graph
    assert tuple(convolution.inputs[1].shape) == (2, 1, 1, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 4), (5, 2)])
@pytest.mark.parametrize("factors", [(2, 2), (1, 2), (3, 4), (8, 5)])
@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric", "align_corners"])
def test_the_numbers_are_tensorflows(onnx_text, mode, factors, size):
    """At the borders too, for one row or column, even and odd factors."""
    target = [length * factor - (factor - 1) * (mode == "align_corners") for length, factor in zip(size, factors, strict=True)]
    text = f"g (float[2,3,{size[0]},{size[1]}] x) => (float[2,3,h,w] y) {{ y = {resize(mode)}(x, , , s) }}"
    model = onnx_text(text, {"s": np.array([2, 3, *target])})
    x = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    options = {"half_pixel_centers": mode == "half_pixel", "align_corners": mode == "align_corners"}
    expected = tf.raw_ops.ResizeBilinear(images=x.transpose(0, 2, 3, 1), size=target, **options).numpy().transpose(0, 3, 1, 2)
    reason = why_not(next(iter(model.graph)))
    assert reason is None
    BilinearToDepthwise().apply(model)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{IO} {{ y = {resize('half_pixel', 'cubic')}(x, , k) }}", "mode 'cubic'"),
        (f"{IO} {{ y = {resize('tf_crop_and_resize')}(x, r, k) }}", "tf_crop_and_resize"),
        (f"{IO} {{ y = {resize('align_corners')}(x, , k) }}", "corners to corners"),
        (f"{IO} {{ y = {resize('half_pixel')}(x, , huge) }}", "windows of 40804 elements are too many"),
        (f"g (float[n,2,h,4] x) => (float[n,2,a,b] y) {{ y = {resize('half_pixel')}(x, , k) }}", "not known"),
    ],
)
def test_refusals(untouched, onnx_text, text, reason):
    scales = {"huge": np.array([1, 1, 201, 201], np.float32)} if "huge" in text else {"k": np.array([1, 1, 2, 2], np.float32)}
    arrays = scales | ({"r": np.zeros(8, np.float32)} if "x, r" in text else {})
    untouched(BilinearToDepthwise(), text, arrays)
    assert reason in str(why_not(next(iter(onnx_text(text, arrays).graph))))
