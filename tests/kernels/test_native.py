"""Building native operators: once, privately, safely beside others, and dispensable."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf

from tqt_onnx.kernels import native
from tqt_onnx.kernels.epilogue import Rounding, epilogue

FAKE = """#!/bin/sh
case "$*" in *-dM*) echo "#define NATIVE $FAKE_PROCESSOR"; exit 0;; esac
echo run >> "$FAKE_RUNS"
while [ "$1" != -o ]; do shift; done
printf half > "$2"; sleep 0.3; {end}
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no memory of what was built before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    native.operators.cache_clear()
    yield tmp_path / "cache" / "tqt-onnx" / "native"
    native.operators.cache_clear()


def compiler(tmp_path, monkeypatch, end):
    """A compiler that is a script."""
    script = tmp_path / "compiler"
    script.write_text(FAKE.replace("{end}", end))
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("FAKE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FAKE_PROCESSOR", "1")


def one_line(caplog) -> str:
    with caplog.at_level(logging.WARNING):
        assert native.operators() is None
        assert native.operators() is None
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "\n" not in record.getMessage()
    return record.getMessage()


def test_a_switch_does_without(cache, monkeypatch, caplog):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.SWITCH in one_line(caplog)
    assert not cache.exists()
    assert float(epilogue(tf.constant([0.3]), Rounding(tf.constant(-1.0), 8, True))[0]) == 0.5


def test_no_compiler(cache, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    assert "no C++ compiler" in one_line(caplog)


def test_a_compiler_that_cannot_be_read(cache, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "g++ '-O2")
    assert "CXX cannot be read" in one_line(caplog)


def test_without_a_home_the_cache_that_is_named_does(cache, tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    compiler(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setattr(tf, "load_op_library", lambda path: Path(path).read_text())
    assert native.operators() == "half"
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("home", [None, "somewhere", ""])
def test_without_home_and_cache_nothing_is_built(tmp_path, monkeypatch, caplog, home):
    monkeypatch.setattr(Path, "home", lambda: Path(home) if home is not None else Path("~nobody-there").expanduser())
    compiler(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    native.operators.cache_clear()
    assert "there is no home folder" in one_line(caplog)
    native.operators.cache_clear()
    assert {path.name for path in tmp_path.iterdir()} == {"compiler"}


def test_a_relative_cache_is_ignored(cache, tmp_path, monkeypatch):
    """As the specification of XDG_CACHE_HOME has it; else code would be loaded from wherever one happens to work."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    assert native._private_folder().is_relative_to(tmp_path / "home")
    assert not (tmp_path / "relative").exists()


def test_a_compiler_that_fails_leaves_nothing(cache, tmp_path, monkeypatch, caplog):
    compiler(tmp_path, monkeypatch, 'echo "epilogue.cc:1: error: no such header" >&2; exit 1')
    assert "no such header" in one_line(caplog)
    assert list(cache.iterdir()) == []


def test_what_is_no_library_is_not_used(cache, tmp_path, monkeypatch, caplog):
    compiler(tmp_path, monkeypatch, "exit 0")
    assert "no native operators" in one_line(caplog)


def test_a_folder_that_others_may_write_to_is_refused(cache, tmp_path, monkeypatch, caplog):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    compiler(tmp_path, monkeypatch, "exit 0")
    assert "nobody else may write" in one_line(caplog)
    assert not (tmp_path / "runs").exists()


def test_who_builds_at_once_sees_whole_libraries_and_once_is_enough(cache, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, 'printf " whole" >> "$2"')
    monkeypatch.setattr(tf, "load_op_library", lambda path: Path(path).read_text())
    with ThreadPoolExecutor() as pool:  # each runs a compiler of its own, as processes would
        assert list(pool.map(lambda _: native._loaded(), range(3))) == ["half whole"] * 3
    assert len(list(cache.iterdir())) == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    built = (tmp_path / "runs").read_text()
    assert native.operators() == "half whole"
    assert (tmp_path / "runs").read_text() == built
    monkeypatch.setenv("FAKE_PROCESSOR", "2")
    assert native._loaded() == "half whole"
    assert len(list(cache.iterdir())) == 2  # another processor, another library


def test_what_is_damaged_or_cannot_be_loaded_is_built_once_more(cache, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, "exit 0")
    loaded, refused = [], []

    def load(path):
        loaded.append(path)
        if refused:
            raise tf.errors.NotFoundError(None, None, refused.pop())
        return Path(path).read_text()

    monkeypatch.setattr(tf, "load_op_library", load)
    runs = tmp_path / "runs"
    assert native._loaded() == native._loaded() == "half"
    (library,) = cache.iterdir()
    for damage in ("", "ha", "hal\0", "half and more"):
        runs.unlink()
        library.write_text(damage)
        assert native._loaded() == "half"
        assert runs.read_text() == "run\n"
    assert len(loaded) == 6  # what is damaged is not even tried: it could crash the process
    refused.append("undefined symbol")
    assert native._loaded() == "half"
    refused.extend(["undefined symbol"] * 2)
    with pytest.raises(tf.errors.NotFoundError):
        native._loaded()


def test_a_build_from_nothing_and_one_over_a_damaged_library(tmp_path):
    """The real compiler, in processes of their own: half a library crashes the process that loads it."""
    if native.operators() is None:
        pytest.skip("no native operators")
    script = "import tensorflow as tf; from tqt_onnx.kernels import native; "
    script += "from tqt_onnx.kernels.epilogue import Rounding, epilogue; assert native.operators() is not None; "
    script += "print(epilogue(tf.constant([0.3]), Rounding(tf.constant(-1.0), 8, True)).numpy())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    found = set()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[0.5]"
        (library,) = (tmp_path / "tqt-onnx" / "native").iterdir()
        whole = library.read_bytes()
        found.add(library.name)
        library.write_bytes(whole[: len(whole) // 2])
    assert len(found) == 1
