"""What every target owes, whoever it is for: one test each over the whole table."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import resource
import stat
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir
import pytest
from handoff_networks import NETWORKS, examples, quantized

import tqt_onnx
from tqt_onnx.cli.export import TARGET_OPTIONS, TARGETS
from tqt_onnx.cli.export import export as command
from tqt_onnx.export import EXPORTERS, Source
from tqt_onnx.ir import UnsupportedError, UsageError
from tqt_onnx.ir.errors import TqtOnnxError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.export import Export, export_model, make_source
from tqt_onnx.verbs.sources import Feeder

ROUNDINGS = {"half_even", "half_up", "half_away", "floor_pool"}
"""What `check --rounding` knows."""

PREFERRED = ("residual", "depthwise", *NETWORKS)
SLOW = {"saved-model", "tflite"}
"""They load TensorFlow."""


def data_for(target: str) -> Any:
    return examples(3, 2) if EXPORTERS[target].needs_data else None


def source_of(model: onnx_ir.Model, target: str) -> Source:
    data = data_for(target)
    return make_source(model, "model", None if data is None else Feeder(model, data))


def narrow(name: str) -> onnx_ir.Model:
    """Relus of 7 bits, which an engine of signed bytes holds."""
    bits = BitWidths(layer=32, relu=7, average_pool=7, reciprocal=7)
    return tqt_onnx.quantize(NETWORKS[name](), examples(32, 0), bits=bits).model


@cache
def held_by(target: str) -> onnx_ir.Model:
    """The first of the small networks that the target takes as it is."""
    forms = (lambda name: quantized(name, 32), quantized, narrow)
    for quantize, name in itertools.product(forms, PREFERRED):
        model = quantize(name)
        try:
            EXPORTERS[target]().check(source_of(model, target))
        except UnsupportedError:
            continue
        return model
    raise AssertionError(f"target {target} takes none of {', '.join(NETWORKS)}")


@pytest.fixture(name="written", scope="module", params=list(EXPORTERS))
def every_target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Each target, exported once."""
    folder = tmp_path_factory.mktemp("once") / "out"
    before = os.umask(0o027)
    try:
        return export_model(held_by(request.param), request.param, folder, data=data_for(request.param))
    finally:
        os.umask(before)


# --- the table


def test_the_command_line_has_the_targets_of_the_table_in_their_order() -> None:
    assert tuple(EXPORTERS) == TARGETS


def test_options_are_fields_and_fields_are_options() -> None:
    fields = {field.name: target for target, exporter in EXPORTERS.items() for field in dataclasses.fields(exporter)}
    assert fields == TARGET_OPTIONS
    typed = {parameter.name for parameter in command.params if isinstance(parameter, click.Option)}
    assert set(TARGET_OPTIONS) <= typed
    assert len(fields) == sum(len(dataclasses.fields(exporter)) for exporter in EXPORTERS.values())  # no name means two things


@pytest.mark.parametrize("target", EXPORTERS)
def test_what_the_list_says(target: str) -> None:
    exporter = EXPORTERS[target]
    assert exporter.name == target
    assert dataclasses.is_dataclass(exporter) and exporter.__dataclass_params__.frozen
    assert exporter() == exporter()  # every option has a default
    assert exporter.rounding in ROUNDINGS
    assert isinstance(exporter.needs_data, bool)
    for text in (exporter.summary, exporter.reader):
        assert text and text == text.strip() and "\n" not in text and not text.endswith(".") and len(text) <= 110


# --- check


@pytest.mark.parametrize("target", EXPORTERS)
def test_check_and_write_leave_the_model_as_it_is(target: str, tmp_path: Path) -> None:
    source = source_of(held_by(target), target)
    before = onnx_ir.to_proto(source.model).SerializeToString(deterministic=True)
    exporter = EXPORTERS[target]()
    exporter.check(source)
    exporter.write(source, tmp_path)
    assert onnx_ir.to_proto(source.model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("target", EXPORTERS)
def test_every_refusal_names_the_target_and_writes_nothing(target: str, tmp_path: Path) -> None:
    """Each small network, in either contract, with weights of 8 and of 4 bits: written, or refused by name."""
    names = ("swish", "tail") if target in SLOW else tuple(NETWORKS)
    for name, layer, weight in itertools.product(names, (16, 32), (8, 4)):
        folder = tmp_path / f"{name}{layer}{weight}"
        try:
            export_model(quantized(name, layer, weight), target, folder, data=data_for(target))
        except UnsupportedError as error:
            assert str(error).startswith(f"target {target}: "), error
            assert not folder.exists()
        else:
            assert (folder / "export.json").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("target", EXPORTERS)
def test_what_check_refuses_is_not_written(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, source: Source) -> None:
        raise UnsupportedError(f"target {self.name}: no")

    def write(self: Any, source: Source, folder: Path) -> tuple[str, ...]:
        raise AssertionError("written in spite of a refusal")

    monkeypatch.setattr(EXPORTERS[target], "check", refuse)
    monkeypatch.setattr(EXPORTERS[target], "write", write)
    with pytest.raises(UnsupportedError, match=f"target {target}: no"):
        export_model(quantized("residual", 32), target, tmp_path / "out", data=data_for(target))
    assert list(tmp_path.iterdir()) == []


# --- write


def test_files_are_listed_and_take_the_users_permissions(written: Export) -> None:
    there = {path.relative_to(written.folder).as_posix(): path for path in written.folder.rglob("*")}
    files = {name for name, path in there.items() if path.is_file()}
    assert {file.path for file in written.files} | {"export.json"} == files and len(files) > 1
    assert not any(path.is_symlink() for path in there.values())
    odd = {
        name: oct(stat.S_IMODE(path.stat().st_mode))
        for name, path in there.items()
        if stat.S_IMODE(path.stat().st_mode) & ~0o110 != 0o640
    }
    assert odd == {}  # 0o666 less the umask; programs and folders may also be run
    assert stat.S_IMODE(written.folder.stat().st_mode) == 0o750
    assert all(note and "\n" not in note for note in written.notes)


def test_two_exports_are_the_same_bytes(written: Export, tmp_path: Path) -> None:
    again = export_model(held_by(written.target), written.target, tmp_path / "elsewhere", data=data_for(written.target))
    assert again.files == written.files
    assert again.notes == written.notes


def test_nothing_says_where_it_was_written(written: Export) -> None:
    words = [str(written.folder).encode(), os.fsencode(Path(__file__).parents[2])]
    for path in written.folder.rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in words), path


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("target", EXPORTERS)
def test_a_disk_that_fills_up_leaves_nothing(target: str, tmp_path: Path) -> None:
    model, data = held_by(target), data_for(target)
    with disk_of(400), pytest.raises(TqtOnnxError) as refused:
        export_model(model, target, tmp_path / "out", data=data)
    assert "cannot be written" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", EXPORTERS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError(), ValueError("no")])
def test_a_write_that_breaks_off_leaves_what_was_there(
    target: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: Any, source: Source, folder: Path) -> tuple[str, ...]:
        (folder / "deep").mkdir()
        (folder / "deep" / "half").write_bytes(b"ha")
        raise error

    monkeypatch.setattr(EXPORTERS[target], "check", lambda self, source: None)
    monkeypatch.setattr(EXPORTERS[target], "write", lambda self, source, folder: (folder / "a").write_bytes(b"old") and ())
    model, data = quantized("residual", 32), data_for(target)
    export_model(model, target, tmp_path / "out", data=data)
    monkeypatch.setattr(EXPORTERS[target], "write", write)
    expected = UsageError if isinstance(error, OSError) else type(error)
    for folder in ("new", "out"):
        with pytest.raises(expected):
            export_model(model, target, tmp_path / folder, data=data, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "export.json"]
    assert (tmp_path / "out" / "a").read_bytes() == b"old"


def test_the_example_of_the_page_on_adding_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exporter passes its own test, as both are printed there."""
    page = Path(__file__).parents[2] / "docs" / "adding_a_target.md"
    exporter, _, test = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("tqt_onnx.export.coe")
    module.__package__ = "tqt_onnx.export"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(exporter, "coe.py", "exec"), module.__dict__)
    monkeypatch.setitem(EXPORTERS, "coe", module.CoeExporter)
    tests: dict[str, Any] = {}
    exec(compile(test, "test_coe.py", "exec"), tests)
    for name in ("depthwise", "leaky"):
        (tmp_path / name).mkdir()
        tests["test_the_words_are_the_constants"](name, 4, tmp_path / name)
    (tmp_path / "wide").mkdir()
    tests["test_words_that_are_too_wide"](tmp_path / "wide")


def test_numbers_of_the_small_networks_are_small() -> None:
    """The tests above would prove little on a network that is all zeros."""
    for name in NETWORKS:
        source = make_source(quantized(name, 32), "m", None)
        found = source.oracle({"x": examples(2)})
        assert all(np.unique(found[end]).size > 3 for end in source.network.ends)
