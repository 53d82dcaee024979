"""`check --rounding`, and what `export` says of a target that rounds otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir
import pytest
from handoff_networks import examples, quantized

import tqt_onnx
from tqt_onnx import UsageError
from tqt_onnx.cli import run
from tqt_onnx.cli.check import ROUNDINGS as OFFERED
from tqt_onnx.export import EXPORTERS, Source
from tqt_onnx.ir import save
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verbs.show import show_check
from tqt_onnx.verify import ROUNDINGS, RULES, measure_rounding


@pytest.fixture(name="files", scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rounding")
    save(quantized("tail"), folder / "net.q.onnx")
    np.save(folder / "x.npy", examples(70, 3))
    return folder


def test_the_command_offers_every_rounding() -> None:
    assert list(ROUNDINGS) == list(OFFERED)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_check_gives_the_effect_beside_its_comparison(rounding: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = quantized("tail"), examples(70, 3)
    plain, result = tqt_onnx.check(model, x), tqt_onnx.check(model, x, rounding=rounding)
    assert result.ok
    assert result.rounding == measure_rounding(model, [{"x": x}], rounding)
    assert {**result.to_dict(), "rounding": None} == plain.to_dict()
    found = result.to_dict()["rounding"]
    json.dumps(found, allow_nan=False)
    assert (found["rounding"], found["rule"], found["images"]) == (rounding, RULES[rounding], 70)
    assert [item["tensor"] for item in found["tensors"]] == [item["tensor"] for item in result.to_dict()["ties"]]
    assert [item["ties"] for item in found["tensors"]] == [item["ties"] for item in result.to_dict()["ties"]]
    assert [item["output"] for item in found["outputs"]] == ["p"]
    show_check(result)
    printed = capsys.readouterr().out
    changed, of = found["changed"], found["numbers"]
    counted = f"{changed:,} of {of:,} ({changed / of:.1%}) output integers"
    assert f"rounding {rounding} in place of half_even changes {counted}" in printed
    assert f"{found['answers_changed']} of 70" in printed
    assert (f"Rounded {rounding}, most changed first" in printed) is bool(changed)


def test_half_up_changes_something_and_the_pools_of_a_network_without_any_do_not() -> None:
    """A test of the tests: the effects that they compare are not all zero."""
    effects = {name: tqt_onnx.check(quantized("tail"), examples(70, 3), rounding=name).rounding for name in ROUNDINGS}
    assert {name: bool(effect and effect.changed) for name, effect in effects.items()} == {
        "half_even": False,
        "half_up": True,
        "half_away": True,
        "floor_pool": False,
    }


def test_the_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", str(files / "net.q.onnx"), "--data", str(files / "x.npy"), "--limit", "20"]
    assert run([*command, "--rounding", "half_up", "--json", str(tmp_path / "r.json")]) == 0
    assert "rounding half_up in place of half_even changes " in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (found["ok"], found["rounding"]["rounding"], found["rounding"]["images"]) == (True, "half_up", 20)
    assert run([*command, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["rounding"] is None
    assert run([*command, "--rounding", "up"]) == 2
    assert run(["check", str(files / "net.q.onnx"), "--require-certificate", "--rounding", "half_up"]) == 2
    assert "Received: no data" in capsys.readouterr().err


def test_an_unknown_rounding_or_no_data_is_refused() -> None:
    with pytest.raises(UsageError, match="Received: 'up'"):
        tqt_onnx.check(quantized("tail"), examples(2), rounding="up")
    with pytest.raises(UsageError, match="Received: no data"):
        tqt_onnx.check(quantized("tail"), rounding="half_up")


def test_a_copy_of_the_oracle_is_what_is_simulated() -> None:
    """The ties are those of the copy, and so is what changes."""
    model, x = quantized("residual"), examples(16)
    copy = model.clone()
    (bias,) = (value for value in copy.graph.initializers.values() if value.name == "y/b__q")
    assert bias.const_value is not None
    bias.const_value = onnx_ir.tensor(bias.const_value.numpy() + np.int16(77), name=bias.name)
    result = tqt_onnx.check(model, x, copies={"oracle": copy}, rounding="half_up")
    assert result.rounding == measure_rounding(copy, [{"x": x}], "half_up")
    assert result.rounding != measure_rounding(model, [{"x": x}], "half_up")


@dataclass(frozen=True)
class _Target:
    """Writes nothing, and rounds in its own way."""

    name: ClassVar[str] = "other"
    rounding: ClassVar[str] = "half_up"
    needs_data: ClassVar[bool] = False

    def check(self, source: Source) -> None:
        pass

    def write(self, source: Source, folder: Path) -> tuple[str, ...]:
        (folder / "empty").touch()
        return ("written.",)


@pytest.fixture(name="target")
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(EXPORTERS, "other", _Target)
    return "other"


def test_export_counts_what_the_targets_rounding_changes(target: str, tmp_path: Path) -> None:
    model, x = quantized("residual"), examples(40, 2)
    result = export_model(model, target, tmp_path / "out", data=x)
    effect = measure_rounding(model, [{"x": x}], "half_up")
    assert result.rounding_effect == effect
    first, note = result.notes
    assert first == "written."
    assert note == (
        "warning: target other rounds to nearest, ties up, towards +infinity (half_up); the model rounds to nearest, ties to even: "
        f"rounding half_up in place of half_even changes {effect.changed} of 200 ({effect.changed / 200:.1%}) output integers and "
        f"{effect.answers_changed} of 40 ({effect.answers_changed / 40:.1%}) top-1 answers, on 40 images."
    )
    assert effect.changed > 0
    written: dict[str, Any] = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert written["rounding_effect"] == json.loads(json.dumps(effect.to_dict()))
    assert written["notes"] == list(result.notes)


def test_without_data_export_says_who_counts_it(target: str, tmp_path: Path) -> None:
    result = export_model(quantized("residual"), target, tmp_path / "out")
    assert result.rounding_effect is None
    assert result.to_dict()["rounding_effect"] is None
    assert result.notes[1].endswith("--data, or `check --rounding half_up`, counts what that changes.")


def test_a_target_that_rounds_as_the_model_is_not_measured(tmp_path: Path) -> None:
    result = export_model(quantized("residual", 32), "qdq", tmp_path / "out", data=examples(8))
    assert result.rounding_effect is None
    assert not any(note.startswith("warning") for note in result.notes)
    assert result.notes[-1] == "--data was not used: target qdq writes no examples, and rounds as the model does"
