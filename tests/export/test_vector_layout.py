"""Target `vectors`: how examples are laid out in files, and what axes are called."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from handoff_networks import NETWORKS, examples, quantized
from vector_reader import net, read_manifest, read_mem, rows, written

from tqt_onnx.export import VectorsExporter
from tqt_onnx.export.vector_files.axes import axes_of
from tqt_onnx.ir import DataError
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verbs.sources import Feeder


def test_a_layer_of_many_rows_for_each_example(tmp_path: Path) -> None:
    model = net(
        """g (float[N,4,3] x) => (float[M,2] y)
        <int64[2] flat = {-1, 3}> { rows = Reshape(x, flat) y = Gemm(rows, w, b) }""",
        {"w": (3, 2), "b": (2,)},
        {"x": rows(16, 4, 3)},
    )
    manifest = written(model, tmp_path / "v", rows(5, 4, 3))
    end = next(tensor for tensor in manifest["tensors"] if tensor["name"] == manifest["ends"][0])
    assert (end["run_shape"], end["shape"]) == ([4, 2], [20, 2])


def test_examples_behind_the_first_axis(tmp_path: Path) -> None:
    model = net(
        """g (float[N,4,3] x) => (float[4,N,2] y) { t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w) }""",
        {"w": (3, 2)},
        {"x": rows(16, 4, 3)},
    )
    manifest = written(model, tmp_path / "v", rows(5, 4, 3))
    end = next(tensor for tensor in manifest["tensors"] if tensor["name"] == manifest["ends"][0])
    assert (end["run_shape"], end["shape"]) == ([4, 1, 2], [20, 1, 2])


def fixed_batch() -> onnx_ir.Model:
    return net("g (float[2,3] x) => (float[2,2] y) { y = Gemm(x, w, b) }", {"w": (3, 2), "b": (2,)}, {"x": rows(16, 3)})


def test_a_model_that_takes_several_at_once(tmp_path: Path) -> None:
    manifest = written(fixed_batch(), tmp_path / "v", rows(6, 3))
    assert (manifest["examples"], manifest["examples_per_run"]) == (6, 2)
    with pytest.raises(DataError, match=r"takes 2 examples at once; whole runs are expected\. Received: 5"):
        export_model(fixed_batch(), "vectors", tmp_path / "odd", data=rows(5, 3))
    assert not (tmp_path / "odd").exists()


def test_examples_that_nobody_counted(tmp_path: Path) -> None:
    source = make_source(fixed_batch(), "m", Feeder(fixed_batch(), rows(6, 3)))
    uneven = replace(source, count=None, examples=lambda: iter([{"x": rows(3, 3)}]))
    VectorsExporter().check(uneven)
    with pytest.raises(DataError, match=r"takes 2 examples at once\. Received: 3"):
        VectorsExporter().write(uneven, tmp_path)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    data = {"a": rows(8, 3, seed=1), "b": rows(8, 3, seed=2)}
    model = net(
        "g (float[N,3] a, float[N,3] b) => (float[N,3] s, float[N,2] y) { s = Add(a, b) r = Relu(s) y = Gemm(r, w) }",
        {"w": (3, 2)},
        data,
        layer=32,
    )
    manifest = written(model, tmp_path / "v", data)
    assert [port["name"] for port in manifest["inputs"]] == ["a", "b"]
    assert [port["name"] for port in manifest["outputs"]] == ["s", "y"]
    for port in manifest["inputs"]:
        np.testing.assert_array_equal(np.load(tmp_path / "v" / port["float"]["path"]), data[port["name"]])


def test_unsigned_inputs(tmp_path: Path) -> None:
    model = net("g (float[N,3] x) => (float[N,2] y) { y = Gemm(x, w) }", {"w": (3, 2)}, {"x": abs(rows(8, 3))}, unsigned_input=True)
    manifest = written(model, tmp_path / "v", abs(rows(20, 3)))
    assert manifest["tensors"][0]["dtype"] == "uint8"
    assert read_mem(tmp_path / "v", manifest["tensors"][0]).max() > 127


ISLAND = "g (float[N,3] x) => (float[N,2] y) { h = Gemm(x, w) s = Sin(h) t = Mul(s, s) y = Gemm(t, v) }"


def test_what_float_parts_compute_is_given(tmp_path: Path) -> None:
    model = net(ISLAND, {"w": (3, 4), "v": (4, 2)}, {"x": rows(8, 3)})
    manifest = written(model, tmp_path / "v", rows(4, 3))
    if not manifest["given"]:
        pytest.fail(f"a float part in the middle is expected: {manifest['float_parts']}")
    assert manifest["float_parts"] and not any(part["is_tail"] for part in manifest["float_parts"])
    (note,) = export_model(model, "vectors", tmp_path / "n", data=rows(4, 3)).notes[1:]
    assert note.startswith("Float parts are no steps; what is quantized behind them is recorded as given (")


def test_a_float_tail_is_left_out(tmp_path: Path) -> None:
    result = export_model(quantized("tail"), "vectors", tmp_path / "v", data=examples(2))
    assert result.notes[1] == "The float tail is left out (p)."
    manifest = read_manifest(tmp_path / "v")
    assert manifest["outputs"] == [{"name": "p", "tensor": None, "shape": [None, 5]}] and manifest["ends"] == ["y__q"]


def test_axes() -> None:
    network = make_source(quantized("depthwise"), "m", None).network
    axes = axes_of(network)
    images = {"x__input__q": ("batch", "height", "width", "channel"), "relu__q": ("batch", "channel", "height", "width")}
    weights = {"dw/w__q": ("output channel", "input channel of the group", "kernel height", "kernel width")}
    dense = {"y/w__q": ("input feature", "output feature"), "y__q": ("batch", "feature")}
    assert {name: axes[name] for name in images | weights | dense} == images | weights | dense


@cache
def every_axis() -> dict[str, int]:
    """How often axes have no name in the small networks."""
    names: dict[str, int] = {}
    for name in NETWORKS:
        network = make_source(quantized(name), "m", None).network
        for tensor, axes in axes_of(network).items():
            assert len(axes) == len(network.tensors[tensor].shape)
            names[name] = names.get(name, 0) + any(axis.startswith("axis") for axis in axes)
    return names


def test_axes_of_all_small_networks_have_names() -> None:
    assert set(every_axis().values()) == {0}, every_axis()
