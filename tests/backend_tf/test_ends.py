"""What networks end with beside a Softmax, and the forms of moving operators that TensorFlow has no operator for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tqt_onnx.backend_tf import regenerate
from tqt_onnx.ir import UnsupportedError

TIES = np.random.default_rng(0).integers(-3, 4, (3, 4, 5, 6)).astype(np.float32)
"""Small whole numbers: most maxima occur several times."""


def model_of(op, constants=(), outputs=(("y", TensorProto.FLOAT),), **attributes):
    arrays = [numpy_helper.from_array(np.asarray(array), f"c{index}") for index, array in enumerate(constants)]
    node = helper.make_node(op, ["x", *(array.name for array in arrays)], [name for name, _ in outputs], name=op, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *TIES.shape[1:]])],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def assert_same(model, tolerance=0.0):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": TIES})
    found = regenerate(onnx_ir.serde.deserialize_model(model))(TIES)
    found = list(found.values()) if isinstance(found, dict) else [found]
    for tensor, array in zip(found, expected, strict=True):
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_allclose(tensor.numpy(), array, rtol=0, atol=tolerance, strict=True)


POSITIONS = (("y", TensorProto.INT64),)


@pytest.mark.parametrize("axis", [1, -1])
def test_log_softmax(axis):
    assert_same(model_of("LogSoftmax", axis=axis), 2e-6)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize(("axis", "keepdims"), [(1, 1), (1, 0), (-1, 0), (2, 1)])
def test_the_first_of_several(op, axis, keepdims):
    assert_same(model_of(op, outputs=POSITIONS, axis=axis, keepdims=keepdims))


def test_the_last_of_several_is_refused():
    with pytest.raises(UnsupportedError, match=r"select_last_index=0 is expected\. Received: 1$"):
        regenerate(onnx_ir.serde.deserialize_model(model_of("ArgMax", outputs=POSITIONS, select_last_index=1)))


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("largest", [0, 1])
def test_elements_and_positions_in_order(axis, largest):
    both = (("v", TensorProto.FLOAT), ("i", TensorProto.INT64))
    assert_same(model_of("TopK", [np.array([3])], both, axis=axis, largest=largest))


@pytest.mark.parametrize(
    ("kernel", "dilations", "strides", "pads"),
    [
        ([2, 3], [2, 2], [1, 1], [0, 0, 0, 0]),
        ([2, 2], [3, 2], [2, 1], [1, 0, 0, 1]),
        ([3, 3], [2, 2], [1, 1], [2, 2, 2, 2]),  # SAME
        ([1, 2], [1, 5], [1, 1], [0, 0, 0, 0]),  # one window
    ],
)
def test_dilated_maxima(kernel, dilations, strides, pads):
    assert_same(model_of("MaxPool", kernel_shape=kernel, dilations=dilations, strides=strides, pads=pads))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", [[0, 0, -1, 2, 0, 0, 1, -3], [0, -1, -1, -1, 0, -1, -1, -2], [0, 0, -4, 0, 0, 0, 0, 0]])
def test_negative_pads_crop(mode, pads):
    assert_same(model_of("Pad", [np.array(pads)], mode=mode))
