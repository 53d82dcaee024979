"""Target `saved-model`: a process that has TensorFlow and nothing of ours computes the oracle's integers, `==`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from batch_norm_networks import Builder
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, given, settings
from random_networks import Network, networks

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.export import SavedModelExporter, Source
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.verbs.export import make_source

CASES = [(name, layer, weight) for name in NETWORKS for layer in (16, 32) for weight in (8, 4)]

FRESH = """
import json, sys
import numpy as np
import tensorflow as tf
report = {}
for folder, feeds in json.loads(sys.argv[1]).items():
    function = tf.saved_model.load(folder).signatures["serving_default"]
    arrays = np.load(feeds)
    found = function(**{name: tf.constant(arrays[name]) for name in arrays.files})
    np.savez(folder + ".npz", **{name: tensor.numpy() for name, tensor in found.items()})
    graph = tf.compat.v1.GraphDef.FromString(function.graph.as_graph_def().SerializeToString())
    report[folder] = sorted({node.op for node in graph.node})
assert not [name for name in sys.modules if name.startswith("tqt_onnx")]
print(json.dumps(report))
"""
"""Runs folders -> feeds and leaves the outputs beside them; says which operators each graph has."""


def reloaded(tmp_path: Path, cases: dict[str, tuple[Source, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Every source written, and read by one process that starts anew."""
    asked = {}
    for name, (source, feeds) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        exporter = SavedModelExporter()
        exporter.check(source)
        exporter.write(source, folder)
        np.savez(tmp_path / f"{name}.feeds.npz", **feeds)
        asked[str(folder)] = str(tmp_path / f"{name}.feeds.npz")
    command = [sys.executable, "-c", FRESH, json.dumps(asked)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    operators = json.loads(ran.stdout.splitlines()[-1])
    return {name: {"operators": operators[str(tmp_path / name)], **np.load(tmp_path / f"{name}.npz")} for name in cases}


def expected(source: Source, feeds: dict[str, Any]) -> dict[str, Any]:
    """The oracle's integers of the outputs, dequantized."""
    integers, tensors = source.oracle(feeds), source.network.tensors
    ports = [(port.name, port.tensor) for port in source.network.outputs if port.tensor is not None]
    return {name: integers[tensor] * 2.0 ** tensors[tensor].exponent for name, tensor in ports}


def test_a_fresh_process_computes_the_oracles_integers(tmp_path: Path) -> None:
    cases = {}
    for name, layer, weight in CASES:
        cases[f"{name}.{layer}.{weight}"] = (make_source(quantized(name, layer, weight), "net", None), {"x": examples(16, 5)})
    found = reloaded(tmp_path, cases)
    for case, (source, feeds) in cases.items():
        outputs = expected(source, feeds)
        assert len(outputs) == (0 if case.startswith("tail") else 1)
        for name, values in outputs.items():
            assert found[case][name].dtype == np.float32
            np.testing.assert_array_equal(found[case][name], values, err_msg=case)
        assert not [op for op in found[case]["operators"] if "tqt" in op.lower() or op == "PyFunc"]
    for layer in (16, 32):
        for weight in (8, 4):  # the tail is float (X6): Softmax of the exact logits
            source, feeds = cases[f"tail.{layer}.{weight}"]
            (end,) = source.network.ends
            logits = source.oracle(feeds)[end] * 2.0 ** source.network.tensors[end].exponent
            wanted = np.exp(logits - logits.max(1, keepdims=True))
            wanted /= wanted.sum(1, keepdims=True)
            np.testing.assert_allclose(found[f"tail.{layer}.{weight}"]["p"], wanted, rtol=1e-4, atol=1e-6)


def test_functions_are_tables_and_wide_layers_are_double(tmp_path: Path) -> None:
    cases = {name: (make_source(quantized(name), "net", None), {"x": examples(2)}) for name in ("swish", "wide")}
    found = reloaded(tmp_path, cases)
    assert "GatherV2" in found["swish"]["operators"]
    assert "Sigmoid" not in found["swish"]["operators"]
    assert "Cast" in found["wide"]["operators"]


def test_inputs_and_outputs_keep_names_that_python_does_not_have(tmp_path: Path) -> None:
    net = Builder(3)
    net.layer("Gemm", net.op("Flatten", "serving_default_x:0", name="f"), "a/b", (12, 5), 5)
    net.layer("Gemm", net.op("Flatten", "1st image", name="g"), "class", (12, 5), 5)
    model = net.model({"serving_default_x:0": (2, 2, 3), "1st image": (2, 2, 3)}, {"a/b": (5,), "class": (5,)})
    feeds = {name: examples(32, seed)[:, :2, :2].copy() for seed, name in enumerate(("serving_default_x:0", "1st image"))}
    source = make_source(tqt_onnx.quantize(model, feeds, bits=BitWidths(activation=4)).model, "net", None)
    found = reloaded(tmp_path, {"net": (source, feeds)})["net"]
    for name, values in expected(source, feeds).items():
        np.testing.assert_array_equal(found[name], values)
    assert set(found) == {"operators", "a/b", "class"}


def test_so_it_is_for_random_networks(tmp_path: Path) -> None:
    cases: dict[str, tuple[Source, dict[str, Any]]] = {}

    @settings(max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(network=networks())
    def every(network: Network) -> None:
        try:
            source = make_source(quantize_network(network), "net", None)
        except (DataError, UnsupportedError):
            return
        if all(part.is_tail for part in source.network.float_parts):
            cases[str(len(cases))] = (source, network.inputs)

    every()
    compared = 0
    found = reloaded(tmp_path, cases)
    for case, (source, feeds) in cases.items():
        for name, values in expected(source, feeds).items():
            np.testing.assert_array_equal(found[case][name], values)
            compared += 1
    assert compared >= 15


def test_the_bytes_depend_on_the_model_alone(tmp_path: Path) -> None:
    source = make_source(quantized("residual"), "net", None)
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source.write_saved_model(tmp_path / name)
        contents.append((tmp_path / name / "saved_model.pb").read_bytes())
    assert contents[0] == contents[1]


def test_a_float_part_is_noted(tmp_path: Path) -> None:
    (note,) = SavedModelExporter().write(make_source(quantized("tail"), "net", None), tmp_path)
    assert note == "TensorFlow computes in floating point, to a tolerance: p (Softmax)."
    assert list(tmp_path.iterdir()) == [tmp_path / "saved_model.pb"]


def test_more_than_a_file_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model: onnx_ir.Model = quantized("wide")
    monkeypatch.setattr("tqt_onnx.export.saved_model._MOST_BYTES", 60_000)
    with pytest.raises(
        UnsupportedError, match=r"target saved-model: constants of 60000 bytes .* 'y/w__q' alone has 61440.*Received"
    ):
        SavedModelExporter().check(make_source(model, "net", None))


@pytest.mark.real
def test_real_networks(data: Path, tmp_path: Path) -> None:
    """Logits lie on a grid: their differences follow exactly from the logarithms of the probabilities."""
    cases = {}
    for case, name, pictures, preset, bits in (
        ("resnet8", "resnet8_cifar10.h5", "cifar10_test.zip", "none", BitWidths()),
        ("mobilenet", "mobilenet_v1_0.25_128_frozen.pb", "imagenet", "inception", BitWidths(layer=32)),
    ):
        conversion = tqt_onnx.convert(data / "models" / name)
        shape = tuple(int(dim) for dim in list(conversion.model.graph.inputs[0].shape)[1:])
        opened = tqt_onnx.open_dataset(data / "images" / pictures, input_shape=shape, preprocess=preset, limit=20, seed=0)
        source = make_source(tqt_onnx.quantize(conversion.model, opened.array(), bits=bits).model, "net", None)
        cases[case] = (source, {source.network.inputs[0].name: opened.array()})
    for case, found in reloaded(tmp_path, cases).items():
        source, feeds = cases[case]
        (end,) = source.network.ends
        integers = source.oracle(feeds)[end].reshape(20, -1)
        scale = 2.0 ** source.network.tensors[end].exponent
        (probabilities,) = (array.reshape(20, -1) for name, array in found.items() if name != "operators")
        logarithms = np.log(probabilities.astype(np.float64))
        back = np.rint((logarithms - logarithms.max(1, keepdims=True)) / scale)
        np.testing.assert_array_equal(back, integers - integers.max(1, keepdims=True))
