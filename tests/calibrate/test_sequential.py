"""The O(n) walk against the definition: each group decided on a graph re-run from the start, everything upstream quantized."""

from __future__ import annotations

import math
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx.reference import ReferenceEvaluator

from tqt_onnx.calibrate import calibrate
from tqt_onnx.calibrate.calibration import run
from tqt_onnx.calibrate.engine import Engine
from tqt_onnx.calibrate.sequential import Walk
from tqt_onnx.ir import QuantizerGraph, UnsupportedError
from tqt_onnx.kernels import fixed_point as fp
from tqt_onnx.kernels import thresholds
from tqt_onnx.kernels.histogram import Range
from tqt_onnx.kernels.klj import klj_histogram, klj_log2
from tqt_onnx.kernels.percentile import FloatHistogram, percentile_log2
from tqt_onnx.passes import insert_qdq

Net = tuple[onnx_ir.Model, QuantizerGraph]


def forward(
    model: onnx_ir.Model, graph: QuantizerGraph, exponents: dict[str, int], feed: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Float values of all quantizer sites that depend on decided quantizers only, node by node in onnx's own reference."""
    quantizers = graph.by_value()
    exponents = dict(exponents)
    known: dict[str, Any] = dict(feed)
    sites: dict[str, np.ndarray] = {}

    def settle(name: str, array: np.ndarray) -> None:
        quantizer = quantizers.get(name)
        if quantizer is None:
            known[name] = array
            return
        sites[name] = array
        if quantizer.derived_from is not None and all(source in exponents for source in quantizer.derived_from):
            exponents[quantizer.id] = sum(exponents[source] for source in quantizer.derived_from)
        if quantizer.id in exponents:
            e = exponents[quantizer.id]
            upper = None if quantizer.limit is None else round(math.ldexp(quantizer.limit, -e))
            known[name] = fp.fake_quantize(array, e, quantizer.bits, quantizer.signed, upper)

    for name, value in model.graph.initializers.items():
        settle(name, value.const_value.numpy())
    for node in model.graph:
        names = [value.name for value in node.inputs]
        for name in names:  # a derived bias is settled once its sources are
            if name in sites and name not in known:
                settle(name, sites[name])
        if all(name in known for name in names):
            proto = onnx_ir.serde.serialize_node(node)
            ins = [
                onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(known[n].dtype), None)
                for n in dict.fromkeys(names)
            ]
            outs = [onnx.helper.make_tensor_value_info(node.outputs[0].name, onnx.TensorProto.FLOAT, None)]
            part = onnx.helper.make_model(
                onnx.helper.make_graph([proto], "n", ins, outs), opset_imports=[onnx.helper.make_opsetid("", 21)]
            )
            settle(node.outputs[0].name, ReferenceEvaluator(part).run(None, {name: known[name] for name in names})[0])
    return sites


def best_mse(x: np.ndarray, bits: int, signed: bool) -> float:
    """Brute force on the numbers themselves."""
    x = x.astype(np.float64)
    top = fp.ceil_log2(float(np.abs(x).max()))
    errors = []
    for k in range(top - 8, top + 2):
        s = 2.0 ** fp.exponent_for(k, bits, signed)
        errors.append((float(((x - s * fp.quantize(x, fp.exponent_for(k, bits, signed), bits, signed)) ** 2).sum()), k))
    return float(min(errors)[1])


def decide(x: np.ndarray, roles: set[str], bits: int, signed: bool, method: str) -> float:
    seen = Range()
    seen.update(x)
    if roles <= {"weight", "reciprocal"}:
        return best_mse(x, bits, signed) if method == "mse" else thresholds.weight_log2(x, bits, signed)
    if bits == 16 or method == "max":
        return thresholds.max_log2(seen, signed)
    if method == "mse":
        return best_mse(x, bits, signed)
    if method == "percentile":
        counts = FloatHistogram(signed)
        counts.update(x)
        return percentile_log2(counts, 99.99)
    histogram = klj_histogram(seen, signed)
    histogram.update(x)
    return klj_log2(histogram, bits, signed)


def naive(model: onnx_ir.Model, graph: QuantizerGraph, feeds: list[dict[str, np.ndarray]], method: str) -> dict[str, float]:
    x = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    result: dict[str, float] = {}
    exponents: dict[str, int] = {}
    while len(result) < len(graph.groups()):
        sites = forward(model, graph, exponents, x)
        name, members = next((n, m) for n, m in graph.groups().items() if n not in result and all(q.value in sites for q in m))
        bits, signed = members[0].bits, members[0].signed
        together = np.concatenate([sites[member.value].reshape(-1) for member in members])
        result[name] = decide(together, {member.role for member in members}, bits, signed, method)
        exponents |= {member.id: fp.exponent_for(math.ceil(result[name]), bits, signed) for member in members}
    return result


@pytest.mark.parametrize("method", ["mse", "max", "klj", "percentile"])
def test_decisions_are_those_of_the_definition(small: Net, images: Any, method: str) -> None:
    model, graph = small
    batches = images()
    expected = naive(model, graph, list(batches()), method)
    assert calibrate(model, graph, batches, method=method, weight_method="mse" if method == "mse" else "max") == expected
    assert list(expected) != [] and graph.decide(expected).decided


def test_what_was_measured_is_what_the_inserted_model_computes(small: Net, images: Any) -> None:
    model, graph = small
    got = calibrate(model, graph, images(), method="max")
    inserted = onnx_ir.serde.serialize_model(insert_qdq(model, graph.decide(got)))
    sites = {
        node.output[0].removesuffix("__q").removesuffix("__r"): node.input[0]
        for node in inserted.graph.node
        if node.op_type == "QuantizeLinear"
    }
    taps = {value: name for value, name in sites.items() if value in graph.by_value()}  # not the carry pairs
    largest: dict[str, float] = {}
    names = list(dict.fromkeys(taps.values()))
    del inserted.graph.output[:]
    inserted.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    evaluator = ReferenceEvaluator(inserted)
    for feed in images()():
        results = dict(zip(names, evaluator.run(names, feed), strict=True))
        for value, name in taps.items():
            x = np.abs(results[name]) if graph.by_value()[value].signed else results[name]  # a dropped Clip leaves negatives
            largest[value] = max(largest.get(value, 0.0), min(float(x.max()), graph.by_value()[value].limit or math.inf))
    constants = {name: float(np.abs(value.const_value.numpy()).max()) for name, value in model.graph.initializers.items()}
    for group, members in graph.groups().items():
        seen = [largest.get(member.value, constants.get(member.value)) for member in members]
        if not {member.role for member in members} <= {"weight", "reciprocal"}:
            assert got[group] == fp.log2_threshold(max(seen))


def test_upstream_quantization_matters_here(small: Net, images: Any) -> None:
    model, graph = small
    assert calibrate(model, graph, images(), method="max") != calibrate(model, graph, images(), method="max", parallel=True)


def test_batch_size_changes_nothing(small: Net, images: Any) -> None:
    model, graph = small
    results = [calibrate(model, graph, images(6, batch)) for batch in (1, 4, 6)]
    assert results[0] == results[1] == results[2]


def test_large_batches_are_cut_and_nothing_is_dropped(small32: Net, images: Any) -> None:
    model, graph = small32
    engine = Engine(model)
    x = np.concatenate([feed["x"] for feed in images(70, 70)()])
    x[-1, 0, 0, 0] = 50.0
    got = run(model, graph, lambda: iter([{"x": x}]), engine, method="max", parallel=False, progress=None)[0]
    assert set(engine.runs.values()) == {3}  # at most 32 images at a time
    assert got["x__input"] == fp.log2_threshold(50.0)


def test_each_node_runs_once_per_batch_and_spills_are_closed(small: Net, images: Any) -> None:
    model, graph = small
    engine = Engine(model)
    _, walk = run(model, graph, images(6, 2), engine, method="klj", parallel=False, progress=None)
    needed = {node.outputs[0].name for node in model.graph} - {"y"}  # nothing quantized depends on the Softmax
    assert engine.runs == dict.fromkeys(needed, 3)
    assert walk is not None
    assert (walk.account.files, walk.account.bytes_live) == (0, 0)
    assert walk.account.bytes_peak > 0


def test_a_spill_is_closed_behind_its_last_reader(small32: Net, images: Any) -> None:
    model, graph = small32
    live: list[int] = []
    walks: list[Walk] = []

    class Spy(Walk):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            walks.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tqt_onnx.calibrate.calibration.Walk", Spy)
        calibrate(model, graph, images(), progress=lambda *_: live.append(walks[0].account.files if walks else 0))
    assert max(live) <= 3  # of 11 tensors: the two branches of an Add or Concat and one more
    assert live[-1] == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_behind_after_an_interruption(
    small: Net, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    model, graph = small
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 6:
            assert open_in(tmp_path)
            raise interruption

    with pytest.raises(interruption):
        calibrate(model, graph, images(), progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert open_in(tmp_path) == []


def open_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return [name for name in found if name.startswith(str(folder))]


def test_eight_times_the_images_do_not_change_peak_memory(net: Any) -> None:
    b = net("layer32")
    b.quantize(b.node("Identity", ["x"], "x__input"), role="input")
    b.quantize(b.compute("c", "x__input", b.random(8, 3, 3, 3), b.random(8), scale_of="x__input", pad=1))
    model, graph = b.build({"x": ["N", 3, 64, 64]}, ["c"])

    def peak(count: int) -> int:
        def batches() -> Iterator[dict[str, np.ndarray]]:
            rng = np.random.default_rng(0)
            return ({"x": rng.standard_normal((4, 3, 64, 64), dtype=np.float32)} for _ in range(count))

        tracemalloc.start()
        calibrate(model, graph, batches)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2)
    batch = 4 * (3 + 8) * 64 * 64 * 4
    # how far the threads are ahead of each other differs from run to run: four batches of slack; 56 batches are added
    assert peak(64) - peak(8) < 4 * batch


def test_a_cycle_falls_back_to_float_for_what_is_missing(cyclic: Net, images: Any) -> None:
    model, graph = cyclic
    batches = images(2000, 200, shape=(2, 4, 4))
    for method in ("max", "mse", "klj"):
        got = calibrate(model, graph, batches, method=method)
        parallel = calibrate(model, graph, batches, method=method, parallel=True)
        assert got["dense"] == parallel["dense"]
        exponents = {q.id: q.exponent for q in graph.decide(got).quantizers}
        x = {"x": np.concatenate([feed["x"] for feed in batches()])}
        sites = forward(model, graph, {k: e for k, e in exponents.items() if k != "d" and e is not None}, x)
        assert got["d"] == decide(sites["d"], {"activation"}, 8, True, method)


def test_operators_onnxruntime_does_not_know_are_typed(net: Any, images: Any) -> None:
    b = net("layer32")
    b.node("NoSuchOperator", ["x"], "z")
    b.quantize(b.node("Identity", ["z"], "q"))
    model, graph = b.build({"x": ["N", 4]}, ["q"])
    for parallel in (False, True):
        with pytest.raises(UnsupportedError, match=r"NoSuchOperator.*Received: "):
            calibrate(model, graph, images(shape=(4,)), parallel=parallel)
