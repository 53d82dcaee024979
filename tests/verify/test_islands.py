"""Floats: what is an island, what is computed there, and how a comparison starts afresh behind it."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.verify import FixedPoint, Oracle, Session, check_engines


def test_softmax_is_float(net):
    n = net(["n", 3])
    n.op("Softmax", [n.quantized("x", "a", -3, "i8")], "y", axis=1)
    oracle = Oracle(n.model("y"))
    out = oracle.run({"x": np.array([[1.0, 2.0, -3.0]], np.float32)})
    assert isinstance(out["a__q"], FixedPoint)
    assert out["y"].dtype == np.float64
    assert np.allclose(out["y"], [[math.exp(v) / sum(map(math.exp, (1, 2, -3))) for v in (1, 2, -3)]], rtol=1e-14)
    (island,) = oracle.islands
    assert (island.node, island.op_type, island.reason) == ("y", "Softmax", "Softmax has no integer form")


def test_float_weights_make_an_island(net):
    n = net(["n", 2])
    n.quantized(n.op("MatMul", [n.quantized("x", "a", 0, "i8"), n.constant("w", np.float32([[0.3], [0.7]]))], "m"), "y", -4, "i8")
    oracle = Oracle(n.model("y"))
    assert [(i.node, i.reason) for i in oracle.islands] == [("m", "an input is not fixed point")]
    assert oracle.run({"x": np.array([[1.0, 5.0]], np.float32)})["y__q"].integers.tolist() == [[61]]  # 3.8 * 16 = 60.8


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_normalization_is_the_standards(net, size):
    """onnxruntime has it right; onnx's reference leaves out the last channel of each window. It takes odd sizes only."""
    n = net(["n", 6, 2, 2])
    n.op("LRN", [n.quantized("x", "a", -5, "i8")], "y", size=size, alpha=0.7, beta=0.6, bias=2.0)
    model = n.model("y")
    x = np.random.default_rng(size).normal(size=(3, 6, 2, 2)).astype(np.float32)
    expected = Session(model).run({"x": x})["y"]
    assert np.allclose(Oracle(model).run({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)  # float32 against float64


def test_transpose_before_the_input_quantizer_is_no_island(net):
    n = net(["n", 2, 1])
    n.quantized(n.op("Transpose", ["x"], "t", perm=[0, 2, 1]), "a", 0, "i8")
    oracle = Oracle(n.model("a"))
    assert oracle.islands == ()
    assert oracle.plan.resynchronise == ()
    assert oracle.run({"x": np.array([[[1.0], [2.0]]], np.float32)})["a__q"].integers.tolist() == [[[1, 2]]]


def island_net(net):
    n = net(["n", 4])
    a = n.quantized("x", "a", -3, "i8")
    s = n.quantized(n.op("Sin", [a], "sine"), "s", -8, "u8")
    n.quantized(n.op("MatMul", [s, n.weight("w", [[1, 2], [3, -4], [5, 6], [7, 8]], -3)], "m"), "y", -6, "i16")
    return n.model("y")


def test_overrides_act_behind_the_tensor(net):
    oracle = Oracle(island_net(net))
    assert oracle.plan.resynchronise == ("s__q",)
    x = np.array([[1.0, -1.0, 0.0, 8.0]], np.float32)
    plain = oracle.run({"x": x})
    assert plain["s__q"].integers.tolist() == [[round(256 * math.sin(1.0)), 0, 0, round(256 * math.sin(8.0))]]
    forced = oracle.run({"x": x}, {"s__q": np.array([[0, 0, 1, 0]], np.uint8)})
    assert forced["s__q"].integers.tolist() == plain["s__q"].integers.tolist()
    assert forced["y__q"].integers.tolist() == [[0, 0]]  # 5 / 32 and 6 / 32
    forced = oracle.run({"x": x}, {"s__q": np.array([[0, 0, 0, 255]], np.uint8)})
    assert forced["y__q"].integers.tolist() == [[round(7 * 255 / 32), round(8 * 255 / 32)]]


def test_check_starts_afresh_behind_an_island(net):
    model = island_net(net)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    oracle = Oracle(model)

    def off_by_one(feeds):
        step = (oracle.run(feeds)["s__q"].integers ^ 1).astype(np.uint8)
        return {"s__q": step, "y__q": oracle.run(feeds, {"s__q": step})["y__q"].integers}

    result = check_engines(model, [{"x": x}], ("oracle", "near"), {"near": off_by_one})
    assert result.ok
    assert result.integers == {"near": 18}
    assert [(f.tensor, f.largest_error) for f in result.floats] == [("s__q", 1.0)]

    def far(feeds):
        tensors = off_by_one(feeds)
        return {**tensors, "s__q": tensors["s__q"] + np.uint8(3)}

    assert not check_engines(model, [{"x": x}], ("oracle", "far"), {"far": far}).ok


def test_without_the_integers_behind_an_island_nothing_is_promised(net):
    model = island_net(net)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)

    def own_output_only(feeds):
        return {"y": Oracle(model).run(feeds)["y"].real() + 2.0**-6}

    result = check_engines(model, [{"x": x}], ("oracle", "far"), {"far": own_output_only})
    assert result.differences == ()
    assert [d.tensor for d in result.not_certified] == ["y"]
    assert result.layers_not_compared == ("m",)
    assert not (result.ok or result.exact)


def test_the_part_behind_an_island_runs_with_all_optimizations(net):
    model, mutant = island_net(net), island_net(net)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    result = check_engines(model, [{"x": x}])
    assert result.ok
    assert result.promised["ort-optimized"] == 0
    assert result.promised["ort-optimized-cut"] == 9 * 4 + 9 * 2  # a in front of the island, y behind it
    scale = next(node.inputs[1] for node in mutant.graph if node.outputs[0].name == "y__q")
    scale.const_value = onnx_ir.tensor(np.float32(2.0**-5))
    result = check_engines(model, [{"x": x}], models={"ort-optimized": mutant})
    assert [(d.engine, d.tensor) for d in result.differences] == [("ort-optimized-cut", "y")]
    assert not result.ok


@pytest.mark.parametrize("domain", ["", "com.example"])
def test_unknown_operators_never_crash(net, domain):
    n = net(["n", 2])
    a = n.quantized("x", "a", 0, "i8")
    n.op("NoSuchOperator", [a], "z", domain=domain)
    n.quantized("z", "y", 0, "i8")
    oracle = Oracle(n.model("y"))
    out = oracle.run({"x": np.ones((1, 2), np.float32)})
    assert list(out) == ["a__q"]
    assert [island.op_type for island in oracle.islands] == ["NoSuchOperator"]
    out = oracle.run({"x": np.ones((1, 2), np.float32)}, {"y__q": np.array([[3, 4]])})
    assert out["y"].integers.tolist() == [[3, 4]]
