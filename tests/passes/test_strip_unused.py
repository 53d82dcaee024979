from __future__ import annotations

import numpy as np

from tqt_onnx.passes.strip_unused import StripUnused


def test_what_no_output_needs_goes_and_inputs_stay(golden):
    golden(
        StripUnused(),
        "g (float[n,2] x, float[n,2] idle) => (float[n,2] y) { y = Relu(x) a = Neg(x) b = Add(a, c) }",
        "g (float[n,2] x, float[n,2] idle) => (float[n,2] y) { y = Relu(x) }",
        {"c": np.ones(2, np.float32)},
    )


def test_functions_that_nobody_calls_go(onnx_text):
    model = onnx_text(
        """<ir_version: 10, opset_import: ["" : 21, "mine" : 1]> g (float[n,2] x) => (float[n,2] y) { y = mine.used(x) }
        <opset_import: ["" : 21], domain: "mine"> used (x) => (y) { y = Relu(x) }
        <opset_import: ["" : 21], domain: "mine"> idle (x) => (y) { y = Neg(x) }"""
    )
    assert StripUnused().apply(model) is True
    assert [function.name for function in model.functions.values()] == ["used"]
    assert StripUnused().apply(model) is False


def test_nothing_to_strip(untouched):
    untouched(StripUnused(), "g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }")
