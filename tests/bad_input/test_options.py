"""Options that make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_files import QUANTIZE

Refused = Callable[..., str]


def test_names_of_a_frozen_graph(refused: Refused, sources: Path) -> None:
    assert "names can be given" in refused("convert {s}/net.keras -o {t}/o.onnx --outputs dense", s=sources)
    assert "whole numbers" in refused("convert {s}/net.pb -o {t}/o.onnx --input-shape 8x8x3", s=sources)
    for shape in ("0,8,3", "8,8,-3", "8,8", "8,8,3,1", "16,16,3", ","):
        refused("convert {s}/net.pb -o {t}/o.onnx --input-shape", shape, s=sources)
    assert "'image' (4, 4, 3)" in refused("convert {s}/net.keras -o {t}/o.onnx --input-shape 8,8,1", s=sources)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--weight-bits 1", "weight bits must be 2 to 8. Received: 1"),
        ("--weight-bits 9", "weight bits must be 2 to 8. Received: 9"),
        ("--weight-bits -9", "weight bits must be 2 to 8"),
        ("--weight-bits 0", "weight bits must be 2 to 8"),
        ("--weight-bits eight", "--weight-bits"),
        ("--activation-bits 16", "activation bits must be 2 to 8"),
        ("--relu-bits 1", "relu bits"),
        ("--avgpool-bits 9", "average pool bits"),
        ("--avgpool-reciprocal-bits 9", "reciprocal bits"),
        ("--layer-bits 7", "layer bits must be 16 or 32. Received: 7"),
        ("--layer-bits 8", "layer bits must be 16 or 32"),
        ("--first-layer frist", "no compute layer is called 'frist'; close names: first"),
        ("--last-layer relu", "no compute layer is called 'relu'"),
        ("--method median", "mse"),
        ("--percentile 101", "--percentile"),
        ("--weight-method klj", "mse"),
        ("--limit 0", "--limit"),
        ("--seed -1", "seed"),
        ("--preprocess imagenet", "inception"),
        ("--preprocess unit", "floating-point"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_options(refused: Refused, dense: Path, options: str, says: str) -> None:
    assert says in refused(f"{QUANTIZE} {options}", d=dense)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--engines oracle,tflite", "tflite"),
        ("--engines oracle", "an engine to be compared with"),
        ("--engines ,", "an engine to be compared with"),
        ("--copy ort", "ENGINE=FILE"),
        ("--copy ort=", "ENGINE=FILE"),
        ("--copy tflite={d}/q.onnx", "ort-optimized"),
        ("--copy ort={d}/none.onnx", "none.onnx: no such file"),
        ("--copy tf={d}/q.onnx", "--engines"),
        ("--copy ort={d}/q.onnx --copy ort={d}/q.onnx", "twice"),
        ("--copy ort={d}/m.onnx", "quantized"),
        ("--copy ort={d}/q32.onnx", "another network"),
        ("--copy oracle={d}/q32.onnx", "another network"),
        ("--copy oracle={d}/m.onnx", "quantized"),
        ("--engines oracle,tf --copy tf={d}/m.onnx", "quantized"),
    ],
)
def test_options_of_check(refused: Refused, dense: Path, options: str, says: str) -> None:
    assert says in refused(f"check {{d}}/q.onnx --data {{d}}/x.npy {options}", d=dense)


def test_options_of_evaluate(refused: Refused, dense: Path) -> None:
    assert "once" in refused("evaluate {d}/m.onnx {d}/m.onnx --data {d}/xy.npz", d=dense)
    refused("evaluate --data {d}/xy.npz", d=dense)


def test_an_unknown_verb(refused: Refused) -> None:
    assert "quantise" in refused("quantise")
