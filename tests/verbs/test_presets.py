"""Presets: the files that come with the package, a user's own, and what the command makes of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest

import tqt_onnx
from tqt_onnx.cli import run
from tqt_onnx.ir import UsageError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.presets import Preset, preset, preset_names, presets

GRAFFITIST = {
    "vgg16", "vgg19", "resnet_v1_50", "resnet_v1_101", "resnet_v1_152", "resnet_v1p5_50", "inception_v1", "inception_v2",
    "inception_v3", "inception_v4", "mobilenet_v1", "mobilenet_v2", "darknet19", "yolo_v2", "yolo_v2_tiny",
}  # fmt: skip


def test_the_fifteen_networks() -> None:
    assert set(preset_names()) == GRAFFITIST
    assert len(presets().presets) == 15
    found = preset("mobilenet_v1")
    assert found.inputs == ("input",) and found.outputs == ("MobilenetV1/Predictions/Softmax",)
    assert found.input_shape == (224, 224, 3) and found.preprocess == "inception" and found.label_offset == 1
    assert found.bits == BitWidths(
        first_layer="MobilenetV1/MobilenetV1/Conv2d_0/Conv2D", last_layer="MobilenetV1/Logits/Conv2d_1c_1x1/Conv2D"
    )
    assert found.published_top1["int8_static"] == 0.6
    assert tqt_onnx.preset("mobilenet_v1") == found


@pytest.mark.real
def test_they_say_what_the_table_of_graffitist_s_networks_says(data: Path) -> None:
    columns = {"float": "fp32_top1", "int8_static": "int8_static_top1", "float_retrained": "fp32_retrained_top1"}
    columns |= {"int8_retrained": "int8_retrained_top1", "int4_retrained": "int4_retrained_top1"}
    with (data / "graffitist_networks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows} == set(preset_names())
    for row in rows:
        found = preset(row["network"])
        assert (found.inputs, found.outputs) == ((row["input_node"],), (row["output_node"],))
        assert ",".join(map(str, found.input_shape)) == row["input_shape"]
        assert (found.bits.first_layer or "", found.bits.last_layer or "") == (row["first_layer"], row["last_layer"])
        widths = (found.bits.weight, found.bits.activation, found.bits.layer, found.bits.relu)
        assert widths == tuple(abs(int(row[name])) for name in ("wb", "ab", "lb", "rb"))
        assert (found.bits.average_pool, found.bits.reciprocal) == tuple(abs(int(row[name])) for name in ("pb", "prb"))
        assert found.published_top1 == {kind: float(row[column]) for kind, column in columns.items() if row[column]}


MINE = """summary = "mine"\ninputs = ["x"]\noutputs = ["y"]\ninput_shape = [4, 4, 1]\n"""


def test_one_s_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINE + "preprocess = 'unit'\n[bits]\nweight = 4\nlayer = 32\nunsigned_input = true\n")
    expected = Preset("mine", "mine", ("x",), ("y",), (4, 4, 1), "unit", 0, BitWidths(weight=4, layer=32, unsigned_input=True))
    assert preset(file) == preset(str(file)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("summary = ", "cannot be read as a preset"),
        (MINE.replace("inputs = ", "in = "), "'in'"),
        (MINE.replace('inputs = ["x"]\n', ""), "'inputs' is missing"),
        (MINE.replace("[4, 4, 1]", "[4, 4.5, 1]"), "'input_shape' must be a list of whole numbers"),
        (MINE.replace("[4, 4, 1]", "[]"), "'input_shape' must be a list of whole numbers"),
        (MINE.replace("[4, 4, 1]", "[4, -4, 1]"), "sizes of 1 to 65536"),
        (MINE.replace("[4, 4, 1]", "[4, 4, 99999999999]"), "sizes of 1 to 65536"),
        (MINE.replace('["y"]', '[""]'), "names are expected in 'outputs'"),
        (MINE.replace('["y"]', '"y"'), "'outputs' must be a list of texts"),
        (MINE + "label_offset = true\n", "'label_offset' must be a whole number"),
        (MINE + "preprocess = 'jpeg'\n", "'preprocess' must be one of none, "),
        (MINE + "bits = 4\n", "must be a table"),
        (MINE + "[bits]\nweight = 1\n", "weight bits must be 2 to 8"),
        (MINE + "[bits]\nlayer = 24\n", "'bits.layer' must be 16 or 32"),
        (MINE + "[bits]\nfirst_layer = 3\n", "'bits.first_layer' must be a text"),
        (MINE + "[published_top1]\nfloat = 'good'\n", "must be a table of numbers"),
        (MINE + "name = 'other'\n", "'name'"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        preset(file)
    assert says in str(error.value) and str(file) in str(error.value)


def test_no_such_preset() -> None:
    with pytest.raises(UsageError, match=r"presets are darknet19, .*Received: 'resnet'"):
        preset("resnet")
    with pytest.raises(UsageError, match="cannot be read"):
        preset("nowhere.toml")
    with pytest.raises(UsageError, match=r"Received: '\.\./presets/vgg16'"):
        preset("../presets/vgg16")


def model(path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[n,4,4,1] x) => (float[n,4] y)
              { f = Flatten(x) a = MatMul(f, w) r = Relu(a) b = MatMul(r, v) c = Relu(b) y = MatMul(c, v) }"""
    rng = np.random.default_rng(0)
    tensors = [onnx_ir.tensor(rng.normal(size=size).astype(np.float32), name=n) for n, size in (("w", (16, 4)), ("v", (4, 4)))]
    onnx_ir.save(onnx_ir.from_onnx_text(text, initializers=tensors), path)


def widths_of(path: Path) -> dict[str, int]:
    loaded: Any = json.loads(tqt_onnx.load(path).metadata_props["tqt_onnx.quantizers"])
    return {one["value"]: one["bits"] for one in loaded["quantizers"]} | {"contract": loaded["contract"]}


def test_the_command_fills_in_what_was_not_typed(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINE + "preprocess = 'unit'\n[bits]\nactivation = 5\nlayer = 32\n")
    model(tmp_path / "m.onnx")
    floats, pixels = tmp_path / "floats.npy", tmp_path / "pixels.npy"
    np.save(floats, np.random.default_rng(1).random((8, 4, 4, 1), np.float32))
    np.save(pixels, np.random.default_rng(1).integers(0, 256, (8, 4, 4, 1), np.uint8))
    common = ["quantize", str(tmp_path / "m.onnx"), "--preset", str(file), "--force", "-o", str(tmp_path / "q.onnx")]
    assert run([*common, "--calibration", str(floats)]) == 0  # prepared already: taken as it is
    found = widths_of(tmp_path / "q.onnx")
    assert found["x__input"] == 5 and found["contract"] == "layer32"  # type: ignore[comparison-overlap]
    assert run([*common, "--calibration", str(pixels), "--activation-bits", "8", "--layer-bits", "16"]) == 0
    found = widths_of(tmp_path / "q.onnx")
    assert found["x__input"] == 8 and found["contract"] == "layer16"  # type: ignore[comparison-overlap]
    quantizers = {one.value: one for one in tqt_onnx.quantize(tmp_path / "m.onnx", np.load(pixels) / 255.0).graph.quantizers}
    written = json.loads(tqt_onnx.load(tmp_path / "q.onnx").metadata_props["tqt_onnx.quantizers"])["quantizers"]
    assert {one["value"]: one["exponent"] for one in written} == {name: one.exponent for name, one in quantizers.items()}
    assert run([*common, "--calibration", str(floats), "--preprocess", "unit"]) == 2  # typed: floats are not mapped twice


def test_a_preset_s_names_are_those_of_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(tmp_path / "m.onnx")
    assert run(["convert", str(tmp_path / "m.onnx"), "--preset", "vgg16", "-o", str(tmp_path / "f.onnx")]) == 2
    assert not (tmp_path / "f.onnx").exists()
    assert "--preset names tensors of a TensorFlow graph" in capsys.readouterr().err
    (tmp_path / "m.pb").write_bytes(b"")
    assert run(["convert", str(tmp_path / "m.pb"), "--preset", "vgg61", "-o", str(tmp_path / "f.onnx")]) == 2
    assert "presets are" in capsys.readouterr().err


def test_calibration_set_takes_size_and_preparation(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINE + "preprocess = 'unit'\n")
    np.save(tmp_path / "pixels.npy", np.random.default_rng(1).integers(0, 256, (8, 4, 4, 1), np.uint8))
    words = ["calibration-set", str(tmp_path / "pixels.npy"), "--preset", str(file), "--count", "5", "-o", str(tmp_path / "c.npy")]
    assert run(words) == 0
    drawn = np.load(tmp_path / "c.npy")
    assert drawn.shape == (5, 4, 4, 1) and drawn.min() >= 0 and drawn.max() <= 1


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in GRAFFITIST) and "76.8" in printed
    assert run(["presets", "--json", "-"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["presets"]] == list(preset_names())


def test_a_wrong_layer_in_a_preset_is_told_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(MINE + "[bits]\nfirst_layer = 'conv1'\n")
    model(tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).random((8, 4, 4, 1), np.float32))
    words = ["quantize", str(tmp_path / "m.onnx"), "--preset", str(tmp_path / "mine.toml"), "-o", str(tmp_path / "q.onnx")]
    assert run([*words, "--calibration", str(tmp_path / "x.npy")]) == 2
    error = capsys.readouterr().err
    assert "no compute layer is called 'conv1'" in error and ", ..., " in error and ": , " not in error
    assert not (tmp_path / "q.onnx").exists()
