"""The rewrites of target `qdq` one by one, on graphs made by hand: onnxruntime gives the same numbers before and behind them."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.export.qdq_rewrites.bounds import round_before_clips
from tqt_onnx.export.qdq_rewrites.storage import store_unsigned
from tqt_onnx.verify import FixedPoint, Oracle, run_optimized

TWICE = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,256] x) => (float[N,256] y, float[N,256] z)
  <float scale = {0.125}, int8 zero = {0}, int8 low = {-100}, int8 high = {90}>
{
  [q] x__r = QuantizeLinear(x, scale, zero)
  [c] x__q = Clip(x__r, low, high)
  [d0] y = DequantizeLinear(x__q, scale, zero)
  [d1] z = DequantizeLinear(x__q, scale, zero)
}"""


def test_everybody_who_dequantizes_a_tensor_gets_its_new_zero_point() -> None:
    model = onnx_ir.from_onnx_text(TWICE)
    x = np.linspace(-20, 20, 256, dtype=np.float32)[None]
    expected = run_optimized(model, {"x": x})
    assert store_unsigned(model.graph) == 1
    received = run_optimized(model, {"x": x})
    for name in "yz":
        np.testing.assert_array_equal(received[name], expected[name])
        assert (received[name].min(), received[name].max()) == (-12.5, 11.25)


CLIPPED = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,1,1,1] x) => (float[N,1,1,1] y)
  <float fine = {0.125}, float coarse = {0.25}, int8 zero = {0}, TYPE zero_y = {0}, int8[1,1,1,1] w = {1}, float one = {1.0},
   float low = {LOW}, float high = {HIGH}, TYPE narrow = {NARROW}, TYPE wide = {21}>
{
  [q0] x__q = QuantizeLinear(x, fine, zero)
  [d0] x_ = DequantizeLinear(x__q, fine, zero)
  [dw] w_ = DequantizeLinear(w, one, zero)
  [conv] s = Conv<kernel_shape = [1, 1]>(x_, w_)
  CHAIN
  [q1] y__r = QuantizeLinear(c, coarse, zero_y)
  BEHIND
  [d1] y = DequantizeLinear(y__q, coarse, zero_y)
}"""

CHAINS = {
    "clip": "[c] c = Clip(s, low, high)",
    "two clips": "[c0] t = Clip(s, low) [c] c = Clip(t, , high)",
    "other order": "[c0] t = Clip(s, , high) [r] u = Relu(t) [c] c = Clip(u, low)",
}


@pytest.mark.parametrize("behind", ["", "narrow, wide", "narrow"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("low", "high"), [(-0.625, 0.875), (-0.375, 1.125), (-50, 3.1), (0.1, 90)])  # halves of a step: ties
@pytest.mark.parametrize("signed", [True, False])
def test_bounds_behind_the_rounding_are_the_same_integers(signed: bool, low: float, high: float, chain: str, behind: str) -> None:
    """All 256 inputs; then the same with unsigned storage."""
    text = CLIPPED.replace("CHAIN", CHAINS[chain]).replace("LOW", str(low)).replace("HIGH", str(high))
    text = text.replace("NARROW", "-2" if signed else "1").replace("TYPE", "int8" if signed else "uint8")
    text = text.replace("BEHIND", f"[k] y__q = Clip(y__r, {behind})" if behind else "")
    model = onnx_ir.from_onnx_text(text if behind else text.replace("y__r", "y__q"))
    x = (np.arange(-128, 128, dtype=np.float32) / 8).reshape(-1, 1, 1, 1)
    expected = Oracle(model).run({"x": x})["y"]
    assert isinstance(expected, FixedPoint)
    moved = model.clone()
    assert round_before_clips(moved.graph) == CHAINS[chain].count("=")
    (conv,) = (node for node in moved.graph if node.op_type == "Conv")
    assert {reader.op_type for reader, _ in conv.outputs[0].uses()} == {"QuantizeLinear"}
    np.testing.assert_array_equal(run_optimized(moved, {"x": x})["y"], expected.real())
    assert store_unsigned(moved.graph) == 1 + signed
    np.testing.assert_array_equal(run_optimized(moved, {"x": x})["y"], expected.real())


PAIR = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,256] x) => (float[N,256] y)
  <float fine = {0.125}, float coarse = {0.5}, uint8 unsigned = {0}, int8 signed = {0}>
{
  [q0] x__q = QuantizeLinear(x, fine, FIRST)
  [d0] x_ = DequantizeLinear(x__q, fine, FIRST)
  BETWEEN
  [q1] y__q = QuantizeLinear(r, coarse, SECOND)
  [d1] y = DequantizeLinear(y__q, coarse, SECOND)
}"""


@pytest.mark.parametrize("between", ["r = Identity(x_)", "r = Relu(x_)"])
@pytest.mark.parametrize(("first", "second"), [("unsigned", "signed"), ("signed", "unsigned")])
def test_two_roundings_in_a_row_never_get_one_type(first: str, second: str, between: str) -> None:
    """onnxruntime would merge them into one, which rounds ties of the first otherwise (O5)."""
    model = onnx_ir.from_onnx_text(PAIR.replace("BETWEEN", between).replace("FIRST", first).replace("SECOND", second))
    x = np.linspace(-3, 9, 256, dtype=np.float32)[None]
    expected = run_optimized(model, {"x": x})["y"]
    assert store_unsigned(model.graph) == 0
    np.testing.assert_array_equal(run_optimized(model, {"x": x})["y"], expected)
    merged = onnx_ir.from_onnx_text(PAIR.replace("BETWEEN", "r = Identity(x_)").replace("FIRST", second).replace("SECOND", second))
    rounded_once = run_optimized(merged, {"x": x})["y"]
    twice = Oracle(merged).run({"x": x})["y"]
    assert isinstance(twice, FixedPoint)
    assert (rounded_once != twice.real()).any()
