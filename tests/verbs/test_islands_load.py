"""What stays float between quantized layers must not keep onnxruntime, with all its optimizations, from loading the model."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.check import check
from tqt_onnx.verbs.quantize import quantize

RNG = np.random.default_rng(0)
CONV = "Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
HALF = "float[4] s = {1, 1, 0.5, 0.5}"

ISLANDS = {
    "cubic, smaller": (HALF, 'i = Resize<mode = "cubic">(r, , s)'),
    "cubic, larger": ("float[4] s = {1, 1, 2, 2}", 'i = Resize<mode = "cubic">(r, , s)'),
    "linear, not whole": ("float[4] s = {1, 1, 1.5, 1.5}", 'i = Resize<mode = "linear">(r, , s)'),
    "aspect ratio": (
        "int64[2] s = {12, 16}",
        'i = Resize<mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "not_larger">(r, , , s)',
    ),
    "positions": (
        "",
        "m, p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) i = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(m, p)",
    ),
    "pool": ("", "i = LpPool<kernel_shape = [2, 2]>(r)"),
    "softmax": ("", "i = Softmax<axis = 1>(r)"),
    "softmaxes joined": (
        "",
        "a = Softmax<axis = 1>(r) b = Floor(r) j = Concat<axis = 2>(a, b) i = MaxPool<kernel_shape = [2, 2]>(j)",
    ),
    "softmax and a function": ("", "a = Softmax<axis = 1>(r) i = Sigmoid(a)"),
    "softmax and a leaky relu": ("", "a = Softmax<axis = 1>(r) i = LeakyRelu(a)"),
    "softmax and a mean": ("", "a = Softmax<axis = 1>(r) i = GlobalAveragePool(a)"),
    "where": ("float h = {0.5}", "q = Greater(r, h) i = Where(q, r, h)"),
    "cumulative": ("int64 k = {2}", "i = CumSum(r, k)"),
}


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("head", ["r = Relu(c)", "r = Identity(c)"])
@pytest.mark.parametrize("name", ISLANDS)
def test_optimized_sessions_load_and_are_right_in_front_and_behind(name, head, layer):
    constant, body = ISLANDS[name]
    weights = [onnx_ir.tensor(RNG.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32), name=name) for name in ("w", "v")]
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[N, 4, 8, 8] x) => (float[N, 4, H, W] y)
    <{constant}> {{ c = {CONV}(x, w) {head} {body} y = {CONV}(i, v) }}"""
    model = onnx_ir.from_onnx_text(text, initializers=weights)
    model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))
    x = RNG.normal(0, 1, (3, 4, 8, 8)).astype(np.float32)
    result = check(quantize(model, x, bits=BitWidths(layer=layer)).model, x, engines=("oracle", "ort"))
    assert result.ok and result.islands != ()


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize(
    ("constant", "body"),
    [
        ("float k = {1e-12}", "i = Max(c, k)"),
        ("float k = {1e-12}", "m = MaxPool<kernel_shape = [2, 2]>(c) i = Clip(m, k)"),
        ("float k = {-1e-12}", "m = Concat<axis = 2>(c, c) i = Clip(m, k)"),
        ("int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}, float k = {1e-12}", "i = Pad(c, p, k)"),
        ("int64[4] p = {1, 2, 3, 0}, int64[2] a = {-1, 2}", "i = Pad(c, p, , a)"),
        ("", "i, p = MaxPool<kernel_shape = [2, 2]>(c)"),
        ("float k = {0.01}, float l = {1}", "r = Relu(c) m = Max(r, k) i = Div(l, m)"),
        ("float k = {0.001}, float l = {1}", "m = Clip(c, k, l) i = Log(m)"),
    ],
)
def test_tiny_bounds_and_other_forms_are_no_islands(constant, body, layer):
    weights = [onnx_ir.tensor(RNG.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32), name=name) for name in ("w", "v")]
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[N, 4, 8, 8] x) => (float[N, 4, H, W] y)
    <{constant}> {{ c = {CONV}(x, w) {body} y = {CONV}(i, v) }}"""
    model = onnx_ir.from_onnx_text(text, initializers=weights)
    model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))
    x = RNG.normal(0, 1, (3, 4, 8, 8)).astype(np.float32)
    quantized = quantize(model, x, bits=BitWidths(layer=layer))
    result = check(quantized.model, x, engines=("oracle", "ort", "tf"))
    assert quantized.float_layers == () and result.islands == ()
    assert result.ok and result.differences == () and all(layer.promised for layer in result.certificates)
