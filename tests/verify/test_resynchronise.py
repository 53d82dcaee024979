"""A layer without certificate is not promised; everything behind its integers is, and nothing is promised in vain."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
import pytest

from tqt_onnx.ir import DataError
from tqt_onnx.verify import Oracle, certify, check_engines, tapped_runner
from tqt_onnx.verify.resynchronise import first_observed, observed_in

TAPS = 30_000


def network(net, *, sign=1, upper=None, island=False, first=1):
    """Dense over 30000 taps (uncertified) -> relu -> dense 8 -> 4 -> dense 4 -> 2; the last two are certified."""
    rng = np.random.default_rng(1)
    n = net(["n", TAPS])
    w = rng.integers(-127, 128, (TAPS, 8))
    w[0, 0] = first
    a = n.quantized("x", "a", 0, "u8")
    d = n.op("Gemm", [a, n.weight("w", w, 0), n.weight("b", rng.integers(-99, 99, 8), 0, "i32")], "d")
    y = n.quantized(n.op("Relu", [d], "r"), "y", 14, "u8", upper)
    if island:
        y = n.quantized(n.op("Sin", [y], "sine"), "s", -8, "u8")
    e = n.op("MatMul", [y, n.weight("w2", sign * rng.integers(-127, 128, (8, 4)), -22 if not island else 0)], "e")
    z = n.quantized(e, "z", -2, "i8")
    f = n.op("MatMul", [z, n.weight("w3", sign * rng.integers(-127, 128, (4, 2)), -7)], "f")
    return n.model(n.quantized(f, "o", 0, "i8"))


@pytest.fixture(name="x", scope="module")
def inputs():
    return np.random.default_rng(2).integers(0, 256, (8, TAPS)).astype(np.float32)


def off_by_one(model, *, also=(), without=()):
    """An engine that rounds the layer without certificate otherwise, and goes on exactly from there."""
    oracle = Oracle(model)

    def run(feeds):
        near = (oracle.run(feeds)["y__q"].integers ^ 1).astype(np.uint8)
        tensors = {"y__q": near, **{name: v.integers for name, v in oracle.run(feeds, {"y__q": near}).items() if name != "y__q"}}
        for name in also:
            tensors[name] = tensors[name] ^ 1
        return {name: array for name, array in tensors.items() if name not in without}

    return run


@pytest.mark.parametrize("upper", [None, 200])
def test_behind_an_uncertified_layer_the_check_goes_on(net, x, upper):
    model = network(net, upper=upper)
    assert [c.certified for c in certify(model)] == [False, True, True]
    without = ("y__r",) if upper else ()  # an engine need not show what it clips
    outputs = ("y", "z", "o")
    result = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": off_by_one(model, without=without + outputs)})
    assert result.differences == ()
    assert [d.tensor for d in result.not_certified] == ["y__q"]
    assert result.ok
    assert not result.nothing_certified
    assert result.promised == {"tf": x.size + 8 * (4 + 2)}
    wrong = off_by_one(model, also=["z__q"], without=without + outputs)
    result = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": wrong})
    assert [d.tensor for d in result.differences] == ["z__q"]
    assert not result.ok


@pytest.mark.parametrize("island", [False, True])
@pytest.mark.parametrize("engine", ["ort", "ort-optimized"])
def test_a_fault_behind_an_uncertified_layer_is_found(net, x, engine, island):
    model, mutant = network(net, island=island), network(net, sign=-1, island=island)
    assert check_engines(model, [{"x": x}]).ok
    result = check_engines(model, [{"x": x}], models={engine: mutant})
    found = {(d.engine, d.tensor) for d in result.differences}
    assert {(engine, "w2__q"), (engine, "w3__q")} < found
    assert ((engine, "z__q") if engine == "ort" else ("ort-optimized-cut", "o")) in found
    assert not (result.ok or result.exact)


def test_two_uncertified_layers_in_a_row_and_the_certified_one_behind_them(net):
    taps = 600
    rng = np.random.default_rng(3)
    n = net(["n", taps])
    y = n.quantized("x", "a", 0, "i8")
    for name, width, e in (("p", taps, 10), ("q", 8, 10)):
        y = n.quantized(
            n.op("MatMul", [y, n.weight(f"w{name}", rng.integers(-127, 128, (taps, width)), 0, "i16")], f"{name}m"), name, e, "i16"
        )
    n.quantized(n.op("MatMul", [y, n.weight("v", rng.integers(-9, 9, (8, 3)), 0)], "om"), "o", 12, "i16")
    model = n.model("o")
    assert [c.certified for c in certify(model)] == [True, False, True]
    x = rng.integers(-128, 128, (5, taps)).astype(np.float32)
    result = check_engines(model, [{"x": x}])
    assert result.ok
    assert {d.tensor for d in result.not_certified} <= {"q__q", "o"}
    assert result.promised["ort-optimized-cut"] == 5 * (taps + 3)  # p in front of the second layer, o behind it


def test_nothing_promised_was_compared(net, x):
    model = network(net)
    blind = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": off_by_one(model, without=["z__q", "o__q", "z", "o"])})
    assert blind.differences == ()
    assert blind.layers_not_compared == ("e", "f")
    assert blind.not_compared == ("z__q", "o__q")
    assert not (blind.ok or blind.exact)
    outputs = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": off_by_one(model, without=["y__q"])})
    assert outputs.layers_not_compared == ("e", "f")  # compared, but without the integers in front of them
    assert not (outputs.ok or outputs.exact)


def test_a_constant_that_no_data_shows_is_named(net, x):
    model, mutant = network(net), network(net, first=3)
    x = x.copy()
    x[:, 0] = 0
    for batches in ([{"x": x}], []):
        result = check_engines(model, batches, models={"ort": mutant, "ort-optimized": mutant})
        (first, second) = result.differences
        assert [(d.engine, d.tensor, d.count, d.total) for d in (first, second)] == [
            (engine, "w__q", 1, TAPS * 8) for engine in ("ort", "ort-optimized")
        ]
        assert (first.first_index, first.expected, first.received) == ((0, 0), 1, 3)
        assert not (result.ok or result.exact)
    assert check_engines(model, [{"x": x}], models={"oracle": mutant}).differences[0].tensor == "w__q"


def test_constants_that_a_runner_returns_are_compared(net, x):
    model = network(net)
    tapped = tapped_runner(model)
    weights = model.graph.initializers["w2__q"].const_value.numpy().astype(np.int32)
    right = check_engines(model, [{"x": x}] * 2, ("oracle", "tf"), {"tf": lambda f: {**tapped(f), "w2__q": weights}})
    assert right.ok
    assert right.integers == check_engines(model, [{"x": x}] * 2, ("oracle", "tf"), {"tf": tapped}).integers
    wrong = check_engines(model, [{"x": x}] * 2, ("oracle", "tf"), {"tf": lambda f: {**tapped(f), "w2__q": weights ^ 1}})
    assert [(d.engine, d.tensor, d.count, d.total) for d in wrong.differences] == [("tf", "w2__q", 32, 32)]
    with pytest.raises(DataError, match="w2__q"):
        check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": lambda f: {**tapped(f), "w2__q": weights.T}})


def test_operators_are_counted_in_the_session_that_runs(net, monkeypatch):
    n = net(["n", 3])
    model = n.model(
        n.quantized(n.op("MatMul", [n.quantized("x", "a", 0, "i8"), n.weight("w", [[1], [2], [3]], 0)], "m"), "y", 0, "i8")
    )
    sessions, true = [], onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: sessions.append(a) or true(*a, **k))
    result = check_engines(model, [{"x": np.ones((2, 3), np.float32)}])
    assert result.ok
    assert sum(result.fused.values()) > 0
    assert len(sessions) == 2  # tapped, optimized


def shown_by(model, name):
    """By definition: the integers one sees first behind a value, what a Clip makes of them, and what they are dequantized to."""
    shown = set(first_observed(model, [name]))
    for node in model.graph:
        if node.op_type in {"Clip", "DequantizeLinear"} and node.inputs[0].name in shown:
            shown.update(value.name for value in node.outputs)
    return shown


def branches(net):
    """Clips of integers and of floats, a fork, an Add of both branches, outputs on the way and float behind them."""
    n = net(["n", 4])
    a = n.quantized("x", "a", 0, "i8")
    m = n.op("MatMul", [a, n.weight("w", np.eye(4), 0)], "m")
    b = n.quantized(n.op("Relu", [m], "r"), "b", 1, "u8", upper=60)
    c = n.quantized(n.op("Clip", [m, n.constant("low", np.float32(-3))], "clip"), "c", 1, "i8")
    t = n.op("Transpose", [n.op("Add", [b, c], "sum")], "t", perm=[0, 1])
    n.op("Sin", [n.quantized(t, "d", 2, "i8")], "sine")
    return n.model("t", "clip", "sine", "b")


def test_one_walk_finds_what_each_value_is_observed_in(net):
    for model in (branches(net), network(net, upper=200), network(net, island=True)):
        names = [value.name for node in model.graph for value in node.outputs]
        shown = {name: shown_by(model, name) for name in names}
        for seen in names:
            assert observed_in(model, {seen}) & set(names) == {name for name in names if seen in shown[name]}, seen


def test_many_layers_take_no_longer_each(net):
    """4,000 nodes: with a walk over the graph for every layer it took seconds."""
    n = net(["n", 2])
    value = n.quantized("x", "a", 0, "i8")
    for index in range(1000):
        value = n.quantized(n.op("MatMul", [value, n.weight(f"w{index}", np.eye(2), 0)], f"m{index}"), f"y{index}", 0, "i8")
    model = n.model(value)
    start = time.perf_counter()
    assert {f"m{index}" for index in range(1000)} <= observed_in(model, {"y999__q"} | {f"y{index}" for index in range(999)})
    assert time.perf_counter() - start < 1
