"""The verb `export`: what it returns, what it writes beside the target's files, and what it does with a folder in the way."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from handoff_networks import examples, quantized

import tqt_onnx
from tqt_onnx.cli import run
from tqt_onnx.export import EXPORTERS, QdqExporter, Source
from tqt_onnx.ir import DataError, ModelError, UsageError
from tqt_onnx.ir.errors import TqtOnnxError
from tqt_onnx.verbs.export import export_model
from tqt_onnx.verbs.export_folder import atomic_folder


@pytest.fixture(name="model", scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized model in a file, and examples beside it."""
    folder = tmp_path_factory.mktemp("model")
    tqt_onnx.save(quantized("residual", 32), folder / "net.v2.q.onnx")
    np.save(folder / "x.npy", examples(6))
    return folder / "net.v2.q.onnx"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is returned and written


def test_the_manifest_says_what_was_written(model: Path, tmp_path: Path) -> None:
    result = export_model(model, "qdq", tmp_path / "out")
    assert [file.path for file in result.files] == ["net.v2.onnx"]  # the name of the model without .q.onnx
    for file in result.files:
        data = (tmp_path / "out" / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    returned = json.loads(json.dumps(result.to_dict()))
    assert returned.pop("folder") == str(tmp_path / "out")
    assert manifest == {**returned, "options": {}, "model": "net.v2"}
    assert manifest["schema"] == "tqt_onnx.export/1"


def test_a_model_in_memory_has_no_name(tmp_path: Path) -> None:
    export_model(quantized("residual", 32), "qdq", tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_a_file_whose_name_is_all_suffix(model: Path, tmp_path: Path) -> None:
    (tmp_path / ".onnx").write_bytes(model.read_bytes())
    export_model(tmp_path / ".onnx", "qdq", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["model"] == "model"
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_limit_seed_and_exclude_choose_examples(model: Path, tmp_path: Path) -> None:
    data, (tensors, floats) = examples(6), ("manifest.json", "floats/000_x.npy")
    export_model(model, "vectors", tmp_path / "a", data=data, limit=2)
    np.testing.assert_array_equal(np.load(tmp_path / "a" / floats), data[:2])
    export_model(model, "vectors", tmp_path / "b", data=data, limit=3, seed=5)
    drawn = np.load(tmp_path / "b" / floats)
    assert drawn.shape[0] == 3 and all(any(np.array_equal(one, other) for other in data) for one in drawn)
    assert not np.array_equal(drawn, data[:3])
    assert json.loads((tmp_path / "b" / tensors).read_text())["examples"] == 3


def test_the_command_is_the_verb(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"export {model} --target vectors --data {model.parent}/x.npy --limit 2 -o {tmp_path}/cli --json -".split()
    assert run(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == f"{tmp_path}/cli"
    result = export_model(model, "vectors", tmp_path / "verb", data=model.parent / "x.npy", limit=2)
    assert content(tmp_path / "cli") == content(tmp_path / "verb")
    assert printed == {**json.loads(json.dumps(result.to_dict())), "folder": f"{tmp_path}/cli"}
    assert run([*words[:-1], f"{tmp_path}/r.json", "--force"]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == printed
    table = capsys.readouterr().out
    assert "2 examples, " in table and "export.json lists all of them" in table and table.count("\n") < 30


def test_the_list_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--list"]) == 0
    printed = capsys.readouterr().out
    for name, exporter in EXPORTERS.items():
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert exporter.summary in line and exporter.reader in line
        assert ("--data" in line) == exporter.needs_data


def test_options_reach_the_exporter(model: Path, tmp_path: Path) -> None:
    result = export_model(model, "integer", tmp_path / "out", options={"integer_io": True})
    assert json.loads((tmp_path / "out" / "export.json").read_text())["options"] == {"integer_io": True}
    assert result.target == "integer"
    (file,) = (tmp_path / "out").glob("*.onnx")
    proto = onnx.load(file)
    assert proto.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT


# --- what is refused


def test_unknown_targets_and_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"targets are qdq, .*Received: 'fpga'"):
        export_model(quantized("residual", 32), "fpga", tmp_path / "out")
    with pytest.raises(UsageError, match=r"target qdq takes no options\. Received: --integer-io"):
        export_model(quantized("residual", 32), "qdq", tmp_path / "out", options={"integer_io": True})
    with pytest.raises(UsageError, match=r"target integer takes --integer-io\. Received: --fix"):
        export_model(quantized("residual", 32), "integer", tmp_path / "out", options={"fix": True})
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_not_quantized(tmp_path: Path) -> None:
    model = quantized("residual", 32).clone()
    model.metadata_props.clear()
    with pytest.raises(ModelError, match="not a quantized model"):
        export_model(model, "qdq", tmp_path / "out")


def test_a_model_that_was_tampered_with(tmp_path: Path) -> None:
    """What the record says of quantizers must be what the nodes do."""
    proto = onnx_ir.to_proto(quantized("residual", 32))
    scales = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and not t.dims]
    scale = onnx.numpy_helper.to_array(scales[0])
    for value in (np.float32(scale * 2), np.float32(scale * 1.5)):
        changed = onnx.ModelProto.FromString(proto.SerializeToString())
        (place,) = [index for index, t in enumerate(changed.graph.initializer) if t.name == scales[0].name]
        changed.graph.initializer[place].CopyFrom(onnx.numpy_helper.from_array(np.asarray(value), scales[0].name))
        with pytest.raises(TqtOnnxError, match=r"is recorded|power of two"):
            export_model(onnx_ir.from_proto(changed), "qdq", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_data_that_does_not_fit(model: Path, tmp_path: Path) -> None:
    for data in (np.zeros((2, 8, 8, 4), np.float32), np.zeros((0, 8, 8, 3), np.float32), {"z": examples(2)}):
        with pytest.raises(DataError):
            export_model(model, "vectors", tmp_path / "out", data=data)
    nan = examples(3)
    nan[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError):
        export_model(model, "vectors", tmp_path / "out", data=nan)
    assert list(tmp_path.iterdir()) == []


# --- the folder


def test_a_folder_in_the_way(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(model, "qdq", out)
    before = content(out)
    with pytest.raises(UsageError, match="exists; give another name, or --force"):
        export_model(model, "vectors", out, data=examples(2))
    assert content(out) == before
    export_model(model, "vectors", out, data=examples(2), force=True)
    assert "net.onnx" not in content(out)  # nothing of the other target is left
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_model(model, "qdq", tmp_path / "out")
    assert len(content(tmp_path / "out")) == 2


def _beside(out: Path) -> Iterator[str]:
    (out / "mine.txt").write_text("precious")
    yield "a file"
    (out / "mine.txt").unlink()
    (out / "deep").mkdir()
    (out / "deep" / "mine.txt").write_text("precious")
    yield "a file in a folder"
    (out / "deep" / "mine.txt").unlink()
    (out / "deep").rmdir()
    (out / "link").symlink_to(out.parent)
    yield "a link to a folder"
    (out / "link").unlink()
    manifest = (out / "export.json").read_text()
    for text in ("", "[]", "null", '{"files": 3}', '{"files": [[]]}', '{"files": [{"path": []}]}', "[" * 100_000, "\xff"):
        (out / "export.json").write_text(text, encoding="latin-1")
        yield f"a manifest that says {text[:20]}"
    (out / "export.json").unlink()
    yield "no manifest"
    (out / "export.json").write_text(manifest)


def test_what_the_user_put_into_the_folder_stays(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(model, "qdq", out)
    for what in _beside(out):
        before = content(out)
        with pytest.raises(UsageError, match="holds something that no export wrote"):
            export_model(model, "qdq", out, force=True)
        assert content(out) == before, what
    export_model(model, "qdq", out, force=True)


def test_what_comes_into_the_way_meanwhile_stays(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = QdqExporter.write

    def slow(self: QdqExporter, source: Source, folder: Path) -> tuple[str, ...]:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("precious")
        return write(self, source, folder)

    monkeypatch.setattr(QdqExporter, "write", slow)
    for force in (False, True):
        with pytest.raises(UsageError):
            export_model(model, "qdq", tmp_path / "out", force=force)
        assert content(tmp_path) == {"out/mine.txt": b"precious"}
        (tmp_path / "out" / "mine.txt").unlink()
        (tmp_path / "out").rmdir()


def test_a_link_is_not_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, goal in (("link", "there"), ("dangling", "gone"), ("loop", "loop")):
        (tmp_path / name).symlink_to(tmp_path / goal)
        with pytest.raises(UsageError, match="exists and is no folder"):
            export_model(model, "qdq", tmp_path / name, force=True)
    with pytest.raises(UsageError, match="does not exist"):
        export_model(model, "qdq", tmp_path / "loop" / "out")
    export_model(model, "qdq", tmp_path / "link" / "out")  # one in the way to it is
    assert (tmp_path / "there" / "out" / "export.json").is_file()


def test_the_current_folder_is_not_replaced(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", "../here", "..", "sub/.."):
        with pytest.raises(UsageError, match=r"is the current folder, or holds it|does not exist"):
            export_model(model, "qdq", name, force=True)
    assert content(tmp_path) == {}
    export_model(model, "qdq", "out")
    assert (tmp_path / "here" / "out" / "export.json").is_file()


def test_a_folder_that_holds_what_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QdqExporter, "check", lambda self, source: None)
        patch.setattr(QdqExporter, "write", lambda self, source, folder: tqt_onnx.save(source.model, folder / "m.onnx") and ())
        export_model(quantized("residual", 32), "qdq", out)
    before = content(out)
    with pytest.raises(UsageError, match=r"out: holds the input .*m\.onnx; the name of another folder is expected"):
        export_model(out / "m.onnx", "qdq", out, force=True)
    with pytest.raises(UsageError, match=r"out: holds the input .*x\.npy"):
        export_model(quantized("residual", 32), "vectors", out, data=out / "x.npy", force=True)
    assert content(out) == before


def test_a_rename_that_fails_puts_the_old_folder_back(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export_model(model, "qdq", out)
    before, rename = content(out), Path.rename

    for error in (OSError(5, "Input/output error"), KeyboardInterrupt()):

        def fails(self: Path, target: Any, error: BaseException = error) -> Path:
            if self.suffix == ".part" and Path(target) == out:
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fails)
        with pytest.raises((UsageError, KeyboardInterrupt)):
            export_model(model, "vectors", out, data=examples(2), force=True)
        assert content(out) == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_users_umask_decides(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o755), (0o077, 0o700), (0o002, 0o775)):
        old = os.umask(umask)
        try:
            with atomic_folder(tmp_path / f"{mode:o}", force=False) as folder:
                (folder / "a").touch()
            assert stat.S_IMODE((tmp_path / f"{mode:o}").stat().st_mode) == mode
            assert os.umask(umask) == umask  # left as it was
        finally:
            os.umask(old)


@pytest.mark.parametrize("option", [{"limit": 1}, {"seed": 4}, {"exclude": "names.txt"}])
def test_what_chooses_among_examples_belongs_to_data(model: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--data is expected beside them"):
        export_model(model, "qdq", tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()
