"""Foreign models made by hand, and the file as it was as the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


def network(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 13,
    ir_version: int = 8,
    shape: Sequence[Any] = ("N", 3, 8, 8),
    inputs: Mapping[str, Sequence[Any]] | None = None,
    outputs: Sequence[str] = ("y",),
    output_type: int = TensorProto.FLOAT,
    output_shape: Sequence[Any] | None = None,
    **more: Any,
) -> onnx.ModelProto:
    """A model with the input `x` of the given shape; shapes of outputs are left to inference."""
    graph = helper.make_graph(
        list(nodes),
        "foreign",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (inputs or {"x": shape}).items()],
        [helper.make_tensor_value_info(name, output_type, output_shape) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    if ir_version < 4:  # where initializers had to be inputs
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **more)
    if output_shape is None and opset < 100:
        ranked(model)
    return model


def ranked(model: onnx.ModelProto) -> None:
    """Old checkers want outputs with a shape."""
    inferred = onnx.shape_inference.infer_shapes(model)
    found = {value.name: value for value in inferred.graph.output}
    for value in model.graph.output:
        if found[value.name].type.tensor_type.HasField("shape"):
            value.CopyFrom(found[value.name])
        else:
            value.type.tensor_type.shape.SetInParent()


def session(serialized: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


def run(model: onnx_ir.Model, feeds: Mapping[str, Array], *, singly: bool = False) -> list[Array]:
    """onnxruntime without optimizations; `singly` runs example by example, whatever batch the model wants."""
    loaded = session(onnx_ir.serde.serialize_model(model).SerializeToString())
    if not singly:
        return loaded.run(None, dict(feeds))
    shape = loaded.get_inputs()[0].shape
    size = shape[0] if shape and isinstance(shape[0], int) else 1
    parts = [
        loaded.run(None, {name: np.repeat(array[row : row + 1], size, axis=0) for name, array in feeds.items()})
        for row in range(len(next(iter(feeds.values()))))
    ]
    return [np.concatenate([array[:1] for array in column]) for column in zip(*parts, strict=True)]


def feeds_of(model: onnx_ir.Model, batch: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        str(value.name): rng.normal(size=[dim if isinstance(dim, int) else batch for dim in value.shape or ()]).astype(np.float32)
        for value in model.graph.inputs
    }


@pytest.fixture(name="made")
def maker() -> Any:
    """`made(nodes, constants, opset=..., shape=...)`: a model."""
    return network


@pytest.fixture(name="adopted")
def adoption(tmp_path: Path) -> Any:
    """`adopted(proto)`: the file is adopted, optimized, and both forms give the file's numbers; returns the adopted model."""
    from tqt_onnx.frontend_onnx import adopt, as_written
    from tqt_onnx.ir import IR_VERSION, OPSET
    from tqt_onnx.passes import optimize

    def check(proto: onnx.ModelProto, input_shape: Sequence[int] | None = None, *, exact: bool = True) -> onnx_ir.Model:
        path = tmp_path / "foreign.onnx"
        path.write_bytes(proto.SerializeToString())
        model = adopt(path, input_shape)
        assert (model.opset_imports, model.ir_version) == ({"": OPSET}, IR_VERSION)
        names = [node.name for node in model.graph]
        assert all(names) and len(set(names)) == len(names)
        constants = {tensor.name for tensor in proto.graph.initializer}
        assert [value.name for value in model.graph.inputs] == [v.name for v in proto.graph.input if v.name not in constants]
        assert [value.name for value in model.graph.outputs] == [value.name for value in proto.graph.output]
        feeds = feeds_of(model)
        onnx.checker.check_model(onnx_ir.serde.serialize_model(model), full_check=True)
        expected = run(as_written(path), feeds, singly=True)
        for left, right in zip(expected, run(model, feeds, singly=True), strict=True):
            assert (left.shape, left.dtype) == (right.shape, right.dtype)
            if exact:  # nothing is rewritten: the same kernels on the same numbers
                np.testing.assert_array_equal(left, right)
        optimized = model.clone()
        optimize(optimized)
        for left, right in zip(expected, run(optimized, feeds), strict=True):  # and a batch keeps its examples apart
            assert (left.shape, left.dtype) == (right.shape, right.dtype)
            # folding rounds each weight once (2^-24) and changes the order of sums of at most a few hundred terms
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * max(float(np.abs(left).max()), 1e-6))
        return model

    return check
