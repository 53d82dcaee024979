"""Engines against the oracle: equal where nothing is wrong, and a mutant is caught at exactly the tensor it changes."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir
import pytest

from tqt_onnx.ir import DataError, UsageError
from tqt_onnx.verify import (
    Oracle,
    bisect_optimized,
    certify,
    check_engines,
    compare,
    fused_operators,
    rounding_ops,
    run_optimized,
    run_tapped,
    tapped_runner,
)


def network(net, *, bit=0, exponent=0, upper=96, contract=32):
    """Conv + relu6, depthwise, residual add, max pool, average pool, dense, softmax; the keywords plant one fault."""
    rng = np.random.default_rng(5)
    n = net(["n", 8, 8, 3])
    a = n.quantized(n.op("Transpose", ["x"], "t", perm=[0, 3, 1, 2]), "a", -5, "i8")
    b = n.weight("b", rng.integers(-3000, 3000, 4), -13, "i32")
    y = n.conv([a, n.weight("w", rng.integers(-128, 128, (4, 3, 3, 3)), -8), b], "c__float", [3, 3], pads=[1] * 4)
    y = n.quantized(y, "c", -4, "u8", upper=upper)
    depthwise = rng.integers(-128, 128, (4, 1, 3, 3))
    depthwise[2, 0, 1, 1] ^= bit
    z = n.conv([y, n.weight("v", depthwise, -7)], "d__float", [3, 3], pads=[1] * 4, group=4)
    if contract == 16:
        z = n.quantized(z, "d__acc", -9, "i16")
        z = n.op("Add", [z, n.weight("d__bias", rng.integers(-3000, 3000, (4, 1, 1)), -9, "i16")], "d__sum")
    z = n.quantized(z, "d", -2 + exponent, "i8")
    s = n.quantized(n.op("Add", [z, n.quantized(y, "rescaled", -2, "i8")], "s__float"), "s", -2, "i8")
    p = n.quantized(n.op("MaxPool", [s], "p__float", kernel_shape=[2, 2], strides=[2, 2]), "p", -2, "i8")
    m = n.quantized(n.conv([p, n.weight("r", np.full((4, 1, 4, 4), 255), -12, "u8")], "m__float", [4, 4], group=4), "m", -2, "i8")
    f = n.quantized(n.op("Flatten", [m], "f__float"), "f", -2, "i8")
    g = n.op(
        "Gemm",
        [f, n.weight("u", rng.integers(-128, 128, (4, 5)), -7), n.weight("k", rng.integers(-99, 99, 5), -9, "i32")],
        "g__float",
    )
    return n.model(n.op("Softmax", [n.quantized(g, "g", -3, "i8")], "probabilities", axis=1))


@pytest.fixture(name="x", scope="module")
def images():
    return (np.random.default_rng(6).normal(size=(19, 8, 8, 3)) * 2).astype(np.float32)


@pytest.mark.parametrize("contract", [16, 32])
def test_onnxruntime_is_the_oracle(net, x, contract):
    model = network(net, contract=contract)
    result = check_engines(model, [{"x": x[:10]}, {"x": x[10:]}])
    assert result.differences == result.not_certified == ()
    assert result.ok
    assert result.certified
    assert result.images == 19
    assert result.engines == ("ort", "ort-optimized", "ort-optimized-cut")
    expected = Oracle(model).run({"x": x})
    assert result.integers["ort"] == sum(v.integers.size for name, v in expected.items() if name != "probabilities")
    assert result.integers["ort-optimized-cut"] == 19 * 5
    assert [(f.engine, f.tensor, f.total) for f in result.floats] == [(e, "probabilities", 95) for e in ("ort", "ort-optimized")]
    assert [island.node for island in result.islands] == ["probabilities"]
    assert result.fused["QLinearConv"] == (3 if contract == 32 else 2)
    assert result.first_optimized is None
    assert result.not_compared == ()
    decoded = json.loads(json.dumps(result.to_dict()))
    assert (decoded["ok"], decoded["certificates"][0]["certified"]) == (True, True)


def test_ties_are_counted(net, x):
    model = network(net)
    result = check_engines(model, [{"x": x}], ("oracle",))
    tensors = Oracle(model).run({"x": x})
    c, s = tensors["c__q"].integers, tensors["rescaled__q"].integers  # 2^-4 -> 2^-2: a tie is a remainder of 2
    assert s.shape == c.shape
    assert result.ties["rescaled__q"] == int((c % 4 == 2).sum())
    assert result.ties["rescaled__q"] > 0
    assert result.requantized["rescaled__q"] == c.size
    assert not result.ok  # the oracle alone proves nothing


@pytest.mark.parametrize(
    ("fault", "tensor"), [({"bit": 1}, "d__q"), ({"exponent": 1}, "d__q"), ({"exponent": -1}, "d__q"), ({"upper": 95}, "c__q")]
)
def test_a_mutated_model_is_caught_where_it_is_wrong(net, x, fault, tensor):
    model, mutant = network(net), network(net, **fault)
    result = check_engines(model, [{"x": x}], models={"ort": mutant, "ort-optimized": mutant})
    assert not result.ok
    computed = Oracle(model).plan.integers
    tapped = [d for d in result.differences if d.engine == "ort" and d.tensor in computed]
    assert tapped[0].tensor == tensor
    named = {d.tensor for d in result.differences if d.engine == "ort-optimized"} - {"probabilities"}
    assert named == ({"v__q"} if "bit" in fault else {"c__high"} if "upper" in fault else set())
    first = tapped[0]
    expected, received = Oracle(model).run({"x": x})[tensor].integers, Oracle(mutant).run({"x": x})[tensor].integers
    assert (first.expected, first.received) == (expected[first.first_index], received[first.first_index])
    assert np.array_equal(first.first_index, np.argwhere(expected != received)[0])
    assert (first.count, first.total) == ((expected != received).sum(), expected.size)
    assert result.first_optimized.tensor == tensor.removesuffix("__q")


def test_a_wrong_rounding_is_caught_where_the_first_tie_is(net, x):
    model = network(net)
    result = check_engines(model, [{"x": x}], ops=rounding_ops("half_up"))
    ties = {name: count for name, count in result.ties.items() if count}
    assert result.differences[0].tensor == next(iter(ties))
    assert result.differences[0].count <= next(iter(ties.values()))
    assert not result.ok


def test_an_injected_engine(net, x):
    model, mutant = network(net), network(net, bit=1)
    assert check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": tapped_runner(model)}).ok
    result = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": tapped_runner(mutant)})
    assert result.differences[0].tensor == "d__q"
    nothing = check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": lambda feeds: {}})
    assert not nothing.ok
    assert nothing.not_compared == Oracle(model).plan.integers
    with pytest.raises(DataError, match=r"tensor 'a__q'.*\(19, 3, 8, 8\).*Received: \(19, 8, 8, 3\)"):
        check_engines(model, [{"x": x}], ("oracle", "tf"), {"tf": lambda feeds: {"a__q": feeds["x"]}})
    with pytest.raises(UsageError, match=r"oracle, ort\. Received: 'tf'"):
        check_engines(model, [{"x": x}], ("oracle", "tf"))


def test_differences_of_later_batches_are_in_topological_order(net, x):
    model = network(net)
    true = tapped_runner(model)

    def wrong(feeds):
        tensors = {name: array.copy() for name, array in true(feeds).items()}
        tensors["d__q" if len(feeds["x"]) == 9 else "s__q"][1] ^= 1
        return tensors

    result = check_engines(model, [{"x": x[:10]}, {"x": x[10:]}], ("oracle", "tf"), {"tf": wrong})
    assert [(d.tensor, d.first_index, d.count, d.total) for d in result.differences] == [
        ("d__q", (11, 0, 0, 0), 4 * 64, 19 * 4 * 64),
        ("s__q", (1, 0, 0, 0), 4 * 64, 19 * 4 * 64),
    ]


def test_an_empty_batch(net, x):
    model = network(net)
    empty = Oracle(model).run({"x": x[:0]})
    whole = Oracle(model).run({"x": x})
    assert {name: v.integers.shape for name, v in empty.items() if name != "probabilities"} == {
        name: (0, *v.integers.shape[1:]) for name, v in whole.items() if name != "probabilities"
    }
    result = check_engines(model, [{"x": x[:0]}])
    assert (result.images, result.ok) == (0, False)


def test_bisection_of_an_equal_model_finds_nothing(net, x):
    assert bisect_optimized(network(net), {"x": x}) is None


def test_compare_outputs_on_their_grid(net):
    n = net(["n", 3])
    n.quantized("x", "y", -2, "i8")
    expected = Oracle(n.model("y")).run({"x": np.array([[1.0, 2.0, -3.0]], np.float32)})
    assert compare(expected, {"y": np.array([[1.0, 2.0, -3.0]], np.float32)}, "e") == []
    (difference,) = compare(expected, {"y": np.array([[1.0, 2.125, np.nan]], np.float32)}, "e", offset=8)
    assert (difference.count, difference.total, difference.first_index) == (2, 3, (8, 1))
    assert (difference.expected, difference.received) == (8, 8.5)


def test_tapping_leaves_the_model_alone(net, x):
    model = network(net)
    before = onnx_ir.serde.serialize_model(model).SerializeToString()
    taps = Oracle(model).plan.integers
    tensors = run_tapped(model, {"x": x}, taps)
    assert list(tensors) == list(taps)
    assert tensors["c__r"].dtype == np.uint8
    assert tensors["c__r"].max() > 96 == tensors["c__q"].max()
    assert run_optimized(model, {"x": x})["probabilities"].shape == (19, 5)
    fused_operators(model)
    certify(model)
    assert onnx_ir.serde.serialize_model(model).SerializeToString() == before
