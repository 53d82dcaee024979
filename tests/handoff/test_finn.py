"""Target `finn`: both of its models give the oracle's integers, `==`; without the corrected thresholds they would not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from digits_network import build, digits
from handoff_networks import NETWORKS, examples, quantized
from onnx import numpy_helper

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export.finn_model.thresholds import threshold_tables
from tqt_onnx.verbs.export import export_model, make_source

Feeds = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Sequence[Any]], str]

HELD = ("residual", "depthwise", "concat", "tail")
PARTS = ("tidy", "tidy,streamline", "tidy,streamline,lower")
"""How far FINN's front end goes."""


def exported(model: onnx_ir.Model, folder: Path) -> Path:
    tqt_onnx.save(model, folder / "net.q.onnx")
    export_model(folder / "net.q.onnx", "finn", folder / "net")
    return folder / "net"


def execute(file: Path, feeds: Feeds, run_reader: Run, *pipelines: str) -> Feeds:
    np.savez(file.with_suffix(".in.npz"), **feeds)
    run_reader(["run_qonnx.py", file, file.with_suffix(".in.npz"), file.with_suffix(".out.npz"), *pipelines])
    with np.load(file.with_suffix(".out.npz")) as found:
        return {name.replace("\\", "/"): found[name] for name in found}


def differing(model: onnx_ir.Model, feeds: Feeds, file: Path, run_reader: Run) -> dict[str, int]:
    """Computed tensor -> integers in which a MultiThreshold model differs from the oracle; with it the outputs of each part."""
    source = make_source(model, "net", None)
    expected = source.oracle(feeds)
    integers = {port.name: expected[port.tensor or ""].astype(np.float32) for port in source.network.inputs}
    found = execute(file, integers, run_reader, *PARTS)
    counts = {}
    for step in source.network.steps:
        array = expected[step.output]
        counts[step.output] = int(np.count_nonzero(found[step.output].reshape(array.shape) != array))
    for end in source.network.ends:
        for part in PARTS:
            array = expected[end]
            counts[f"{part}:{end}"] = int(np.count_nonzero(found[f"{part}:{end}"].reshape(array.shape) != array))
    return counts


@pytest.mark.parametrize("weight", [8, 4])
@pytest.mark.parametrize("name", HELD)
def test_thresholds_give_the_oracles_integers(name: str, weight: int, run_reader: Run, tmp_path: Path) -> None:
    model = quantized(name, 32, weight)
    folder = exported(model, tmp_path)
    counts = differing(model, {"x": examples(4)}, folder / "net.multithreshold.onnx", run_reader)
    assert counts
    assert not any(counts.values())


def test_thresholds_that_round_ties_up_do_not(run_reader: Run, tmp_path: Path) -> None:
    """What FINN's own conversion makes: the same file with `up` in the place of `even`."""
    model = quantized("residual", 32)
    folder = exported(model, tmp_path)
    tables = threshold_tables(make_source(model, "net", None).network)
    proto = onnx.load(folder / "net.multithreshold.onnx")
    for tensor in proto.graph.initializer:
        table = tables.get(tensor.name.removesuffix("__thresholds"))
        if table is not None:
            tensor.CopyFrom(numpy_helper.from_array(table.up.astype(np.float32), tensor.name))
    onnx.save(proto, folder / "up.onnx")
    counts = differing(model, {"x": examples(4)}, folder / "up.onnx", run_reader)
    assert counts["b__q"] > 0  # the branch of the sum
    assert counts["sum_relu__q"] > 0
    assert counts["average__q"] > 0


@pytest.mark.parametrize("name", HELD)
def test_the_qonnx_model_gives_the_oracles_integers(name: str, run_reader: Run, tmp_path: Path) -> None:
    model = quantized(name, 32)
    folder = exported(model, tmp_path)
    feeds = {"x": examples(3)}
    source = make_source(model, "net", None)
    expected = source.oracle(feeds)
    lowered = "cleanup,infer_datatypes,lower_convs,infer_datatypes"
    found = execute(folder / "net.onnx", feeds, run_reader, lowered)
    compared = 0
    for tensor in source.network.tensors.values():
        if tensor.kind != "constant" and tensor.value in found:
            reals = np.ldexp(expected[tensor.name].astype(np.float64), tensor.exponent)
            np.testing.assert_array_equal(found[tensor.value].reshape(reals.shape), reals, err_msg=tensor.value)
            compared += 1
    assert compared >= 3
    (output,) = (value.name or "" for value in model.graph.outputs)
    np.testing.assert_array_equal(found[f"{lowered}:{output}"], found[output])


def test_activations_of_four_bits_and_unsigned_inputs(run_reader: Run, tmp_path: Path) -> None:
    bits = BitWidths(layer=32, activation=4, relu=4, unsigned_input=True)
    model = tqt_onnx.quantize(NETWORKS["residual"](), np.abs(examples(32, 0)), bits=bits).model
    folder = exported(model, tmp_path)
    counts = differing(model, {"x": np.abs(examples(4))}, folder / "net.multithreshold.onnx", run_reader)
    assert counts
    assert not any(counts.values())


def test_digits(run_reader: Run, tmp_path: Path) -> None:
    model = tqt_onnx.quantize(build(), digits().calibration, bits=BitWidths(layer=32)).model
    folder = exported(model, tmp_path)
    counts = differing(model, {"image": digits().test[:20]}, folder / "net.multithreshold.onnx", run_reader)
    assert counts
    assert not any(counts.values())


@pytest.mark.real
@pytest.mark.parametrize("name", ["resnet8_cifar10.h5", "mobilenet_v1_0.25_128_frozen.pb"])
def test_real_networks(name: str, data: Path, run_reader: Run, tmp_path: Path) -> None:
    converted = tqt_onnx.convert(data / "models" / name).model
    shape = tuple(int(size) for size in list(converted.graph.inputs[0].shape)[1:])
    images = data / "images" / ("cifar10_train.zip" if "cifar" in name else "imagenet")
    preset = "none" if "cifar" in name else "signed_unit"
    array = tqt_onnx.open_dataset(images, input_shape=shape, preprocess=preset, limit=18, seed=0).array()
    model = tqt_onnx.quantize(converted, array[:16], bits=BitWidths(layer=32)).model
    folder = exported(model, tmp_path)
    feeds = {model.graph.inputs[0].name or "": array[16:]}
    counts = differing(model, feeds, folder / "net.multithreshold.onnx", run_reader)
    assert counts
    assert not any(counts.values())
