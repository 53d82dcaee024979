"""What every test of a pass does: ONNX text before and after, onnxruntime's numbers, idempotence, names kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from tqt_onnx.passes.base import Pass, check_well_formed, run_passes
from tqt_onnx.passes.infer_shapes import InferShapes

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'

RELATIVE = 1e-5
"""Folding rounds each weight once (2^-24) and changes the order of sums of at most a few thousand terms."""


MEANING = 1e-3
"""Deep inside a network the roundings of folded weights have grown, while another tensor is off by far more."""


def parse(text: str, arrays: Mapping[str, np.ndarray] | None = None) -> onnx_ir.Model:
    """ONNX text (header optional) with further initializers by name; shapes inferred."""
    tensors = [onnx_ir.tensor(array, name=name) for name, array in (arrays or {}).items()]
    model = onnx_ir.from_onnx_text(text if text.lstrip().startswith("<ir") else HEADER + text, initializers=tensors)
    model = onnx_ir.serde.deserialize_model(onnx_ir.serde.serialize_model(model))  # nodes read the added initializers
    InferShapes().apply(model)
    return model


def show(model: onnx_ir.Model, *, values: bool = True) -> str:
    """A canonical text: boundary, initializers in order of name, nodes in order of the graph."""
    graph = model.graph
    boundary = [
        f"{side} {value.name} {value.dtype} {value.shape}" for side in ("inputs", "outputs") for value in getattr(graph, side)
    ]
    constants = []
    for name in sorted(graph.initializers):
        array = graph.initializers[name].const_value.numpy()
        if array.dtype.kind == "f":
            array = array + 0.0  # -0.0 is written as 0
        data = np.array2string(array.reshape(-1), precision=5, threshold=10**6, max_line_width=10**6) if values else ""
        constants.append(f"{name} {array.dtype}{list(array.shape)} {data}")
    nodes = []
    for node in graph:
        attributes = ", ".join(f"{name}={_plain(node.attributes[name].value)}" for name in sorted(node.attributes))
        reads = ", ".join("" if value is None else str(value.name) for value in node.inputs)
        nodes.append(f"{', '.join(str(value.name) for value in node.outputs)} = {node.op_type}<{attributes}>({reads})")
    return "\n".join([*boundary, *constants, *nodes])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def run(model: onnx_ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """onnxruntime without its own optimizations, after the full checker."""
    proto = onnx_ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def tapped(model: onnx_ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> numbers of every value that a node computes; constants keep their names when something is folded into them."""
    copy = model.clone()
    InferShapes().apply(copy)
    computed = [node for node in copy.graph if node.op_type != "Constant"]
    values = [value for node in computed for value in node.outputs if value.name and value.dtype is not None]
    proto = onnx_ir.serde.serialize_model(copy)
    del proto.graph.output[:]
    for value in values:
        proto.graph.output.add(name=value.name).type.tensor_type.elem_type = value.dtype.value
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in values], session.run(None, dict(feeds)), strict=True))


def assert_names_mean_the_same(before: Mapping[str, np.ndarray], model: onnx_ir.Model, feeds: Mapping[str, np.ndarray]) -> None:
    """Every name of a computed value, where it is still there, stands for the same numbers, in whatever order of axes."""
    after = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()} | tapped(model, feeds)
    for name in before.keys() & after.keys():
        left, right = (np.sort(numbers, axis=None) for numbers in (before[name], after[name]))
        assert left.shape == right.shape, f"{name} has another size"
        limit = MEANING * max(float(np.abs(left).max(initial=0)), 1e-6)
        np.testing.assert_allclose(left, right, rtol=0, atol=limit, err_msg=f"{name} means another tensor")


def feeds_of(model: onnx_ir.Model, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal numbers, some of them exactly zero; unknown dimensions are `batch`."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        array = rng.normal(size=[dim if isinstance(dim, int) else batch for dim in value.shape]).astype(np.float32)
        array.reshape(-1)[::7] = 0
        feeds[value.name] = array
    return feeds


def assert_close(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    """Same shapes and dtypes; differences below RELATIVE of the largest magnitude."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=RELATIVE * max(float(np.abs(a).max(initial=0)), 1e-6))


def assert_idempotent(step: Pass, model: onnx_ir.Model) -> None:
    """A second application answers False and leaves the text as it is."""
    before = onnx_ir.to_onnx_text(model)
    assert step.apply(model) is False, f"{step.name} changes its own result"
    assert onnx_ir.to_onnx_text(model) == before


@pytest.fixture
def golden() -> Callable[..., onnx_ir.Model]:
    """`golden(pass, before, after, arrays=..., after_arrays=...)`: the rewrite, its numbers, its names, its second run."""

    def check(
        step: Pass,
        before: str,
        after: str,
        arrays: Mapping[str, np.ndarray] | None = None,
        after_arrays: Mapping[str, np.ndarray] | None = None,
    ) -> onnx_ir.Model:
        model = parse(before, arrays)
        feeds = feeds_of(model)
        expected, meaning = run(model, feeds), tapped(model, feeds)
        assert run_passes(model, [step]) is True
        assert show(model) == show(parse(after, after_arrays))
        check_well_formed(model)
        assert_close(expected, run(model, feeds))
        assert_names_mean_the_same(meaning, model, feeds)
        assert_idempotent(step, model)
        return model

    return check


@pytest.fixture
def untouched() -> Callable[..., None]:
    """`untouched(pass, text)`: the pass answers False and the text is unchanged."""

    def check(step: Pass, text: str, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        model = parse(text, arrays)
        before = onnx_ir.to_onnx_text(model)
        assert step.apply(model) is False
        assert onnx_ir.to_onnx_text(model) == before

    return check


@pytest.fixture
def rewritten() -> Callable[..., onnx_ir.Model]:
    """`rewritten(passes, text)`: the passes run, numbers, boundary and what names mean stay; the model is returned."""

    def check(steps: list[Pass], text: str | onnx_ir.Model, arrays: Mapping[str, np.ndarray] | None = None) -> onnx_ir.Model:
        model = parse(text, arrays) if isinstance(text, str) else text
        feeds = feeds_of(model)
        expected, meaning = run(model, feeds), tapped(model, feeds)
        boundary = show(model, values=False).split("\n")[: len(model.graph.inputs) + len(model.graph.outputs)]
        run_passes(model, steps)
        assert show(model, values=False).split("\n")[: len(boundary)] == boundary  # O3
        assert_close(expected, run(model, feeds))
        assert_names_mean_the_same(meaning, model, feeds)
        return model

    return check


@pytest.fixture
def onnx_text() -> Callable[..., onnx_ir.Model]:
    """`onnx_text(text, arrays)`: a model with inferred shapes."""
    return parse
