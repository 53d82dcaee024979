"""Shapes of everything, errors that raise, a batch that stays dynamic."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import ModelError
from tqt_onnx.passes.infer_shapes import InferShapes

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def shapes(model):
    return {
        value.name: [dim if isinstance(dim, int) else dim.value for dim in value.shape] for n in model.graph for value in n.outputs
    }


def test_every_value_gets_its_shape_and_the_batch_keeps_its_name():
    model = onnx_ir.from_onnx_text(
        HEADER + "g (float[n,8,8,3] x) => (float[n,k] y) <int64[2] s = {-1, 512}> { t = Transpose<perm=[0,3,1,2]>(x)"
        " c = Conv<pads=[1,1,1,1]>(t, w) y = Flatten(c) }",
        initializers=[onnx_ir.tensor(np.zeros((80, 3, 3, 3), np.float32), name="w")],  # above the data limit
    )
    assert InferShapes().apply(model) is True
    assert shapes(model) == {"t": ["n", 3, 8, 8], "c": ["n", 80, 8, 8], "y": ["n", 5120]}
    assert InferShapes().apply(model) is False


def test_a_declared_output_batch_is_kept():
    model = onnx_ir.from_onnx_text(HEADER + "g (float[1,4] x) => (float[batch,4] y) { y = Relu(x) }")
    InferShapes().apply(model)
    assert shapes(model)["y"] == ["batch", 4]


def test_contradicting_shapes_raise_and_name_the_node():
    model = onnx_ir.from_onnx_text(
        HEADER + "g (float[n,5,8,8] x) => (float[n,k,h,v] y) { y = Conv(x, w) }",
        initializers=[onnx_ir.tensor(np.zeros((8, 3, 3, 3, 3), np.float32), name="w")],
    )
    with pytest.raises(ModelError, match=r"shape inference fails.*Conv"):
        InferShapes().apply(model)


def test_the_contents_of_large_initializers_are_not_serialized(monkeypatch):
    big = onnx_ir.tensor(np.zeros((2048, 2), np.float32), name="w")
    model = onnx_ir.from_onnx_text(HEADER + "g (float[n,2048] x) => (float[n,2] y) { y = MatMul(x, w) }", initializers=[big])
    serialized = []
    original = onnx_ir.serde.serialize_tensor
    monkeypatch.setattr(onnx_ir.serde, "serialize_tensor", lambda tensor: serialized.append(tensor.name) or original(tensor))
    InferShapes().apply(model)
    assert serialized == []
