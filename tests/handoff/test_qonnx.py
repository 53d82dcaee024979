"""Target `qonnx`: qonnx's own executor gives the oracle's integers, `==`, for every tensor, also behind qonnx's own clean-ups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from digits_network import build, digits
from handoff_networks import NETWORKS, examples, quantized

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.verbs.export import export_model, make_source

Feeds = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Sequence[Any]], str]

CLEANED = (
    "cleanup,infer_datatypes",
    "cleanup_bias,infer_scaled_datatypes",
    "cleanup,infer_shapes,infer_datatypes,lower_convs",
)
"""Ways in which tools of that world begin."""

CHANNELS_LAST = "cleanup,channels_last"
"""qonnx has it neither for a maximum of two tensors nor for a product in front of a flattening."""


def execute(model: onnx_ir.Model, feeds: Feeds, run_reader: Run, folder: Path, pipelines: Sequence[str] = ()) -> Feeds:
    """What qonnx computes of an export, by name."""
    tqt_onnx.save(model, folder / "net.q.onnx")
    export_model(folder / "net.q.onnx", "qonnx", folder / "net")
    np.savez(folder / "in.npz", **feeds)
    run_reader(["run_qonnx.py", folder / "net" / "net.onnx", folder / "in.npz", folder / "out.npz", *pipelines])
    with np.load(folder / "out.npz") as found:
        return {name.replace("\\", "/"): found[name] for name in found}


def compare(model: onnx_ir.Model, feeds: Feeds, found: Feeds) -> list[str]:
    """Every tensor that the export computes is the oracle's; returns the names of those that it leaves out."""
    source = make_source(model, "net", None)
    expected, missing = source.oracle(feeds), []
    for tensor in source.network.tensors.values():
        if tensor.kind == "constant":
            continue
        if tensor.value not in found:
            missing.append(tensor.value)
            continue
        reals = np.ldexp(expected[tensor.name].astype(np.float64), tensor.exponent)
        np.testing.assert_array_equal(found[tensor.value].reshape(reals.shape), reals, err_msg=tensor.value)
    return missing


@pytest.mark.parametrize(("layer", "weight"), [(16, 8), (32, 8), (16, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_the_oracles(name: str, layer: int, weight: int, run_reader: Run, tmp_path: Path) -> None:
    model = quantized(name, layer, weight)
    feeds = {"x": examples(4)}
    missing = compare(model, feeds, execute(model, feeds, run_reader, tmp_path))
    carried = ("nchw", "pool", "right", "flat", "joined")
    assert not [value for value in missing if not value.startswith(carried)]


@pytest.mark.parametrize(("name", "layer"), [*((name, 32) for name in NETWORKS), ("residual", 16), ("leaky", 16)])
def test_qonnx_cleans_it_up_and_computes_the_same(name: str, layer: int, run_reader: Run, tmp_path: Path) -> None:
    model = quantized(name, layer)
    pipelines = CLEANED if name in {"leaky", "swish"} else (*CLEANED, CHANNELS_LAST)
    found = execute(model, {"x": examples(2)}, run_reader, tmp_path, pipelines)
    (output,) = (value.name or "" for value in model.graph.outputs)
    for pipeline in pipelines:
        np.testing.assert_array_equal(found[f"{pipeline}:{output}"], found[output], err_msg=pipeline)


def test_activations_of_four_bits_and_unsigned_inputs(run_reader: Run, tmp_path: Path) -> None:
    feeds = {"x": np.abs(examples(4))}
    bits = BitWidths(layer=32, activation=4, relu=4, unsigned_input=True)
    model = tqt_onnx.quantize(NETWORKS["residual"](), np.abs(examples(32, 0)), bits=bits).model
    assert compare(model, feeds, execute(model, feeds, run_reader, tmp_path)) == ["nchw", "flat"]


@pytest.mark.parametrize(("layer", "weight"), [(16, 8), (32, 8), (16, 4)])
def test_digits(layer: int, weight: int, run_reader: Run, tmp_path: Path) -> None:
    bits = BitWidths(layer=layer, weight=weight)  # type: ignore[arg-type]  # 16 or 32
    model = tqt_onnx.quantize(build(), digits().calibration, bits=bits).model
    feeds = {"image": digits().test[:20]}
    assert compare(model, feeds, execute(model, feeds, run_reader, tmp_path)) == ["nchw", "pool", "flat"]


@pytest.mark.real
@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", ["resnet8_cifar10.h5", "mobilenet_v1_0.25_128_frozen.pb"])
def test_real_networks(name: str, layer: int, data: Path, run_reader: Run, tmp_path: Path) -> None:
    converted = tqt_onnx.convert(data / "models" / name).model
    shape = tuple(int(size) for size in list(converted.graph.inputs[0].shape)[1:])
    images = data / "images" / ("cifar10_train.zip" if "cifar" in name else "imagenet")
    preset = "none" if "cifar" in name else "signed_unit"
    array = tqt_onnx.open_dataset(images, input_shape=shape, preprocess=preset, limit=18, seed=0).array()
    bits = BitWidths(layer=layer)  # type: ignore[arg-type]  # 16 or 32
    model = tqt_onnx.quantize(converted, array[:16], bits=bits).model
    feeds = {model.graph.inputs[0].name or "": array[16:]}
    missing = compare(model, feeds, execute(model, feeds, run_reader, tmp_path))
    assert len(missing) <= 3
