"""Bad input: exit status 2, one line on standard error that says what is wrong, and the folder as it was before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_files import dense_network

from tqt_onnx.cli import run


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture(name="refused")
def refusal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in which `{t}` is the test's folder; returns the one line on standard error."""

    def refused(command: str, *arguments: str, **places: Path) -> str:
        words = [word.format(t=tmp_path, **places) for word in [*command.split(), *arguments]]
        before = listing(tmp_path)
        capfd.readouterr()
        status = run(words)
        received = capfd.readouterr()
        assert status == 2, received
        lines = received.err.splitlines()
        assert len(lines) == 1, received.err
        assert lines[0].startswith("tqt-onnx: error: ")
        assert "Traceback" not in received.err + received.out
        assert "a defect of tqt-onnx" not in lines[0], lines[0]
        assert received.out == ""
        assert listing(tmp_path) == before
        return lines[0]

    return refused


@pytest.fixture(name="dense", scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `m.onnx` (dense 3 -> 2, relu, dense 2 -> 2), its quantized forms and data `x.npy`, `xy.npz`."""
    folder = tmp_path_factory.mktemp("dense")
    onnx.save(dense_network(), folder / "m.onnx")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "xy.npz", x=x, y=np.arange(8) % 2)
    command = ["quantize", f"{folder}/m.onnx", "--calibration", f"{folder}/x.npy", "-o"]
    assert run([*command, f"{folder}/q.onnx"]) == run([*command, f"{folder}/q32.onnx", "--layer-bits", "32"]) == 0
    return folder


@pytest.fixture(name="sources", scope="session")
def all_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network as `net.keras`, `net.h5`, `net.pb`, `net.onnx` and `q.onnx`, and files with a Lambda layer."""
    folder = tmp_path_factory.mktemp("sources")
    from tqt_onnx.frontend_tf import load
    from tqt_onnx.frontend_tf.quiet import quiet

    with quiet():
        import keras
        from keras import layers

        keras.utils.set_random_seed(0)
        x = keras.Input((4, 4, 3), name="image")
        y = layers.ReLU(6.0, name="relu6")(layers.BatchNormalization(name="bn")(layers.Conv2D(2, 3, name="conv")(x)))
        net = keras.Model(x, layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D(name="pool")(y)), name="net")
        net.save(folder / "net.keras")
        net.save(folder / "net.h5")
        x = keras.Input((4,))
        odd = keras.Model(x, layers.Lambda(lambda v: v * 2, name="twice")(x))
        odd.save(folder / "lambda.keras")
        odd.save(folder / "lambda.h5")
    (folder / "net.pb").write_bytes(load(folder / "net.keras").graph_def.SerializeToString())
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(4, 4, 4, 3)).astype(np.float32))
    assert run(["convert", f"{folder}/net.pb", "-o", f"{folder}/net.onnx"]) == 0
    assert run(["quantize", f"{folder}/net.onnx", "-o", f"{folder}/q.onnx", "--calibration", f"{folder}/x.npy"]) == 0
    return folder
