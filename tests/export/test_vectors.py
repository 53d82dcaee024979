"""Target `vectors`: a reader of manifest and files alone recomputes every step, `==`, from `.npy` and from `.mem`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from fuzz_road import quantize_network
from handoff_networks import NETWORKS, examples, quantized
from hypothesis import HealthCheck, given, settings
from integer_reader import round_and_saturate
from random_networks import Network, networks
from vector_reader import READERS, read_manifest, read_mem, read_npy, recomputed, rows, written

import tqt_onnx
from tqt_onnx.export import VectorsExporter
from tqt_onnx.export.vector_files import memory_files
from tqt_onnx.export.vector_files.memory_files import GrowingArray, WordFiles, hex_lines, safe_stem, storage
from tqt_onnx.ir import DataError, UnsupportedError
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.export import export_model, make_source
from tqt_onnx.verbs.sources import Feeder

FUZZ = int(os.environ.get("TQT_ONNX_FUZZ", "40"))


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
        files.append(whole[start : start + 10], [f"rows from {start}", f"rows from {start + 5}"])
    files.close()
    lines = (tmp_path / "a.mem").read_text().splitlines()
    assert lines[:2] == ["// head", "// rows from 0"]
    assert [line for line in lines[2:] if line.startswith("//")] == [lines[27], lines[53], lines[79]]
    assert (lines[27], lines[53], lines[79]) == ("// rows from 5", "// rows from 10", "// rows from 15")
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
