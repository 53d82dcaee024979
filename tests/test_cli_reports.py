"""The command line of `check`, `evaluate` and `inspect`: JSON, certificates without data, the float model beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

from tqt_onnx import quantize
from tqt_onnx.cli import run
from tqt_onnx.ir import save


def dense(taps: int) -> onnx_ir.Model:
    """A dense layer whose sums reach about 2^14 times the number of its taps."""
    rng = np.random.default_rng(0)
    weights = ", ".join(f"{number:.2f}" for number in rng.choice([-0.99, 0.99], taps * 2))
    return onnx_ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,{taps}] x) => (float[N,2] y)
        <float[{taps},2] w = {{{weights}}}> {{ y = MatMul(x, w) }}"""
    )


@pytest.fixture(name="files", scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small` is certified, `large` is not; `*.q.onnx` are quantized, `*.npz` labelled data."""
    folder = tmp_path_factory.mktemp("reports")
    for name, taps in (("small", 9), ("large", 3000)):
        x = np.random.default_rng(1).normal(size=(12, taps)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=np.arange(12) % 2)
        save(dense(taps), folder / f"{name}.onnx")
        save(quantize(dense(taps), x).model, folder / f"{name}.q.onnx")
    return folder


def parsed(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def test_check_writes_json(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", str(files / "small.q.onnx"), "--data", str(files / "small.npz"), "--float", str(files / "small.onnx")]
    assert run([*command, "--json", str(tmp_path / "r.json")]) == 0
    assert "Signal to noise against the float model" in capsys.readouterr().out
    assert run([*command, "--json", "-"]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "r.json").read_text(encoding="utf-8")
    found = parsed(printed)
    assert (found["schema"], found["ok"], found["images"]) == ("tqt_onnx.check/2", True, 12)
    assert {noise["tensor"] for noise in found["sqnr"]} >= {"x__input", "w", "y"}


def test_evaluate_and_inspect_write_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(files / "small.onnx"), str(files / "small.q.onnx")]
    assert run(["evaluate", *models, "--data", str(files / "small.npz"), "--label-offset", "0,0", "--json", "-"]) == 0
    found = parsed(capsys.readouterr().out)
    assert (found["schema"], found["names"], found["images"]) == ("tqt_onnx.accuracy/1", models, 12)
    assert run(["evaluate", *models, "--data", str(files / "small.npz"), "--label-offset", "0,0,1"]) == 2
    assert "one for each of 2 models" in capsys.readouterr().err
    assert run(["evaluate", *models, "--data", str(files / "small.npz"), "--label-offset", "a"]) == 2
    assert run(["inspect", models[1], "--json", "-"]) == 0
    assert parsed(capsys.readouterr().out)["kind"] == "quantized"


def test_a_certificate_may_be_required(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the large layer is merely named; data are needed only where something is to be compared."""
    small, large = str(files / "small.q.onnx"), str(files / "large.q.onnx")
    assert run(["check", small, "--require-certificate"]) == 0
    assert "every layer is certified" in capsys.readouterr().out
    assert run(["check", large, "--require-certificate"]) == 1
    assert "these layers have none" in capsys.readouterr().out
    assert run(["check", large, "--require-certificate", "--json", "-"]) == 1
    (reason,) = parsed(capsys.readouterr().out)["without_certificate"].values()
    assert "beyond 2^24" in reason
    assert run(["check", small, "--data", str(files / "small.npz"), "--require-certificate"]) == 0
    assert run(["check", large, "--data", str(files / "large.npz"), "--require-certificate"]) == 1
    capsys.readouterr()
    assert run(["check", small]) == 2
    assert "--data is expected" in capsys.readouterr().err
    assert run(["check", small, "--require-certificate", "--float", str(files / "small.onnx")]) == 2
    assert "Received: no data" in capsys.readouterr().err
