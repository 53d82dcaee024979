"""Target `hls4ml`: what hls4ml compiles with g++ computes the oracle's integers, `==`, for every output of every example."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import digits_network
import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from handoff_networks import SHAPE, examples, quantized

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.verbs.export import export_model, make_source

Run = Callable[[Sequence[Any]], str]

COUNT = 128


def images(count: int = COUNT) -> np.ndarray[Any, Any]:
    """Half of them on half steps of an input grid (ties), some beyond its range, one of zeros."""
    data = examples(count, 5)
    data[: count // 2] = np.round(data[: count // 2] * 32) / 32
    data[-3:] = np.array([1e4, -1e4, 0], np.float32).reshape(3, 1, 1, 1)
    return data


def build(model: onnx_ir.Model, data: Any, run_reader: Run, folder: Path, *options: str) -> dict[str, tuple[int, int, int]]:
    """Output -> how many of its numbers differ, how many there are, of how many examples, as the script in the export says."""
    tqt_onnx.save(model, folder / "net.q.onnx")
    export_model(folder / "net.q.onnx", "hls4ml", folder / "net", data=data)
    said = run_reader([folder / "net" / "build.py", *options])
    found = re.findall(r"^(\S+): (\d+) of (\d+) outputs differ, (\d+) examples$", said, re.MULTILINE)
    return {name: (int(differ), int(size), int(count)) for name, differ, size, count in found}


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", ["residual", "depthwise", "leaky"])
def test_compiled_is_the_oracle(name: str, layer: int, run_reader: Run, tmp_path: Path) -> None:
    model = quantized(name, layer)
    expected = make_source(model, "net", None).oracle({"x": images()})
    assert len(np.unique(expected["y__q"])) > 30  # the outputs say something
    if name == "depthwise":
        assert (expected["relu6__q"] == 192).any() and (expected["dw_relu6__q"] == 192).any()  # and relu6 bounds
    assert build(model, images(), run_reader, tmp_path) == {"y": (0, 5 * COUNT, COUNT)}


@pytest.mark.parametrize("name", ["residual", "leaky"])
def test_streamed_with_shared_multipliers(name: str, run_reader: Run, tmp_path: Path) -> None:
    options = ["--io-type", "io_stream", "--strategy", "Resource", "--reuse-factor", "9"]
    assert build(quantized(name, 32, 4), images(), run_reader, tmp_path, *options) == {"y": (0, 5 * COUNT, COUNT)}


def bounds_and_windows() -> onnx_ir.Model:
    """Clips of either sign, a padded max pool of each sign, a padded average pool, a grouped and a dilated layer, three outputs."""
    net = Builder(4)
    edges = {"least": -1, "most": 2.3, "zero": 0, "six": 6}
    net.constants |= {name: np.array(number, np.float32) for name, number in edges.items()}
    x = net.op("Transpose", "x", name="nchw", perm=[0, 3, 1, 2])
    x = net.op("Clip", net.layer("Conv", x, "conv", (4, 3, 3, 3), 4, pads=[0, 1, 2, 1]), "least", "most", name="bounded")
    left = net.layer("Conv", x, "grouped", (4, 2, 3, 3), 4, group=2, pads=[2] * 4, dilations=[2, 2])
    x = net.op("Clip", net.op("Add", x, left, name="sum"), "zero", "six", name="relu6")
    net.op("MaxPool", left, name="signed", kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 2])
    x = net.op("MaxPool", x, name="unsigned", kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2])
    net.op("AveragePool", x, name="average", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    net.layer("Conv", x, "y", (3, 4, 1, 1), 3)
    return net.model({"x": SHAPE}, {"average": (4, 4, 4), "y": (3, 4, 4), "signed": (4, 4, 4)})


@pytest.mark.parametrize("bits", [BitWidths(layer=16, weight=4, activation=4, relu=4), BitWidths(layer=32)])
def test_bounds_windows_and_several_outputs(bits: BitWidths, run_reader: Run, tmp_path: Path) -> None:
    model = tqt_onnx.quantize(bounds_and_windows(), examples(32, 0), bits=bits).model
    found = build(model, images(), run_reader, tmp_path)
    assert found == {"y": (0, 48 * COUNT, COUNT), "average": (0, 64 * COUNT, COUNT), "signed": (0, 64 * COUNT, COUNT)}


def test_the_digits_network(run_reader: Run, tmp_path: Path) -> None:
    """Its Softmax is the host's; the outputs are the logits."""
    model = tqt_onnx.quantize(digits_network.build(), digits_network.digits().calibration, bits=BitWidths(layer=32)).model
    found = build(model, digits_network.digits().test[:COUNT], run_reader, tmp_path)
    assert list(found.values()) == [(0, 10 * COUNT, COUNT)]


@pytest.mark.real
def test_resnet8_streamed(data: Path, run_reader: Run, tmp_path: Path) -> None:
    converted = tqt_onnx.convert(data / "models" / "resnet8_cifar10.h5").model
    calibration, tested = (
        tqt_onnx.open_dataset(data / "images" / name, input_shape=(32, 32, 3), limit=count, seed=0).array()
        for name, count in (("cifar10_train.zip", 50), ("cifar10_test.zip", 20))
    )
    model = tqt_onnx.quantize(converted, calibration, bits=BitWidths(layer=32)).model
    found = build(model, tested, run_reader, tmp_path, "--io-type", "io_stream")
    assert list(found.values()) == [(0, 200, 20)]
