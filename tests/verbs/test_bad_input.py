"""Bad input: exit status 2, one line on standard error that says what is wrong, and the folder as it was before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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


@pytest.fixture(name="dense", scope="module")
def dense_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `m.onnx` (dense 3 -> 2, relu, dense 2 -> 2), its quantized form `q.onnx` and data `x.npy`, `xy.npz`."""
    folder = tmp_path_factory.mktemp("dense")
    onnx.save(proto(), folder / "m.onnx")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "xy.npz", x=x, y=np.arange(8) % 2)
    command = ["quantize", f"{folder}/m.onnx", "--calibration", f"{folder}/x.npy", "-o"]
    assert run([*command, f"{folder}/q.onnx"]) == run([*command, f"{folder}/q32.onnx", "--layer-bits", "32"]) == 0
    return folder


def proto(*, opset: int = 21, ir_version: int = 10, weights: Any = None, width: int | str = 3) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(3, 2)) if weights is None else weights, "b": [0.5, -1], "v": rng.normal(size=(2, 2))}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "v"], ["y"], name="second"),
        ],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


QUANTIZE = "quantize {d}/m.onnx -o {t}/out.onnx --calibration {d}/x.npy"

# --- files that are not models


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("convert {t}/none.pb -o {t}/o.onnx", "none.pb: no such file"),
        ("convert {t}/none.keras -o {t}/o.onnx", "none.keras: no such file"),
        ("quantize {t}/none.onnx -o {t}/o.onnx --calibration {d}/x.npy", "none.onnx: no such file"),
        ("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/none.npy", "none.npy: no such file"),
        ("check {t}/none.onnx --data {d}/x.npy", "none.onnx: no such file"),
        ("check {d}/q.onnx --data {t}/none", "none: no such file"),
        ("evaluate {t}/none.onnx --data {d}/xy.npz", "none.onnx: no such file"),
        ("evaluate {d}/m.onnx {t}/none.onnx --data {d}/xy.npz", "none.onnx: no such file"),
        ("inspect {t}/none.onnx", "none.onnx: no such file"),
        ("convert {t} -o {t}/o.onnx", "is a folder"),
        ("inspect {t}", "no such file; an .onnx file"),
    ],
)
def test_missing_files(refused: Callable[..., str], dense: Path, command: str, says: str) -> None:
    assert says in refused(command, d=dense)


@pytest.mark.parametrize(
    "content", [b"", b"just some text\n" * 50, b"\x00" * 300, bytes(range(256)) * 20], ids=["empty", "text", "zeros", "binary"]
)
@pytest.mark.parametrize("suffix", ["onnx", "pb", "keras", "h5", "txt"])
def test_files_that_are_not_what_they_are_called(refused: Callable[..., str], tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    command = "inspect {t}/bad.onnx" if suffix == "onnx" else f"convert {{t}}/bad.{suffix} -o {{t}}/o.onnx"
    assert f"bad.{suffix}" in refused(command)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["net.onnx", "layer16.onnx", "net.keras", "net.pb", "net.h5"])
def test_truncated_files(refused: Callable[..., str], tmp_path: Path, sources: Path, name: str, share: float) -> None:
    whole = (sources / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    command = f"inspect {{t}}/{name}" if name.endswith(".onnx") else f"convert {{t}}/{name} -o {{t}}/o.onnx"
    assert name in refused(command)


@pytest.fixture(name="sources", scope="session")
def all_sources(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network in every format, and a file with a Lambda layer."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("net.onnx", "layer16.onnx", "net.keras"):
        (folder / name).write_bytes((road / name).read_bytes())
    from tqt_onnx.frontend_tf import load
    from tqt_onnx.frontend_tf.quiet import quiet

    with quiet():
        import keras

        keras.models.load_model(road / "net.keras").save(folder / "net.h5")
        x = keras.Input((4,))
        keras.Model(x, keras.layers.Lambda(lambda v: v * 2)(x)).save(folder / "lambda.keras")
        keras.Model(x, keras.layers.Lambda(lambda v: v * 2)(x)).save(folder / "lambda.h5")
    (folder / "net.pb").write_bytes(load(road / "net.keras").graph_def.SerializeToString())
    return folder


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_layer_is_not_executed(refused: Callable[..., str], sources: Path, suffix: str) -> None:
    line = refused(f"convert {{s}}/lambda.{suffix} -o {{t}}/o.onnx", s=sources)
    assert "ambda" in line


def test_names_of_a_frozen_graph(refused: Callable[..., str], sources: Path) -> None:
    line = refused("convert {s}/net.pb -o {t}/o.onnx --outputs net/relu6/Relu", s=sources)
    assert "net/relu6/Relu6" in line  # a name that is close
    line = refused("convert {s}/net.pb -o {t}/o.onnx --inputs imagine", s=sources)
    assert "image" in line
    assert "names can be given" in refused("convert {s}/net.keras -o {t}/o.onnx --outputs dense", s=sources)
    assert "whole numbers" in refused("convert {s}/net.pb -o {t}/o.onnx --input-shape 8x8x3", s=sources)
    for shape in ("0,8,3", "8,8,-3", "8,8", "8,8,3,1", "16,16,3", ","):
        refused("convert {s}/net.pb -o {t}/o.onnx --input-shape", shape, s=sources)
    assert "'image' (8, 8, 3)" in refused("convert {s}/net.keras -o {t}/o.onnx --input-shape 8,8,1", s=sources)


# --- outputs


@pytest.mark.parametrize("verb", ["quantize {d}/m.onnx --calibration {d}/x.npy", "convert {s}/net.pb"])
def test_outputs_in_the_way_or_with_nowhere_to_go(
    refused: Callable[..., str], tmp_path: Path, dense: Path, sources: Path, verb: str
) -> None:
    (tmp_path / "there.onnx").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    places = {"d": dense, "s": sources}
    assert "there.onnx: exists" in refused(f"{verb} -o {{t}}/there.onnx", **places)
    assert "is a folder" in refused(f"{verb} --force -o {{t}}/folder", **places)
    assert "does not exist" in refused(f"{verb} -o {{t}}/none/o.onnx", **places)
    assert "does not exist" in refused(f"{verb} -o {{t}}/there.onnx/o.onnx", **places)  # below a regular file
    assert "cannot be written" in refused(f"{verb} -o", "{t}/" + "n" * 250 + ".onnx", **places)


def test_a_folder_that_takes_no_files(refused: Callable[..., str], dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", denied)  # root may write everywhere
    assert "cannot be written: Permission denied" in refused(QUANTIZE, d=dense)


def test_a_full_disk(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    command = QUANTIZE.format(t=tmp_path, d=dense).split()
    assert run(command) == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("out.onnx: cannot be written: No space left on device")
    assert list(tmp_path.iterdir()) == []  # in spite of ten bytes written


# --- models that do not fit


def test_quantized_and_float_models_in_each_others_place(refused: Callable[..., str], dense: Path) -> None:
    assert "quantized already" in refused("quantize {d}/q.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)
    assert "not a quantized model" in refused("check {d}/m.onnx --data {d}/x.npy", d=dense)


def test_quantizers_of_another_tool(refused: Callable[..., str], tmp_path: Path, dense: Path) -> None:
    model = onnx.load(dense / "q.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    assert "of another tool" in refused("quantize {t}/other.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"contract": "layer16", "quantizers": [1]}', '{"contract": "x", "quantizers": []}', "[" * 100_000]
)
def test_damaged_metadata(refused: Callable[..., str], tmp_path: Path, dense: Path, text: str) -> None:
    model = onnx.load(dense / "q.onnx")
    next(entry for entry in model.metadata_props if entry.key == "tqt_onnx.quantizers").value = text
    onnx.save(model, tmp_path / "bad.onnx")
    refused("check {t}/bad.onnx --data {d}/x.npy", d=dense)
    refused("inspect {t}/bad.onnx", d=dense)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"opset": 22}, "opset 21 is expected"),
        ({"opset": 13}, "opset 21 is expected"),
        ({"opset": 9999}, "opset 21 is expected"),
        ({"ir_version": 99}, "bad.onnx"),
        ({"weights": np.full((3, 2), np.nan)}, "'w'"),
        ({"weights": np.array([[1, 2], [3, 4], [5, np.inf]])}, "'w'"),
        ({"weights": np.full((3, 2), 1e-36)}, "2^-"),
        ({"weights": np.ones((4, 2))}, "shape inference fails"),
    ],
)
def test_models_that_cannot_be_quantized(
    refused: Callable[..., str], tmp_path: Path, dense: Path, options: dict[str, Any], says: str
) -> None:
    onnx.save(proto(**options), tmp_path / "bad.onnx")
    assert says in refused("quantize {t}/bad.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "none.bin", "", "link.bin", "../in"])
def test_external_data_outside_the_folder(refused: Callable[..., str], tmp_path: Path, dense: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "in" / "m.onnx").write_bytes(model.SerializeToString())
    assert "which is no file inside" in refused("quantize {t}/in/m.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)
    refused("inspect {t}/in/m.onnx", d=dense)


def test_external_data_inside_the_folder_is_read(tmp_path: Path, dense: Path) -> None:
    onnx.save(proto(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.bin")
    assert (tmp_path / "m.bin").is_file()
    assert run(["quantize", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/q.onnx", "--calibration", f"{dense}/x.npy"]) == 0
    assert (tmp_path / "q.onnx").read_bytes() == (dense / "q.onnx").read_bytes()
    assert run(["evaluate", f"{tmp_path}/m.onnx", f"{tmp_path}/q.onnx", "--data", f"{dense}/xy.npz"]) == 0


def test_an_ir_version_that_onnxruntime_does_not_know_is_lowered_on_reading(tmp_path: Path, dense: Path) -> None:
    onnx.save(proto(ir_version=14), tmp_path / "m.onnx")
    assert run(["evaluate", f"{tmp_path}/m.onnx", "--data", f"{dense}/xy.npz"]) == 0
    assert run(["quantize", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/q.onnx", "--calibration", f"{dense}/x.npy"]) == 0
    assert (tmp_path / "q.onnx").read_bytes() == (dense / "q.onnx").read_bytes()  # of the one IR version (O1)


def test_a_graph_without_anything_to_quantize(refused: Callable[..., str], tmp_path: Path, dense: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    assert "nothing to quantize" in refused("quantize {t}/m.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


# --- data


def bad_arrays() -> dict[str, Any]:
    good = np.ones((8, 3), np.float32)
    nan, inf = good.copy(), good.copy()
    nan[5, 1], inf[7, 2] = np.nan, -np.inf
    return {
        "wrong width": (np.ones((8, 4), np.float32), "[N, 3]"),
        "wrong rank": (np.ones((8, 3, 1), np.float32), "[N, 3]"),
        "one number": (np.float32(1), "[N, 3]"),
        "NaN": (nan, "nan"),
        "Inf": (inf, "inf"),
        "float64 beyond float32": (good.astype(np.float64) * 1e300, "inf"),
        "empty": (good[:0], "non-empty"),
        "pickled objects": (np.array([[1, "a", None]] * 8, dtype=object), "bad.npy"),
        "text": (np.array([["a", "b", "c"]]), "numbers"),
        "complex": (good.astype(np.complex64), "numbers"),
    }


@pytest.mark.parametrize("kind", bad_arrays())
def test_arrays_that_do_not_fit(refused: Callable[..., str], tmp_path: Path, dense: Path, kind: str) -> None:
    array, says = bad_arrays()[kind]
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    np.savez(tmp_path / "bad.npz", x=array, y=np.zeros(8, np.int64))
    assert says in refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/bad.npy", d=dense)
    assert says in refused("quantize {d}/m.onnx -o {t}/o.onnx --parallel-calibration --calibration {t}/bad.npy", d=dense)
    assert says in refused("check {d}/q.onnx --data {t}/bad.npy", d=dense)
    refused("evaluate {d}/m.onnx --data {t}/bad.npz", d=dense)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 0, 1, 0, 1, 0], [0, 1, -1, 0, 1, 0, 1, 0], [0.5] * 8, [0] * 7, [[0, 1]] * 8, [2**40] * 8]
)
def test_labels_that_do_not_fit(refused: Callable[..., str], tmp_path: Path, dense: Path, labels: list[Any]) -> None:
    np.savez(tmp_path / "bad.npz", x=np.ones((8, 3), np.float32), y=np.array(labels))
    assert "label" in refused("evaluate {d}/m.onnx --data {t}/bad.npz", d=dense)


@pytest.mark.parametrize("offset", ["1", "-1", "1000000"])
def test_a_label_offset_out_of_range(refused: Callable[..., str], dense: Path, offset: str) -> None:
    assert f"label offset {offset}" in refused("evaluate {d}/m.onnx --data {d}/xy.npz --label-offset", offset, d=dense)


def test_an_accuracy_bound_needs_labels(refused: Callable[..., str], dense: Path) -> None:
    assert "labels" in refused("evaluate {d}/m.onnx --data {d}/x.npy --min-accuracy 0.5", d=dense)
    assert "0<=x<=1" in refused("evaluate {d}/m.onnx --data {d}/xy.npz --min-accuracy 76", d=dense)


def test_negative_data_for_an_unsigned_input(refused: Callable[..., str], dense: Path) -> None:
    line = refused(f"{QUANTIZE} --unsigned-input", d=dense)
    assert "'x'" in line and "unsigned" in line and "-" in line


def test_images_for_a_network_without_images(refused: Callable[..., str], tmp_path: Path, dense: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "one.png")
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/images", d=dense)
    (tmp_path / "images" / "one.png").write_bytes(b"no image")
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/images", d=dense)
    (tmp_path / "none").mkdir()
    refused("quantize {d}/m.onnx -o {t}/o.onnx --calibration {t}/none", d=dense)


# --- options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--weight-bits 1", "weight bits must be 2 to 8. Received: 1"),
        ("--weight-bits 9", "weight bits must be 2 to 8. Received: 9"),
        ("--weight-bits -9", "weight bits must be 2 to 8"),
        ("--weight-bits 0", "weight bits must be 2 to 8"),
        ("--weight-bits eight", "--weight-bits"),
        ("--activation-bits 16", "activation bits must be 2 to 8"),
        ("--relu-bits 1", "relu bits"),
        ("--avgpool-bits 9", "average pool bits"),
        ("--avgpool-reciprocal-bits 9", "reciprocal bits"),
        ("--layer-bits 7", "layer bits must be 16 or 32. Received: 7"),
        ("--layer-bits 8", "layer bits must be 16 or 32"),
        ("--first-layer frist", "no compute layer is called 'frist'; the layers are first, second"),
        ("--last-layer relu", "no compute layer is called 'relu'"),
        ("--method percentile", "mse"),
        ("--weight-method klj", "mse"),
        ("--limit 0", "--limit"),
        ("--seed -1", "seed"),
        ("--preprocess imagenet", "inception"),
        ("--preprocess unit", "floating-point"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_options(refused: Callable[..., str], dense: Path, options: str, says: str) -> None:
    assert says in refused(f"{QUANTIZE} {options}", d=dense)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--engines oracle,tflite", "tflite"),
        ("--engines oracle", "an engine to be compared with"),
        ("--engines ,", "an engine to be compared with"),
        ("--copy ort", "ENGINE=FILE"),
        ("--copy ort=", "ENGINE=FILE"),
        ("--copy tflite={d}/q.onnx", "ort-optimized"),
        ("--copy ort={d}/none.onnx", "none.onnx: no such file"),
        ("--copy tf={d}/q.onnx", "--engines"),
        ("--copy ort={d}/q.onnx --copy ort={d}/q.onnx", "twice"),
        ("--copy ort={d}/m.onnx", "quantized"),
        ("--copy ort={d}/q32.onnx", "another network"),
        ("--copy oracle={d}/q32.onnx", "another network"),
        ("--copy oracle={d}/m.onnx", "quantized"),
        ("--engines oracle,tf --copy tf={d}/m.onnx", "quantized"),
    ],
)
def test_options_of_check(refused: Callable[..., str], dense: Path, options: str, says: str) -> None:
    assert says in refused(f"check {{d}}/q.onnx --data {{d}}/x.npy {options}", d=dense)


def test_options_of_evaluate(refused: Callable[..., str], dense: Path) -> None:
    assert "once" in refused("evaluate {d}/m.onnx {d}/m.onnx --data {d}/xy.npz", d=dense)
    refused("evaluate --data {d}/xy.npz", d=dense)


def test_an_unknown_verb(refused: Callable[..., str]) -> None:
    assert "quantise" in refused("quantise")


def test_models_of_unlike_inputs(refused: Callable[..., str], tmp_path: Path, dense: Path) -> None:
    onnx.save(proto(weights=np.ones((4, 2)), width=4), tmp_path / "wide.onnx")
    refused("evaluate {d}/m.onnx {t}/wide.onnx --data {d}/xy.npz", d=dense)
    onnx.save(proto(width="W"), tmp_path / "open.onnx")
    assert run(["quantize", str(tmp_path / "open.onnx"), "-o", str(tmp_path / "o.onnx"), "--calibration", f"{dense}/x.npy"]) in (
        0,
        2,
    )
