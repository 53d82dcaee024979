"""onnxruntime: what it is told, what it refuses, and that its numbers are the oracle's for every storage type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tqt_onnx.ir import DataError, ModelError
from tqt_onnx.verify import Oracle, Session, compare, fused_operators, run_optimized, run_tapped
from tqt_onnx.verify import runtime as runtime_module


@pytest.mark.parametrize(
    ("flags", "machine", "lacks"),
    [
        ("flags : fpu avx2 avx512_vnni sse", "x86_64", False),
        ("flags : fpu avx2 avx_vnni", "AMD64", False),
        ("flags : fpu avx2 avx512f", "x86_64", True),
        (None, "x86_64", True),
        ("Features : asimd", "aarch64", False),
    ],
)
def test_vnni_is_looked_for(tmp_path, monkeypatch, flags, machine, lacks):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(flags)
    assert runtime_module.lacks_vnni(file, machine) is lacks
    monkeypatch.setattr(runtime_module, "lacks_vnni", lambda: lacks)
    options = runtime_module.session_options(optimize=True)
    if lacks:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")


def test_what_does_not_load_or_run_is_a_typed_error(net):
    n = net(["n", 2])
    n.op("NoSuchOperator", [n.quantized("x", "a", 0, "i8")], "y")
    with pytest.raises(ModelError, match=r"onnxruntime .* does not load the model"):
        Session(n.model("y"))
    n = net(["n", 2])
    n.quantized("x", "a", 0, "i8")
    model = n.model("a")
    with pytest.raises(DataError, match="onnxruntime cannot run"):
        run_optimized(model, {"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(ModelError, match="Received: 'nobody__q'"):
        run_tapped(model, {"x": np.zeros((1, 2), np.float32)}, ["nobody__q"])


@pytest.mark.parametrize("x_type", ["i8", "u8", "i16", "u16"])
@pytest.mark.parametrize("w_type", ["i4", "i8", "i16"])
def test_every_storage_type(net, x_type, w_type):
    rng = np.random.default_rng(2)
    bits = int(w_type[1:])
    n = net(["n", 6])
    a = n.quantized("x", "a", -4, x_type)
    weights = rng.integers(-(1 << bits - 1), 1 << bits - 1, (6, 3))
    n.quantized(n.op("MatMul", [a, n.weight("w", weights // 16 if bits == 16 else weights, -3, w_type)], "m"), "y", -3, x_type)
    model = n.model("y")
    x = (rng.normal(size=(20, 6)) * 4).astype(np.float32)
    expected = Oracle(model).run({"x": x})
    taps = run_tapped(model, {"x": x}, ["a__q", "y__q"])
    assert compare(expected, taps, "ort") == compare(expected, run_optimized(model, {"x": x}), "ort") == []
    assert not np.array_equal(taps["y__q"], np.zeros_like(taps["y__q"]))


@settings(max_examples=40)
@given(
    groups=st.sampled_from([(1, 3, 4), (4, 1, 1), (2, 2, 1)]),
    stride=st.integers(1, 2),
    shift=st.integers(-3, 12),
    types=st.tuples(st.sampled_from(["i8", "u8"]), st.sampled_from(["i8", "u8", "i16"])),
    relu=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_random_layer_is_the_oracle_s(net, groups, stride, shift, types, relu, seed):
    rng = np.random.default_rng(seed)
    group, depth, multiplier = groups
    n = net(["n", group * depth, 6, 5])
    a = n.quantized("x", "a", -4, types[0])
    w = n.weight("w", rng.integers(-128, 128, (group * multiplier, depth, 3, 2)), -5)
    b = n.weight("b", rng.integers(-4000, 4000, group * multiplier), -9, "i32")
    y = n.conv([a, w, b], "c", [3, 2], strides=[stride, 1], pads=[1, 0, 0, 1], group=group)
    n.quantized(n.op("Relu", [y], "r") if relu else y, "y", -9 + shift, types[1])
    model = n.model("y")
    x = (rng.normal(size=(3, group * depth, 6, 5)) * 4).astype(np.float32)
    expected = Oracle(model).run({"x": x})
    assert compare(expected, run_tapped(model, {"x": x}, ["a__q", "y__q"]), "ort") == []
    assert compare(expected, run_optimized(model, {"x": x}), "ort-optimized") == []


@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16"])
def test_every_tie_of_a_halved_scale(net, dtype):
    info = np.iinfo({"i": "int", "u": "uint"}[dtype[0]] + dtype[1:])
    x = (np.arange(2 * info.min - 3, 2 * info.max + 4, dtype=np.float32) / 2)[None]
    n = net(["n", x.shape[1]])
    n.quantized("x", "a", 0, dtype)
    model = n.model("a")
    assert compare(Oracle(model).run({"x": x}), run_tapped(model, {"x": x}, ["a__q"]), "ort") == []


def test_fused_operators_are_counted(net):
    n = net(["n", 4, 6, 6])
    a = n.quantized("x", "a", -4, "i8")
    y = n.quantized(n.conv([a, n.weight("w", np.ones((4, 4, 3, 3)), -7)], "c", [3, 3]), "y", -3, "i8")
    n.quantized(n.conv([y, n.weight("v", np.ones((4, 4, 1, 1)), -7, "i4")], "d", [1, 1]), "z", -3, "i8")
    counts = fused_operators(n.model("z"))
    assert counts["QLinearConv"] == 1
    assert sum(count for name, count in counts.items() if name in {"Conv", "FusedConv"}) == 1
