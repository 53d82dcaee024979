"""Models for DPUs: int8 alone, the same numbers where nothing had to change, and a cost that is told where something had to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from batch_norm_networks import Builder
from dpu_reading import FITS, Reading
from handoff_networks import NETWORKS, SHAPE, examples

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.cli import run as command
from tqt_onnx.export import EXPORTERS
from tqt_onnx.export.dpu import DpuExporter
from tqt_onnx.ir import UnsupportedError, load, quantizers_of, save
from tqt_onnx.passes import insert_qdq
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verify import measure_rounding

EXACT = ("residual", "depthwise", "transposed", "tail")
"""Networks that these widths make fit as they are."""


@cache
def quantized(name: str, bits: BitWidths) -> onnx_ir.Model:
    return tqt_onnx.quantize(NETWORKS[name](), examples(32, 0), bits=bits).model


def run(path: Path | onnx_ir.Model) -> np.ndarray:
    """The outputs in onnxruntime with all optimizations, the file as it is."""
    serialized = path.read_bytes() if isinstance(path, Path) else onnx_ir.to_proto(path).SerializeToString()
    session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": examples()})[0]


def write(model: onnx_ir.Model, folder: Path, **options: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    notes = export_model(model, "dpu", folder, options=options, data=examples(16, 5)).notes
    reading = Reading(folder / "model.onnx")
    reading.check()
    written = json.loads((folder / "positions.json").read_text())
    found = reading.shifts()
    for entry in [*written["layers"], *written["elementwise"]]:
        expected = found[entry["node"]]
        name = "product" if entry["op"] == "Mul" else "shift_write"
        renamed = {name if key == "shift_write" else key: value for key, value in entry.items() if key.startswith("shift")}
        assert renamed == {key: value for key, value in expected.items() if key != "leaky"}
    assert {entry["node"] for entry in [*written["layers"], *written["elementwise"]]} == set(found)
    return written, notes


@pytest.mark.parametrize("name", EXACT)
def test_what_fits_is_written_as_it_is(name: str, tmp_path: Path) -> None:
    model = quantized(name, FITS)
    written, _ = write(model, tmp_path / "out")
    assert (written["changes"], written["sqnr_db"]) == ([], {})
    expected = run(model)
    np.testing.assert_array_equal(run(tmp_path / "out" / "model.onnx"), expected)
    np.testing.assert_array_equal(run(tmp_path / "out" / "model.opset17.onnx"), expected)
    assert len(np.unique(expected)) > 5
    assert tqt_onnx.check(tmp_path / "out" / "model.onnx", examples()).ok


@pytest.mark.parametrize("bias_bits", [32, 8])
@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", ["residual", "depthwise", "leaky", "concat", "swish"])
def test_the_default_model_fits_with_fix(name: str, layer: Literal[16, 32], bias_bits: int, tmp_path: Path) -> None:
    model = quantized(name, BitWidths(layer=layer))
    folder = tmp_path / "out"
    with pytest.raises(UnsupportedError, match=r"target dpu: layer '.*': .* --fix .* \(\d+ more; in all "):
        export_model(model, "dpu", folder, options={"bias_bits": bias_bits})
    assert not folder.exists()
    written, notes = write(model, folder, fix=True, bias_bits=bias_bits)
    rules = {change["rule"] for change in written["changes"]}
    assert rules >= {"one rounding"} if layer == 16 else "one rounding" not in rules
    widths = {int(entry["type"][3:]) for entry in written["tensors"] if entry["role"] == "bias"}
    assert widths == {bias_bits}
    fixed = load(folder / "model.onnx")
    result = tqt_onnx.check(fixed, examples())
    assert result.ok
    assert not result.differences
    compare_cost(model, fixed, written["sqnr_db"]["y"], notes)


def compare_cost(model: onnx_ir.Model, fixed: onnx_ir.Model, received: float, notes: tuple[str, ...]) -> None:
    """The ratio from the outputs in onnxruntime, of the examples that `write` gives."""
    outputs = []
    for one in (model, fixed):
        session = onnxruntime.InferenceSession(onnx_ir.to_proto(one).SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(session.run(["y"], {"x": examples(16, 5)})[0].astype(np.float64))
    signal, noise = np.sum(outputs[0] ** 2), np.sum((outputs[1] - outputs[0]) ** 2)
    expected = 10 * math.log10(signal / noise)
    assert received == pytest.approx(expected, rel=1e-12)  # the sums are taken in another order
    assert expected > 15
    assert any(f"on 16 examples: {expected:.1f} dB" in note for note in notes)


def test_a_leaky_relu_is_rounded_once(tmp_path: Path) -> None:
    """Integers of the sum, times 26, on a grid 8 bits finer: the oracle's and onnxruntime's numbers are those."""
    model = quantized("leaky", BitWidths(layer=32))
    write(model, tmp_path / "out", fix=True)
    fixed = load(tmp_path / "out" / "model.onnx")
    source = make_source(model, "model", None)
    names = ["x__input__q", "leaky__q", "y__q"]
    found = source.run(fixed, {"x": examples()}, names)
    reading = Reading(tmp_path / "out" / "model.onnx")
    positions = {
        entry["tensor"]: entry["pos"] for entry in json.loads((tmp_path / "out" / "positions.json").read_text())["tensors"]
    }
    x = np.round(found["x__input__q"] * 2.0 ** positions["x__input"]).astype(np.int64).transpose(0, 3, 1, 2)
    w, b = (reading.arrays[f"conv/{part}__q"].astype(np.int64) for part in "wb")
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    sums = sum(
        np.einsum("oi,nihw->nohw", w[:, :, i, j], padded[:, :, i : i + 8, j : j + 8]) for i in range(3) for j in range(3)
    ) + b.reshape(1, -1, 1, 1)
    shift = positions["x__input"] + positions["conv/w"] - positions["leaky"] + 8
    scaled = np.where(sums < 0, sums * 26, sums * 256)
    expected = np.clip(np.rint(scaled / 2.0**shift), -128, 127)
    np.testing.assert_array_equal(found["leaky__q"] * 2.0 ** positions["leaky"], expected)
    assert (expected < 0).any()
    np.testing.assert_array_equal(run(tmp_path / "out" / "model.onnx"), found["y__q"])


@pytest.mark.parametrize(
    ("bits", "kept", "moved"),
    [
        (BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7, weight=4), {"a/w": 0}, {}),  # integers of 4 bits are int8
        (BitWidths(layer=32, relu=7, average_pool=7), {"average__reciprocal": 1}, {}),  # 128/8192 = 64/4096
        (BitWidths(layer=32, relu=8, average_pool=7, reciprocal=7), {}, {"relu": 1, "a_relu": 1, "sum_relu": 1}),
        (BitWidths(layer=32, relu=5, average_pool=7, reciprocal=7), {}, {"relu": -2, "a_relu": -2, "sum_relu": -2}),
        (BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7, activation=6), {}, {"x__input": -2, "b": -2, "y": -2}),
        (BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7, unsigned_input=True), {}, {"x__input": 1}),
    ],
)
def test_which_types_fit(bits: BitWidths, kept: Mapping[str, int], moved: Mapping[str, int], tmp_path: Path) -> None:
    data = np.abs(examples(32, 0)) if bits.unsigned_input else examples(32, 0)
    model = tqt_onnx.quantize(NETWORKS["residual"](), data, bits=bits).model
    folder = tmp_path / "out"
    if moved:
        with pytest.raises(UnsupportedError, match="a DPU's tensors are int8 and end at 127"):
            export_model(model, "dpu", folder)
    export_model(model, "dpu", folder, options={"fix": bool(moved)})
    Reading(folder / "model.onnx").check()
    graph = quantizers_of(load(folder / "model.onnx"))
    before = quantizers_of(model)
    assert graph is not None
    assert before is not None
    new = {quantizer.value: quantizer for quantizer in graph.quantizers}
    steps = {q.value: new[q.value].decided_exponent - q.decided_exponent for q in before.quantizers if q.derived_from is None}
    changes = json.loads((folder / "positions.json").read_text())["changes"]
    assert {change["layer"] for change in changes} == set(moved)
    for value, by in {**kept, **moved}.items():
        assert steps.pop(value) == by
    if not moved:
        np.testing.assert_array_equal(run(folder / "model.onnx"), run(model))


def test_a_relu6_that_ends_inside_int8_is_exact_with_8_bits(tmp_path: Path) -> None:
    """6 / 2^-4 = 96: neither type ends it, so nothing has to move."""
    net = Builder(1)
    net.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.layer("Conv", "nchw", "conv", (4, 3, 3, 3), 4, pads=[1] * 4)
    net.op("Clip", "conv", "zero", "six", name="relu6")
    net.op("Transpose", "relu6", name="y", perm=[0, 2, 3, 1])
    data = examples(32, 0) * 20
    lowered, graph = make_source(
        tqt_onnx.quantize(net.model({"x": SHAPE}, {"y": (8, 8, 4)}), data, bits=BitWidths(layer=32)).model, "m", None
    ).lowered()
    wide = replace(graph, quantizers=tuple(replace(q, exponent=-4) if q.value == "relu6" else q for q in graph.quantizers))
    model = insert_qdq(lowered, wide)
    written, _ = write(model, tmp_path / "out")
    assert written["changes"] == []
    assert {"tensor": "relu6", "role": "activation", "type": "int8", "pos": 4} in written["tensors"]
    session = [
        onnxruntime.InferenceSession(onnx_ir.to_proto(one).SerializeToString(), providers=["CPUExecutionProvider"])
        for one in (model, load(tmp_path / "out" / "model.onnx"))
    ]
    expected, received = (one.run(None, {"x": data})[0] for one in session)
    np.testing.assert_array_equal(received, expected)
    assert expected.max() == 6.0


def test_what_runs_on_the_cpu_is_named(tmp_path: Path) -> None:
    net = Builder(7)
    net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    net.layer("Conv", "nchw", "wide", (4, 3, 17, 1), 4, pads=[8, 0, 8, 0])
    net.layer("Conv", "wide", "grouped", (4, 2, 3, 3), 4, pads=[1] * 4, group=2)
    net.layer("Conv", "grouped", "deep", (4, 1, 3, 3), 4, pads=[1] * 4, group=4)
    net.op("Sigmoid", "deep", name="gate")
    net.op("Transpose", "gate", name="y", perm=[0, 2, 3, 1])
    model = tqt_onnx.quantize(net.model({"x": SHAPE}, {"y": (8, 8, 4)}), examples(16, 0), bits=BitWidths(layer=32)).model
    written, notes = write(model, tmp_path / "out", fix=True)
    reasons = {entry["node"]: entry["reason"] for entry in written["cpu"]}
    assert reasons == {
        "wide": "kernel [17, 1] is beyond 16",
        "grouped": "group 2 of 4 channels is neither 1 nor depthwise",
        "gate": "Sigmoid belongs to a function of one tensor",
    }
    assert any(note.startswith("Nodes that are likely to run on the CPU: 3. gate: ") for note in notes)


def test_without_data_the_cost_is_that_of_random_inputs(tmp_path: Path) -> None:
    model = quantized("residual", BitWidths())
    notes = [export_model(model, "dpu", tmp_path / name, options={"fix": True}).notes for name in "ab"]
    assert notes[0] == notes[1]
    assert any("on 4 random inputs (no --data): " in note for note in notes[0])


@pytest.mark.parametrize("options", [{"fix": True}, {"fix": True, "bias_bits": 8}, {"bias_bits": 8}])
@pytest.mark.parametrize("layer", [16, 32])
def test_the_rounding_is_that_of_what_is_written(layer: Literal[16, 32], options: dict[str, Any], tmp_path: Path) -> None:
    model = quantized("residual", BitWidths(layer=layer) if "fix" in options else FITS)
    result = export_model(model, "dpu", tmp_path / "out", options=options, data=examples(32, 5))
    batches = [{"x": examples(32, 5)[start : start + 16]} for start in (0, 16)]
    assert result.rounding_effect == measure_rounding(load(tmp_path / "out" / "model.onnx"), batches, "half_up")
    assert result.rounding_effect != measure_rounding(model, batches, "half_up")


def test_the_model_is_made_once() -> None:
    """Checking, measuring and writing ask for the same; other options, and other sources, are another model."""
    source = make_source(quantized("residual", BitWidths()), "model", None)
    calls: list[str] = []

    def lowered() -> Any:
        calls.append("lowered")
        return source.lowered()

    def inserted(*given: Any) -> onnx_ir.Model:
        calls.append("inserted")
        return source.quantized(*given)

    counted = replace(source, lowered=lowered, quantized=inserted)
    exporter = DpuExporter(fix=True)
    exporter.check(counted)
    first = exporter.changed_model(counted)
    assert exporter.changed_model(counted) is first
    assert calls == ["lowered", "inserted"]
    with pytest.raises(UnsupportedError):
        DpuExporter().check(counted)
    assert calls == ["lowered", "inserted"]
    assert DpuExporter(fix=True, bias_bits=8).changed_model(counted) is not first
    assert exporter.changed_model(replace(counted)) is not first
    assert len(calls) == 6


@pytest.mark.parametrize(("biases", "received"), [(None, ["y"]), (0.0, [])])
def test_no_difference_is_not_no_signal(biases: float | None, received: list[str], tmp_path: Path) -> None:
    """Both ratios are infinite: one where no number differs, one where all were 0 before."""
    source = make_source(quantized("residual", FITS), "model", None)

    def run(model: onnx_ir.Model, feeds: Any, names: Any) -> dict[str, np.ndarray]:
        found = dict(source.run(model, feeds, names))
        if biases is None:
            return {name: np.ones_like(array) for name, array in found.items()}
        return {name: np.full_like(array, biases if model is source.model else 1.0) for name, array in found.items()}

    notes = DpuExporter(bias_bits=8).write(replace(source, run=run), tmp_path)
    written = json.loads((tmp_path / "positions.json").read_text())
    assert (written["sqnr_db"], written["unchanged"]) == ({"y": None}, received)
    said = "no number differs" if received else "every number was 0, and some are not now"
    assert any(note.startswith("SQNR of 'y'") and note.endswith(f": {said}.") for note in notes)


def test_the_command_writes_what_check_accepts(tmp_path: Path) -> None:
    save(quantized("residual", BitWidths()), tmp_path / "net.q.onnx")
    np.save(tmp_path / "data.npy", examples())
    line = ["export", str(tmp_path / "net.q.onnx"), "--target", "dpu", "-o", str(tmp_path / "out"), "--fix", "--bias-bits", "8"]
    assert command(line) == 0
    assert command(["check", str(tmp_path / "out" / "net.onnx"), "--data", str(tmp_path / "data.npy")]) == 0
    onnx.checker.check_model(str(tmp_path / "out" / "net.opset17.onnx"), full_check=True)
    assert onnx.load(tmp_path / "out" / "net.opset17.onnx").opset_import[0].version == 17


def test_a_dpu_rounds_ties_up() -> None:
    assert EXPORTERS["dpu"].rounding == "half_up"
