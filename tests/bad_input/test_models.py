"""Models that do not fit a verb, and metadata that somebody has tampered with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bad_files import dense_network, write
from onnx import TensorProto, helper

from tqt_onnx.ir import CONTRACT_KEY, QUANTIZERS_KEY, RANGES_KEY

Refused = Callable[..., str]


def test_a_float_model_has_nothing_to_check(refused: Refused, dense: Path) -> None:
    assert "not a quantized model" in refused("check {d}/m.onnx --data {d}/x.npy", d=dense)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"opset": 22}, "opset 21 is expected"),
        ({"opset": 13}, "opset 21 is expected"),
        ({"ir_version": 0}, "IR version"),
        ({"weights": np.full((3, 2), np.nan)}, "'w'"),
        ({"weights": np.array([[1, 2], [3, 4], [5, np.inf]])}, "'w'"),
        ({"weights": np.full((3, 2), 1e-36)}, "2^-"),
        ({"weights": np.ones((4, 2))}, "shape inference fails"),
    ],
)
def test_models_that_cannot_be_quantized(refused: Refused, tmp_path: Path, dense: Path, options: dict[str, Any], says: str) -> None:
    write(tmp_path / "bad.onnx", dense_network(**options))
    assert says in refused("quantize {t}/bad.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


def test_a_graph_without_anything_to_quantize(refused: Refused, tmp_path: Path, dense: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", ends[:1], ends[1:])
    write(tmp_path / "m.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert "nothing to quantize" in refused("quantize {t}/m.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


def test_models_of_unlike_inputs(refused: Refused, tmp_path: Path, dense: Path) -> None:
    write(tmp_path / "wide.onnx", dense_network(weights=np.ones((4, 2)), width=4))
    refused("evaluate {d}/m.onnx {t}/wide.onnx --data {d}/xy.npz", d=dense)


# --- metadata


def tampered(source: Path, target: Path, key: str, change: Callable[[str], str | None]) -> None:
    """A copy of a model with another text under a key; None removes it."""
    model = onnx.load(source)
    (entry,) = (entry for entry in model.metadata_props if entry.key == key)
    text = change(entry.value)
    if text is None:
        model.metadata_props.remove(entry)
    else:
        entry.value = text
    write(target, model)


def every_verb(refused: Refused, name: str, dense: Path) -> None:
    refused(f"check {{t}}/{name} --data {{d}}/x.npy", d=dense)
    refused(f"inspect {{t}}/{name}", d=dense)
    refused(f"check {{d}}/q.onnx --data {{d}}/x.npy --copy ort={{t}}/{name}", d=dense)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "NaN",
        "1e999",
        '{"contract": "layer16"}',
        '{"contract": "layer16", "quantizers": {}}',
        '{"contract": "layer16", "quantizers": [1]}',
        '{"contract": "layer16", "quantizers": [null]}',
        '{"contract": "layer16", "quantizers": [[]]}',
        '{"contract": "x", "quantizers": []}',
        '{"contract": ["layer16"], "quantizers": []}',
        '{"contract": "layer16", "quantizers": [], "more": 1}',
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"contract": "layer16", "quantizers": [' + "9" * 5000 + "]}",
    ],
    ids=lambda text: text[:40],
)
def test_metadata_that_are_not_of_the_schema(refused: Refused, tmp_path: Path, dense: Path, text: str) -> None:
    tampered(dense / "q.onnx", tmp_path / "bad.onnx", QUANTIZERS_KEY, lambda _: text)
    every_verb(refused, "bad.onnx", dense)


FIELDS: dict[str, list[Any]] = {
    "id": [None, 7, "", ["x"], {}],
    "value": [None, 7, "", "nobody", "y\0"],
    "bits": [None, True, "8", 8.0, 0, 1, -8, 17, 32, 10**30, math.nan],
    "signed": [None, 0, 1, "true", False],
    "role": [None, "other", 1, ["weight"]],
    "group": [None, 7, []],
    "limit": [0, -6, "6", math.nan, math.inf, -math.inf, True, [6], 10**400],
    "derived_from": ["x", [], ["x"], ["x", "w", "b"], ["nobody", "w"], [1, 2], {"x": "w"}],
    "exponent": [None, "0", 0.5, True, math.nan, 10**30, -(10**30), 1000, -7.0],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values], ids=lambda part: str(part)[:20]
)
def test_quantizers_with_fields_of_the_wrong_kind(refused: Refused, tmp_path: Path, dense: Path, field: str, value: Any) -> None:
    def change(text: str) -> str:
        data = json.loads(text)
        data["quantizers"][1][field] = value
        return json.dumps(data)

    tampered(dense / "q.onnx", tmp_path / "bad.onnx", QUANTIZERS_KEY, change)
    refused("inspect {t}/bad.onnx", d=dense)


def swapped(entries: list[Any]) -> None:
    entries[0]["value"], entries[1]["value"] = entries[1]["value"], entries[0]["value"]


def renamed(entries: list[Any]) -> None:
    entries[0]["value"] = "y"


def doubled(entries: list[Any]) -> None:
    entries.append(dict(entries[0]))


def shifted(entries: list[Any]) -> None:
    for entry in entries:
        entry["exponent"] += 1


def circular(entries: list[Any]) -> None:
    entries[2]["derived_from"] = [entries[2]["id"], entries[2]["id"]]


def without_one(entries: list[Any]) -> None:
    del entries[1]


def without_all(entries: list[Any]) -> None:
    entries.clear()


@pytest.mark.parametrize("change", [swapped, renamed, doubled, shifted, circular, without_one, without_all])
@pytest.mark.parametrize("name", ["q.onnx", "q32.onnx"])
def test_quantizers_that_are_not_those_of_the_nodes(
    refused: Refused, tmp_path: Path, dense: Path, change: Callable[[list[Any]], None], name: str
) -> None:
    def changed(text: str) -> str:
        data = json.loads(text)
        change(data["quantizers"])
        return json.dumps(data)

    tampered(dense / name, tmp_path / "bad.onnx", QUANTIZERS_KEY, changed)
    refused("inspect {t}/bad.onnx", d=dense)


def test_check_does_not_take_the_word_of_metadata(refused: Refused, tmp_path: Path, dense: Path) -> None:
    def changed(text: str) -> str:
        data = json.loads(text)
        shifted(data["quantizers"])
        return json.dumps(data)

    tampered(dense / "q.onnx", tmp_path / "bad.onnx", QUANTIZERS_KEY, changed)
    assert "recorded" in refused("check {t}/bad.onnx --data {d}/x.npy", d=dense)


@pytest.mark.parametrize("contract", ["layer32", "layer17", "", None])
def test_a_contract_that_is_not_that_of_the_quantizers(refused: Refused, tmp_path: Path, dense: Path, contract: str | None) -> None:
    tampered(dense / "q.onnx", tmp_path / "bad.onnx", CONTRACT_KEY, lambda _: contract)
    every_verb(refused, "bad.onnx", dense)


@pytest.mark.parametrize(
    "ranges",
    ["", "[]", "{", '{"r": [0]}', '{"r": 6}', '{"r": ["0", "6"]}', '{"r": [NaN, 6]}', '{"r": [0, 1e999]}', '{"r": [6, 0]}'],
)
def test_recorded_ranges_that_are_none(refused: Refused, tmp_path: Path, dense: Path, ranges: str) -> None:
    model = dense_network()
    model.metadata_props.add(key=RANGES_KEY, value=ranges)
    write(tmp_path / "m.onnx", model)
    assert RANGES_KEY in refused("quantize {t}/m.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)


def test_metadata_said_twice(refused: Refused, tmp_path: Path, dense: Path) -> None:
    model = onnx.load(dense / "q.onnx")
    model.metadata_props.append(model.metadata_props[0])
    write(tmp_path / "bad.onnx", model)
    every_verb(refused, "bad.onnx", dense)


def test_open_sizes_are_to_be_fixed_first(refused: Refused, tmp_path: Path, dense: Path) -> None:
    write(tmp_path / "open.onnx", dense_network(width="W"))
    assert "--input-shape" in refused("quantize {t}/open.onnx -o {t}/o.onnx --calibration {d}/x.npy", d=dense)
