"""`parameters.json` and the `.npy` files alone are the network: a reader of the test computes the oracle's integers from them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handoff_networks import NETWORKS, examples, quantized
from integer_reader import run_step

from tqt_onnx.export import IntegerNetwork
from tqt_onnx.export.integer_onnx.parameters import write_parameters
from tqt_onnx.verbs.export import make_source


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def read(folder: Path) -> dict[str, Any]:
    """Strictly: no NaN, no Infinity, no name twice."""
    found: dict[str, Any] = json.loads((folder / "parameters.json").read_text("utf-8"), parse_constant=refuse)
    return found


@pytest.mark.parametrize(("layer", "weight"), [(16, 8), (32, 8), (16, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_alone_give_the_oracles_integers(name: str, layer: int, weight: int, tmp_path: Path) -> None:
    source = make_source(quantized(name, layer, weight), "net", None)
    write_parameters(source.network, tmp_path, "half_even")
    expected = source.oracle({"x": examples()})

    described = read(tmp_path)
    tensors = {tensor["name"]: tensor for tensor in described["tensors"]}
    integers = {name: np.load(tmp_path / entry["file"]).astype(np.int64) for name, entry in tensors.items() if entry["file"]}
    (port,) = described["inputs"]
    start = tensors[port["tensor"]]
    rounded = np.rint(np.ldexp(examples().astype(np.float64), -start["exponent"]))
    integers[start["name"]] = np.clip(rounded, start["lower"], start["upper"]).astype(np.int64)
    for entry in described["layers"]:
        integers[entry["output"]] = run_step(entry, integers, entry)
        assert (entry["lower"], entry["upper"]) == (tensors[entry["output"]]["lower"], tensors[entry["output"]]["upper"])
    assert set(expected) <= set(integers)
    for key, wanted in expected.items():
        np.testing.assert_array_equal(integers[key], wanted, err_msg=key)
        assert [None, *wanted.shape[1:]] == tensors[key]["shape"]


def described(name: str, folder: Path, layer: int = 16, weight: int = 8) -> tuple[IntegerNetwork, dict[str, Any]]:
    network = make_source(quantized(name, layer, weight), "net", None).network
    write_parameters(network, folder, "half_even")
    return network, read(folder)


def test_what_is_said_of_a_network(tmp_path: Path) -> None:
    network, found = described("tail", tmp_path)
    assert {key: found[key] for key in ("schema", "contract", "rounding", "outputs", "ends")} == {
        "schema": "tqt_onnx.parameters/1",
        "contract": "layer16",
        "rounding": "half_even",
        "outputs": [{"name": "p", "tensor": None, "shape": [None, 5]}],
        "ends": ["y__q"],
    }
    assert found["inputs"] == [{"name": "x", "tensor": network.inputs[0].tensor, "shape": [None, 8, 8, 3]}]
    assert [(part["node"], part["op"], part["is_tail"]) for part in found["float_parts"]] == [("p", "Softmax", True)]
    assert found["float_parts"][0]["reason"]
    assert [entry["name"] for entry in found["tensors"]] == list(network.tensors)
    assert [entry["output"] for entry in found["layers"]] == [step.output for step in network.steps]


def test_what_is_said_of_a_layer(tmp_path: Path) -> None:
    network, found = described("depthwise", tmp_path, layer=32)
    layers = {entry["name"]: entry for entry in found["layers"]}
    step = next(step for step in network.steps if step.name == "dw")
    entry = layers["dw"]
    (operation,) = [operation for operation in entry["operations"] if operation["op"] == "Conv"]
    assert operation["attributes"]["group"] == 6
    assert operation["attributes"]["pads"] == [1, 1, 1, 1]
    assert operation["bound"] == step.operations[0].bound
    assert entry["accumulator_bits"] == operation["accumulator_bits"] == operation["bound"].bit_length() + 1
    assert entry["shift"] == step.shift
    assert entry["upper"] < 255  # a relu6


def test_constants_are_stored_in_the_smallest_type_of_their_bits(tmp_path: Path) -> None:
    for place, (name, layer, weight) in enumerate((("residual", 16, 8), ("residual", 32, 4), ("leaky", 16, 8))):
        folder = tmp_path / str(place)
        folder.mkdir()
        network, found = described(name, folder, layer, weight)
        files = [entry["file"] for entry in found["tensors"] if entry["kind"] == "constant"]
        assert len(set(map(str.lower, files))) == len(files) == len(network.constants)
        assert sorted(files) == sorted(path.relative_to(folder).as_posix() for path in folder.glob("weights/*"))
        for entry in found["tensors"]:
            assert (entry["file"] is None) == (entry["kind"] != "constant")
            if entry["file"]:
                wanted = "int8" if entry["bits"] <= 8 else "int16" if entry["bits"] <= 16 else "int32"
                stored = np.load(folder / entry["file"], allow_pickle=False)
                assert stored.dtype == (wanted if entry["signed"] else f"u{wanted}")
                np.testing.assert_array_equal(stored, network.tensors[entry["name"]].integers)
        bits = {entry["bits"] for entry in found["tensors"] if entry["file"]}
        assert bits == {0: {8, 16}, 1: {4, 8, 32}, 2: {8, 10, 16}}[place]


def test_only_what_is_rounded_has_a_rounding(tmp_path: Path) -> None:
    network, found = described("concat", tmp_path)
    copies = {step.output for step in network.steps if step.is_copy}
    assert copies
    for entry in found["tensors"]:
        rounded = entry["kind"] != "constant" and entry["name"] not in copies
        assert entry["rounding"] == ("half_even" if rounded else None)


def test_file_names_are_safe_whatever_tensors_are_called(tmp_path: Path) -> None:
    network = make_source(quantized("residual", 16), "net", None).network
    names = ["../../etc/passwd", "a/b:c*?", "A/B:C*?", "weights" * 60, "µ", "", "con", ".hidden"]
    constants = network.constants[: len(names)]
    renamed = {name: replace(tensor, name=name) for name, tensor in zip(names, constants, strict=False)}
    write_parameters(replace(network, tensors={**renamed}, steps=()), tmp_path, "half_even")
    files = [path.name for path in (tmp_path / "weights").iterdir()]
    assert len(files) == len(renamed) == len({name.lower() for name in files})
    assert all(re.fullmatch(r"\d{3}_[A-Za-z0-9_-]{0,76}\.npy", name) for name in files)
    assert {path.name for path in tmp_path.iterdir()} == {"parameters.json", "weights"}
    assert [entry["name"] for entry in read(tmp_path)["tensors"]] == list(renamed)
