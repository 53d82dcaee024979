"""A reader of golden vectors that has nothing but the folder, and networks to write them of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from integer_reader import run_step

import tqt_onnx
from tqt_onnx.passes import BitWidths
from tqt_onnx.verbs.export import export_model

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
