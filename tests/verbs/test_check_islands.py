"""Operators between quantized values: what onnxruntime must load, and what `quantize` and `check` both call float."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx.reference import ReferenceEvaluator

import tqt_onnx
from tqt_onnx.passes import BitWidths

X = np.random.default_rng(1).normal(size=(5, 3, 6, 6)).astype(np.float32)

MOVERS = {
    "slice": "o = Slice(v, low, to, axes, steps)",
    "backwards": "o = Slice(v, last, first, axis, back)",
    "of the batch": "o = Slice(v, one, four)",
    "computed": "size = Shape<start = 3>(x) o = Slice(v, one, size, axis)",
    "twice": "s = Slice(v, low, to, axes, steps) o = Slice(s, one, four, axis)",
    "turned": "t = Transpose<perm = [0, 3, 1, 2]>(v) o = Slice(t, one, four, axis)",
    "picked": "o = Gather<axis = 2>(v, picks)",
    "one": "o = Gather<axis = -1>(v, single)",
    "Split": "o, p = Split<axis = 1, num_outputs = 2>(v)",
    "Expand": "s = Slice(v, one, two, axis) o = Expand(s, shape)",
    "Tile": "o = Tile(v, wide)",
    "Resize": """o = Resize<mode = "nearest">(v, , scales)""",
}
"""Only elements are moved: no number may change, and nothing is rounded again."""

FLOAT = {
    "ReduceMin": "o = ReduceMin(v, axis)",
    "Mul of floats": "t = Sin(v) o = Mul(t, t)",
    "Sin": "t = Sin(v) o = Slice(t, one, four, axis)",
}
"""Float islands."""

EXACT = {
    "Mul": "o = Mul(v, d)",
    "Max": "o = Max(v, d)",
    "Min": "o = Min(d, v, d)",
    "Mul of a Mul": "m = Mul(v, d) o = Mul(m, d)",
    "Mul of a moved one": "m = Transpose<perm = [0, 1, 3, 2]>(d) o = Mul(v, m)",
    "Mul of a Max": "m = Max(v, d) t = Transpose<perm = [0, 1, 3, 2]>(m) o = Mul(t, d)",
    "Mul of the input": "t = Slice(x, one, two, channel) o = Mul(t, d)",
}
"""Products of quantized values (L13) and choices among them (L5)."""


CONSTANTS = {
    "low": [0, 1], "to": [4, 5], "axes": [1, 2], "steps": [1, 2], "one": [1], "two": [2], "four": [4], "axis": [3],
    "last": [-1], "first": [-(2**63)], "back": [-1], "channel": [1], "picks": [2, -1], "single": 1,
    "wide": [1, 1, 2, 1], "shape": [1, 1, 1, 6], "scales": np.float32([1, 1, 2, 2]),
}  # fmt: skip


def network(body: str, *, unsigned: bool, behind: bool) -> onnx_ir.Model:
    """Two convolutions, perhaps a relu, the operator between `v` (and `d`) and `o`, and perhaps another layer."""
    relu = "v = Relu(c)" if unsigned else "v = Identity(c)"
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,6,6] x) => (float[] o)
      {{ c = Conv<kernel_shape = [1, 1]>(x, w, b) {relu} d = Conv<kernel_shape = [1, 1]>(x, u) {body} }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 1, 1), "b": (4,), "u": (4, 3, 1, 1)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {name: np.asarray(value) for name, value in CONSTANTS.items()}
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read)
    if behind:
        (moved,) = ReferenceEvaluator(proto).run(None, {"x": X})
        weights = rng.normal(size=(moved.shape[-1], 2)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "k"))
        proto.graph.node.append(onnx.helper.make_node("MatMul", ["o", "k"], ["y"], name="y"))
        proto.graph.output[0].name = "y"
    return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def quantized(body: str, *, layer: int, unsigned: bool, behind: bool) -> tqt_onnx.Quantization:
    return tqt_onnx.quantize(network(body, unsigned=unsigned, behind=behind), X, bits=BitWidths(layer=layer))  # type: ignore[arg-type]


WAYS = [(layer, unsigned, behind) for layer in (16, 32) for unsigned in (False, True) for behind in (False, True)]


@pytest.mark.parametrize("name", [*MOVERS, *FLOAT, *EXACT])
def test_onnxruntime_loads_it_and_both_call_the_same_nodes_float(name: str) -> None:
    for layer, unsigned, behind in WAYS:
        result = quantized({**MOVERS, **FLOAT, **EXACT}[name], layer=layer, unsigned=unsigned, behind=behind)
        checked = tqt_onnx.check(result.model, X)
        where = (layer, unsigned, behind)
        assert checked.differences == () and all(found.ok for found in checked.floats), where
        if name != "computed":
            assert [island.op_type for island in result.islands] == [island.op_type for island in checked.islands], where
        if name in FLOAT:
            assert checked.islands, where
        elif name != "computed":
            assert (checked.islands, checked.exact) == ((), True), where


@pytest.mark.parametrize("name", MOVERS)
def test_what_is_moved_is_not_rounded_again(name: str) -> None:
    """It carries the scale of what goes in (L7)."""
    for layer, unsigned, behind in WAYS:
        result = quantized(MOVERS[name], layer=layer, unsigned=unsigned, behind=behind)
        assert not {"o", "s", "t"} & {quantizer.value for quantizer in result.graph.quantizers}


@pytest.mark.parametrize("name", ["slice", "backwards", "picked", "one"])
def test_tensorflow_moves_the_same(name: str) -> None:
    for layer, unsigned, behind in WAYS[1:6]:
        result = quantized(MOVERS[name], layer=layer, unsigned=unsigned, behind=behind)
        assert tqt_onnx.check(result.model, X, engines=("tf",)).ok
