"""Target `vectors`: a reader of manifest and files alone recomputes every step, `==`, from `.npy` and from `.mem`."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, given, settings
from integer_reader import round_and_saturate, run_step
from random_networks import Network, networks

import tqt_onnx
from tqt_onnx.export import VectorsExporter, memory_files, vectors
from tqt_onnx.export.vector_files.axes import axes_of
from tqt_onnx.export.vector_files.memory_files import GrowingArray, WordFiles, hex_lines, safe_stem, storage
from tqt_onnx.ir import DataError, UnsupportedError, UsageError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verbs.sources import Feeder

Array = np.ndarray[Any, np.dtype[Any]]
Reader = Callable[[Path, Mapping[str, Any]], Array]


def read_npy(folder: Path, tensor: Mapping[str, Any]) -> Array:
    array = np.load(folder / tensor["files"]["npy"]["path"], allow_pickle=False)
    assert array.dtype.name == tensor["dtype"] and list(array.shape) == tensor["shape"]
    return array.astype(np.int64)


def read_mem(folder: Path, tensor: Mapping[str, Any]) -> Array:
    """As `$readmemh`: comments up to the end of the line, hexadecimal words, the first at address 0."""
    text = (folder / tensor["files"]["mem"]["path"]).read_bytes().decode("ascii")
    words = [line for line in text.split("\n") if line and not line.startswith("//")]
    assert {len(word) for word in words} <= {-(-tensor["bits"] // 4)}
    integers = np.array([int(word, 16) for word in words], np.int64)
    assert not integers.size or integers.max() < 2 ** tensor["bits"]
    if tensor["signed"]:
        integers = np.where(integers >> (tensor["bits"] - 1), integers - 2 ** tensor["bits"], integers)
    return integers.reshape(tensor["shape"])


FUZZ = int(os.environ.get("TQT_ONNX_FUZZ", "40"))

READERS: dict[str, Reader] = {"npy": read_npy, "mem": read_mem}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once every file in it has the digest that it says, and no other file is there."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = [file for tensor in manifest["tensors"] for file in tensor["files"].values()]
    files += [port["float"] for port in manifest["inputs"]]
    for file in files:
        content = (folder / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"], file["path"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {file["path"] for file in files} | {"manifest.json", "export.json"}
    assert len(files) == len({file["path"].casefold() for file in files})
    return manifest


def recomputed(folder: Path, read: Reader) -> dict[str, Any]:
    """Every step of every run from what it reads; the network's integer inputs from its float inputs."""
    manifest = read_manifest(folder)
    described = {tensor["name"]: tensor for tensor in manifest["tensors"]}
    stored = {name: read(folder, tensor) for name, tensor in described.items()}
    for port in manifest["inputs"]:
        if port["tensor"] is not None:
            tensor = described[port["tensor"]]
            real = np.load(folder / port["float"]["path"]).astype(np.float64)
            integers = np.clip(np.rint(real / 2.0 ** tensor["exponent"]), tensor["lower"], tensor["upper"])
            np.testing.assert_array_equal(integers, stored[port["tensor"]])
    count = manifest["examples"] // manifest["examples_per_run"]
    for run in range(count):
        tensors = {name: _of_run(described[name], array, run, count) for name, array in stored.items()}
        for step in manifest["layers"]:
            output = described[step["output"]]
            assert (step["lower"], step["upper"]) == (output["lower"], output["upper"])
            copies = step["shift"] == 0 and step["rounding"] is None
            assert copies or step["rounding"] == output["rounding"] == "half_even"
            found = run_step(step, {name: tensors[name] for name in step["reads"]}, step)
            np.testing.assert_array_equal(found, tensors[step["output"]], err_msg=f"{step['name']}, run {run}")
    made = {step["output"] for step in manifest["layers"]}
    assert {name for name, tensor in described.items() if tensor["kind"] == "computed"} == made
    assert set(manifest["given"]) == {name for name, tensor in described.items() if tensor["kind"] == "from_float"}
    return manifest


def _of_run(tensor: Mapping[str, Any], array: Array, run: int, count: int) -> Array:
    if tensor["kind"] == "constant":
        return array
    rows = tensor["run_shape"][0]
    assert array.shape[0] == rows * count and tensor["words_per_run"] == np.prod(tensor["run_shape"])
    return array[run * rows : (run + 1) * rows]


def written(model: onnx_ir.Model, folder: Path, data: Any) -> dict[str, Any]:
    """Exported and recomputed from both forms."""
    export_model(model, "vectors", folder, data=data)
    recomputed(folder, read_mem)
    return recomputed(folder, read_npy)


def net(text: str, shapes: Mapping[str, tuple[int, ...]], data: Mapping[str, Array], seed: int = 0, **bits: Any) -> onnx_ir.Model:
    """A network in ONNX text, with random constants, quantized."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    model = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    return tqt_onnx.quantize(model, data, bits=BitWidths(**bits)).model


def rows(count: int, *shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).normal(0, 1.5, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("layer", [16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_is_recomputed_from_the_files_alone(name: str, layer: int, tmp_path: Path) -> None:
    model, data = quantized(name, layer), examples(3, 5)
    manifest = written(model, tmp_path / "v", data)
    source = make_source(model, "model", None)
    expected = source.oracle({"x": data})  # all examples at once
    described = {tensor["name"]: tensor for tensor in manifest["tensors"]}
    assert list(described) == list(source.network.tensors)
    for tensor in source.network.tensors.values():
        integers = expected[tensor.name] if tensor.integers is None else tensor.integers
        np.testing.assert_array_equal(read_npy(tmp_path / "v", described[tensor.name]), integers)
        assert (described[tensor.name]["exponent"], described[tensor.name]["source"]) == (tensor.exponent, tensor.source)
    assert manifest["contract"] == f"layer{layer}"
    sums = [operation for step in manifest["layers"] for operation in step["operations"] if operation["op"] in {"Conv", "Gemm"}]
    assert sums and all(operation["accumulator_bits"] > 8 for operation in sums)


def test_four_bits_take_one_digit_and_ten_take_three(tmp_path: Path) -> None:
    bits = BitWidths(weight=4, activation=5, relu=4)
    model = tqt_onnx.quantize(NETWORKS["leaky"](), examples(32, 0), bits=bits).model
    manifest = written(model, tmp_path / "v", examples(2))
    digits = {(tensor["bits"], tensor["digits"]) for tensor in manifest["tensors"]}
    assert {(4, 1), (5, 2), (10, 3), (16, 4)} <= digits, digits


def test_negative_words_wide_words_and_their_digits() -> None:
    assert hex_lines(np.arange(-8, 8), 4).split() == [b"%x" % (n % 16) for n in range(-8, 8)]
    assert hex_lines(np.array([-512, -1, 511]), 10) == b"200\n3ff\n1ff\n"
    assert hex_lines(np.array([-(2**31), -1, 2**31 - 1]), 32) == b"80000000\nffffffff\n7fffffff\n"
    assert hex_lines(np.array([[0, 255], [16, 1]]), 8) == b"00\nff\n10\n01\n"
    assert hex_lines(np.array([[1, 2], [3, 4]]).T, 5) == b"01\n03\n02\n04\n"  # C order of the array, not of its memory
    assert hex_lines(np.zeros((0, 3)), 8) == b""
    for bits in range(2, 33):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        drawn = np.random.default_rng(bits).integers(low, high + 1, 50)
        expected = "".join(f"{int(n) % (1 << bits):0{-(-bits // 4)}x}\n" for n in drawn)
        assert hex_lines(drawn, bits) == expected.encode()
        assert np.array_equal(np.array([low, high]).astype(storage(bits, True)), [low, high])


def test_a_growing_array_is_what_numpy_reads(tmp_path: Path) -> None:
    whole = rows(1001, 2, 3)
    array = GrowingArray(tmp_path / "a.npy", "<f4", (2, 3))
    for start in range(0, 1001, 10):
        array.append(whole[start : start + 10])
    array.close()
    assert (tmp_path / "a.npy").stat().st_size == 128 + whole.nbytes
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), whole)


@pytest.mark.parametrize("form", READERS)
def test_a_changed_word_is_noticed(form: str, tmp_path: Path) -> None:
    """By the digest; and, where the digest is made to fit, by what is recomputed."""
    folder = tmp_path / "v"
    manifest = written(quantized("residual"), folder, examples(2))
    tensor = next(tensor for tensor in manifest["tensors"] if tensor["value"] == "sum_relu")
    file = tensor["files"][form]
    content = bytearray((folder / file["path"]).read_bytes())
    place = len(content) - 2 if form == "mem" else len(content) - 1
    content[place] = ord("1") if content[place] != ord("1") else ord("2")
    (folder / file["path"]).write_bytes(content)
    with pytest.raises(AssertionError, match="sum_relu"):
        read_manifest(folder)
    file["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AssertionError, match="run 1"):
        recomputed(folder, READERS[form])


def test_a_large_tensor_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_files, "_PART", 7)
    files = WordFiles(tmp_path / "a", 10, True, (5,), ["head"])
    whole = np.arange(-50, 50).reshape(20, 5)
    for start in (0, 10):
        files.append(whole[start : start + 10], f"rows from {start}")
    files.close()
    lines = (tmp_path / "a.mem").read_text().splitlines()
    assert lines[:2] == ["// head", "// rows from 0"] and lines[52] == "// rows from 10"
    assert [int(line, 16) for line in lines if not line.startswith("//")] == [n % 1024 for n in range(-50, 50)]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), whole)


@pytest.mark.parametrize(("bits", "signed", "ends"), [(4, True, (-8, 7)), (4, False, (0, 15)), (16, True, (-(2**15), 2**15 - 1))])
def test_no_word_is_cut(bits: int, signed: bool, ends: tuple[int, int], tmp_path: Path) -> None:
    files = WordFiles(tmp_path / "a", bits, signed, (1,), [])
    for end in ends:
        files.append(np.array([[end]]))
    for beyond in (ends[0] - 1, ends[1] + 1):
        with pytest.raises(UnsupportedError, match=f"Received: integers from {beyond} to {beyond}"):
            files.append(np.array([[beyond]]))
    assert np.load(tmp_path / "a.npy").shape == (0, 1)  # not closed yet
    files.close()
    assert np.load(tmp_path / "a.npy").ravel().tolist() == list(ends)


HOSTILE = ("../../evil", "a\nffff", "/etc/passwd", "Q", "q", "x" * 300, "//", "@7", "b*/", "é\u2028", "..", "a__q")


def test_names_of_anybodys_choosing(tmp_path: Path) -> None:
    """They stay in the folder, are told apart, and end no comment."""
    network = make_source(quantized("residual"), "model", None).network
    source = make_source(quantized("residual"), "model", Feeder(quantized("residual"), examples(2)))
    new = dict(zip(network.tensors, [*HOSTILE, *network.tensors][: len(network.tensors)], strict=True))
    oracle = source.oracle

    def renamed(step: Any) -> Any:
        operations = tuple(replace(o, inputs=tuple(new.get(name, name) for name in o.inputs)) for o in step.operations)
        return replace(step, operations=operations, result=new.get(step.result, step.result), output=new[step.output])

    network = replace(
        network,
        tensors={new[name]: replace(tensor, name=new[name]) for name, tensor in network.tensors.items()},
        steps=tuple(map(renamed, network.steps)),
        inputs=tuple(replace(port, tensor=new[port.tensor]) for port in network.inputs if port.tensor),
        outputs=tuple(replace(port, tensor=new[port.tensor]) for port in network.outputs if port.tensor),
        ends=tuple(new[name] for name in network.ends),
    )
    source = replace(source, network=network, oracle=lambda feeds: {new[key]: value for key, value in oracle(feeds).items()})
    (tmp_path / "v").mkdir()
    VectorsExporter().write(source, tmp_path / "v")
    (tmp_path / "v" / "export.json").touch()
    manifest = recomputed(tmp_path / "v", read_mem)
    assert [tensor["name"] for tensor in manifest["tensors"]][: len(HOSTILE)] == list(HOSTILE)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    assert all(len(path.name) <= 84 and path.name.isascii() for path in (tmp_path / "v").rglob("*"))


def test_stems_are_stable_and_sort_in_order() -> None:
    assert safe_stem(7, 30, "conv/w__q") == "007_conv_w__q"
    assert safe_stem(7, 30_000, "conv.w") == "00007_conv_w"
    assert safe_stem(0, 1, "") == "000_"


def test_random_networks() -> None:
    """Ties, unlike scales, odd widths, shifts to the left, every operator: whatever is quantized is written and recomputed."""
    seen = Counter[str]()

    @settings(max_examples=FUZZ, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(network=networks())
    def every(network: Network) -> None:
        with TemporaryDirectory() as name:
            try:
                model = quantize_network(network)
            except (DataError, UnsupportedError):
                return
            export_model(model, "vectors", Path(name) / "v", data=network.inputs)
            for read in READERS.values():
                manifest = recomputed(Path(name) / "v", read)
            seen.update("written left" for layer in manifest["layers"] if layer["shift"] < 0)
            seen.update(f"written {tensor['bits']}" for tensor in manifest["tensors"])
            seen["written"] += 1

    every()
    assert seen["written"] >= 0.6 * FUZZ and seen["written left"] and seen["written 6"] and seen["written 32"], seen


# --- how examples are laid out


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


# --- what is refused, and how much is in memory


def test_more_than_a_disk_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = quantized("residual"), examples(50)
    sizes = [
        sum(file.bytes for file in export_model(model, "vectors", tmp_path / f"{n}", data=data, limit=n).files) for n in (10, 20)
    ]
    each = (sizes[1] - sizes[0]) / 10
    monkeypatch.setattr(vectors, "MOST_BYTES", int(30.5 * each))
    with pytest.raises(UnsupportedError, match=r"--limit \d+ or less is expected. Received: 50 examples") as refused:
        export_model(model, "vectors", tmp_path / "v", data=data)
    assert not (tmp_path / "v").exists()
    most = int(str(refused.value).split("--limit ")[1].split()[0])
    assert 25 <= most <= 31
    export_model(model, "vectors", tmp_path / "most", data=data, limit=most)
    with pytest.raises(UnsupportedError, match=f"--limit {most} or less"):
        export_model(model, "vectors", tmp_path / "more", data=data, limit=most + 1)


def test_the_estimate_is_that_of_the_files(tmp_path: Path) -> None:
    """Headers and comments apart."""
    model = quantized("concat")
    source = make_source(model, "m", None)
    once, each = vectors._sizes(source.network, 1)
    files = [export_model(model, "vectors", tmp_path / f"{n}", data=examples(n)).files for n in (2, 12)]
    few, many = ({file.path: file.bytes for file in some} for some in files)
    tensors = sum(path.endswith(".mem") and many[path] != size for path, size in few.items())
    grown = sum(many[path] - size for path, size in few.items() if path != "manifest.json")
    comments = sum(len(f"// example {index}\n") for index in range(2, 12)) * tensors
    assert grown == 10 * each + comments
    assert once < sum(size for path, size in few.items() if path.startswith("tensors"))


def test_a_limit_that_not_even_one_example_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MOST_BYTES", 100)
    with pytest.raises(UnsupportedError, match=r"not even one example fits\. Received: 2 examples"):
        export_model(quantized("residual"), "vectors", tmp_path / "v", data=examples(2))


def test_data_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data is expected"):
        export_model(quantized("residual"), "vectors", tmp_path / "v")
    with pytest.raises(UsageError, match="--data is expected"):
        VectorsExporter().check(make_source(quantized("residual"), "m", None))


def test_integers_wider_than_their_words_are_refused() -> None:
    source = make_source(quantized("residual"), "m", Feeder(quantized("residual"), examples(2)))
    name, tensor = next((name, tensor) for name, tensor in source.network.tensors.items() if tensor.kind == "constant")
    tensors = {**source.network.tensors, name: replace(tensor, bits=2)}
    with pytest.raises(UnsupportedError, match=f"tensor '{name}': words of 2 bits, signed, are expected. Received: -"):
        VectorsExporter().check(replace(source, network=replace(source.network, tensors=tensors)))


def test_a_tensor_that_the_oracle_cannot_reach(tmp_path: Path) -> None:
    source = make_source(quantized("residual"), "m", Feeder(quantized("residual"), examples(2)))
    with pytest.raises(UnsupportedError, match="tensor 'sum_relu__q' has no integers"):
        VectorsExporter().write(
            replace(source, oracle=lambda feeds: {k: v for k, v in source.oracle(feeds).items() if k != "sum_relu__q"}), tmp_path
        )


def test_one_example_at_a_time(tmp_path: Path) -> None:
    """Memory does not grow with their number."""
    peaks = []
    for count in (4, 80):
        source = make_source(quantized("depthwise"), "m", Feeder(quantized("depthwise"), examples(count)))
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        VectorsExporter().write(source, folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


# --- what axes are called


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


def test_the_words_are_those_of_the_target_integer(tmp_path: Path) -> None:
    """Two manifests of one network say the same of it."""
    model = quantized("swish", 32)
    export_model(model, "vectors", tmp_path / "v", data=examples(2))
    export_model(model, "integer", tmp_path / "i")
    ours = read_manifest(tmp_path / "v")
    theirs = json.loads((tmp_path / "i" / "parameters.json").read_text(encoding="utf-8"))
    without = {"rounding"}
    assert [{k: v for k, v in layer.items() if k not in without} for layer in ours["layers"]] == [
        {k: v for k, v in layer.items() if k not in without} for layer in theirs["layers"]
    ]
    for mine, other in zip(ours["tensors"], theirs["tensors"], strict=True):
        assert {k: mine[k] for k in other if k not in {"shape", "file"}} == {
            k: v for k, v in other.items() if k not in {"shape", "file"}
        }
    for field in ("contract", "rounding", "outputs", "ends", "float_parts"):
        assert ours[field] == theirs[field]


def test_ties_round_to_even_in_the_reader() -> None:
    """The reader that proves the files is not blind to ties and borders."""
    found = round_and_saturate(np.array([-6, -2, 2, 6, 1022, 1020]), 2, -1, 255)
    assert found.tolist() == [-1, 0, 0, 2, 255, 255]
