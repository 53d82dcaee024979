"""The command line: the whole road, exit statuses, and what it prints."""

from __future__ import annotations

import functools
import logging
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_network import QUANTIZED, RELU6, depthwise_weight, write_mutant

from tqt_onnx.cli import run
from tqt_onnx.ir import CONTRACT_KEY, VERSION_KEY, load, quantizers_of


def rows(text: str, title: str) -> list[list[str]]:
    """Cells of the table whose title begins so."""
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith(title)), None)
    assert start is not None, text
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 3 :]]
    end = next((index for index, parts in enumerate(cells) if len(parts) < 3), len(cells))
    return cells[:end]


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_whole_road(road: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(road / f"{name}.onnx")
    assert model.metadata_props[CONTRACT_KEY] == ("layer32" if name.endswith("layer32") else "layer16")
    assert model.metadata_props[VERSION_KEY]
    graph = quantizers_of(model)
    assert graph is not None and graph.decided
    weights = [quantizer.bits for quantizer in graph.quantizers if quantizer.role == "weight"]
    assert weights == ([8, 4, 8] if name.startswith("int4") else [8, 8, 8])
    command = ["check", str(road / f"{name}.onnx"), "--data", str(road / "test.npz"), "--engines", "oracle,ort,tf"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "exact on every certified layer" in text
    found = {row[0]: row for row in rows(text, "Against the int64 oracle")}
    assert set(found) == {"ort", "ort-optimized", "tf"}
    assert all(row[2] == "0" and int(row[1].replace(",", "")) > 0 for row in found.values())
    assert run(["evaluate", str(road / "net.onnx"), str(road / f"{name}.onnx"), "--data", str(road / "test.npz")]) == 0
    assert "100.00%" in capsys.readouterr().out
    assert run(["inspect", str(road / f"{name}.onnx")]) == 0
    assert f"{RELU6}" in capsys.readouterr().out


def test_inspect_tells_what_quantize_will_do(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(road / "net.onnx"), "--layer-bits", "32"]) == 0
    before = capsys.readouterr().out
    assert run(["inspect", str(road / "layer32.onnx")]) == 0
    after = capsys.readouterr().out
    planned = [row[1:] for row in rows(before, "Would be quantized (layer32)")]
    decided = [[re.sub(r" 2\^-?\d+", "", cell) for cell in row[1:]] for row in rows(after, "Quantized (layer32)")]
    assert planned == decided
    assert len(planned) == 10


def test_an_output_is_replaced_only_when_asked(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "q.onnx"
    target.write_bytes(b"precious")
    command = ["quantize", str(road / "net.onnx"), "-o", str(target), "--calibration", str(road / "calibration.npy")]
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert run([*command, "--force"]) == 0
    assert target.read_bytes() == (road / "layer16.onnx").read_bytes()  # the same command gives the same bytes
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]
    assert oct(target.stat().st_mode & 0o777) == oct((road / "net.keras").stat().st_mode & 0o777)  # as the umask has it


# --- exit status 1: the answer is no


def checked(road: Path, name: str, copies: dict[str, Path], capsys: pytest.CaptureFixture[str], engines: str) -> tuple[int, str]:
    words = [word for engine, path in copies.items() for word in ("--copy", f"{engine}={path}")]
    status = run(["check", str(road / f"{name}.onnx"), "--data", str(road / "test.npz"), "--engines", engines, *words])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("name", ["layer16", "layer32", "int4"])
@pytest.mark.parametrize("fault", ["weight", "exponent", "bound"])
@pytest.mark.parametrize("engine", ["oracle", "ort", "ort-optimized", "tf"])
def test_a_mutated_copy_of_one_engine_is_found_and_named(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, fault: str, engine: str
) -> None:
    value, tensor = write_mutant(road / f"{name}.onnx", tmp_path / "mutant.onnx", fault)
    engines = "oracle,ort,tf" if engine in ("oracle", "tf") else "oracle,ort"
    status, text = checked(road, name, {engine: tmp_path / "mutant.onnx"}, capsys, engines)
    assert status == 1
    assert "NOT exact" in text
    differing = {row[0]: row[2] for row in rows(text, "Against the int64 oracle")}
    model = load(road / f"{name}.onnx")
    found: dict[str, list[str]] = {}
    for row in rows(text, "Differences"):
        found.setdefault(row[0], []).append(row[1])
    computed = {key: next((one for one in names if one not in model.graph.initializers), None) for key, names in found.items()}
    if fault == "weight":  # the constant itself is named in front of everything it changes, whatever the data
        weight = depthwise_weight(model).name
        assert [names[0] for key, names in found.items() if key != "ort-optimized-cut"] == [weight] * len(found)
    if engine == "oracle":  # every engine differs from it
        assert "0" not in differing.values()
        assert (computed["ort"], computed["tf"]) == (tensor, f"{value}__q")
    elif engine == "ort-optimized":
        assert [name for name, count in differing.items() if count != "0"] == ["ort-optimized"]
        (first,) = rows(text, "First difference with all optimizations")
        assert first[:2] == ["ort-optimized", value]
    else:
        assert [name for name, count in differing.items() if count != "0"] == [engine]
        assert computed == {engine: f"{value}__q" if engine == "tf" else tensor}


def first_tie(road: Path, name: str) -> str:
    """The first tensor whose integers depend on the rounding of ties, all in front of it being right."""
    from tqt_onnx.verify import OPS, Oracle, quantize_with
    from tqt_onnx.verify.oracle_ops.quantization import requantize_half_up

    x = np.load(road / "test.npz")["x"]
    model = load(road / f"{name}.onnx")
    right = Oracle(model).run({"image": x})
    up = Oracle(model, {**OPS, "QuantizeLinear": quantize_with(requantize_half_up)}).run({"image": x})
    return next(tensor for tensor in right if not np.array_equal(right[tensor].integers, up[tensor].integers))  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ["oracle", "ort", "tf"])
def test_an_engine_that_rounds_ties_up_is_found_and_named(
    road: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    from tqt_onnx.verify import OPS, Oracle, engines, quantize_with
    from tqt_onnx.verify.oracle_ops.quantization import requantize_half_up

    wrong = {**OPS, "QuantizeLinear": quantize_with(requantize_half_up)}
    expected = first_tie(road, "layer16")

    def half_up(model):
        oracle = Oracle(model, wrong)
        return lambda feeds: {key: value.integers for key, value in oracle.run(feeds).items() if key.endswith(("__q", "__r"))}

    if engine == "oracle":
        monkeypatch.setitem(OPS, "QuantizeLinear", wrong["QuantizeLinear"])
    elif engine == "ort":
        monkeypatch.setattr(engines, "tapped_runner", half_up)
    else:
        import tensorflow as tf

        from tqt_onnx.kernels import tqt

        monkeypatch.setattr(tf, "round", lambda x: tf.floor(x + 0.5))
        monkeypatch.setattr(tqt, "_traced", functools.cache(tqt._traced.__wrapped__))  # not those traced before
    status, text = checked(road, "layer16", {}, capsys, "oracle,ort,tf")
    assert status == 1
    found = [row for row in rows(text, "Differences") if row[0] == ("ort" if engine == "oracle" else engine)]
    assert found[0][1] == (expected.replace("__r", "__q") if engine == "tf" else expected)


def test_convert_says_no_when_the_outputs_differ(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tqt_onnx.frontend_tf import FrozenGraph

    true = FrozenGraph.run
    for error in (2e-4, np.nan):
        shifted = lambda self, feeds, error=error: {k: v + error * np.ptp(v) for k, v in true(self, feeds).items()}  # noqa: E731
        monkeypatch.setattr(FrozenGraph, "run", shifted)
        assert run(["convert", str(road / "net.keras"), "-o", str(tmp_path / "net.onnx"), "--force"]) == 1
        assert "DIFFERS by more than 0.0001" in capsys.readouterr().out


@pytest.fixture(name="island", scope="module")
def float_island(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dense layers with a sine between them."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["a"], name="first"),
            helper.make_node("Sin", ["a"], ["s"], name="island"),
            helper.make_node("Gemm", ["s", "v"], ["y"], name="second"),
        ],
        "island",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in {"w": (3, 4), "v": (4, 2)}.items()
        ],
    )
    folder = tmp_path_factory.mktemp("island")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "island.onnx")
    np.save(folder / "x.npy", rng.normal(size=(8, 3)).astype(np.float32))
    return folder


def test_strict_refuses_a_float_island(island: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["quantize", str(island / "island.onnx"), "-o", str(tmp_path / "q.onnx"), "--calibration", str(island / "x.npy")]
    assert run([*command, "--strict"]) == 1
    text = capsys.readouterr().out
    assert [row[:2] for row in rows(text, "Stays float")] == [["island", "Sin"]]
    assert "nothing written" in text
    assert list(tmp_path.iterdir()) == []
    assert run(command) == 0
    assert [row[:2] for row in rows(capsys.readouterr().out, "Stays float")] == [["island", "Sin"]]
    assert run(["check", str(tmp_path / "q.onnx"), "--data", str(island / "x.npy")]) == 0
    assert [row[:2] for row in rows(capsys.readouterr().out, "Stays float")] == [["island", "Sin"]]


def test_strict_accepts_what_has_no_island(road: Path, tmp_path: Path) -> None:
    command = ["quantize", str(road / "net.onnx"), "-o", str(tmp_path / "q.onnx"), "--calibration", str(road / "calibration.npy")]
    assert run([*command, "--strict"]) == 0
    assert (tmp_path / "q.onnx").is_file()


def test_min_accuracy(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.load(road / "test.npz")
    np.savez(tmp_path / "half.npz", x=data["x"], y=np.where(np.arange(24) < 12, data["y"], (data["y"] + 1) % 3))
    command = ["evaluate", str(road / "net.onnx"), "--data", str(tmp_path / "half.npz"), "--min-accuracy"]
    assert run([*command, "0.5"]) == 0
    assert run([*command, "0.51"]) == 1
    assert "50.00%" in capsys.readouterr().out
    assert run([*command, "51"]) == 2  # a percentage is a mistake, not an unreachable goal


# --- interruption


def test_ctrl_c_leaves_nothing(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for folder in ("out", "tmp"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    command = ["quantize", str(road / "net.onnx"), "-o", str(tmp_path / "out" / "q.onnx")]
    check_model, calls = onnx.checker.check_model, []

    def interrupt_the_second(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) > 1:  # the first is the reading of the model, the second its writing
            interrupt()
        check_model(*arguments, **options)

    places = {  # in a thread that measures, between two layers with live tensors spilled, while writing
        "tqt_onnx.calibrate.sequential.Walk._measure": interrupt,
        "tqt_onnx.calibrate.sequential.Walk._decide": interrupt,
        "onnx.checker.check_model": interrupt_the_second,
    }
    for place, function in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, function)
            assert run([*command, "--calibration", str(road / "calibration.npy")]) == 130, place
        assert capsys.readouterr().err.splitlines()[-1] == "tqt-onnx: interrupted"
        assert list((tmp_path / "out").iterdir()) == list((tmp_path / "tmp").iterdir()) == [], place


def test_an_unexpected_error_is_one_line_and_debug_shows_where(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("tqt_onnx.verbs.inspect.inspect", broken)
    assert run(["inspect", str(road / "net.onnx")]) == 2
    assert capsys.readouterr().err == (
        "tqt-onnx: error: unexpected ZeroDivisionError: a b (a defect of tqt-onnx; --debug shows where)\n"
    )
    for words in (["--debug", "inspect", str(road / "net.onnx")], ["inspect", str(road / "net.onnx"), "--debug"]):
        assert run(words) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("Traceback") and "ZeroDivisionError" in shown


def test_help_names_every_verb_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    verbs = ("convert", "quantize", "check", "evaluate", "inspect", "passes", "calibration-set", "graffitize", "demo")
    assert all(verb in text for verb in verbs)
    assert run(["quantize", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("mse|max|percentile|klj", "--layer-bits", "--strict"))


def test_logging_is_left_alone(road: Path) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("tqt_onnx").handlers[:]
    assert run(["inspect", str(road / "net.onnx")]) == 0
    assert (logging.getLogger().handlers[:], logging.getLogger("tqt_onnx").handlers[:]) == before
