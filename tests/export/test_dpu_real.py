"""Third-party networks for DPUs: as they are with 7-bit relus, and with `--fix` from the default widths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dpu_reading import FITS, Reading

import tqt_onnx
from tqt_onnx import BitWidths
from tqt_onnx.verbs.export import export_model

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet8_cifar10.h5", (32, 32, 3)), ("mobilenet_v1_0.25_128_frozen.pb", (128, 128, 3))]
)
def test_real_networks_fit(name: str, shape: tuple[int, ...], data: Path, tmp_path: Path) -> None:
    model = tqt_onnx.convert(data / "models" / name).model
    examples = np.random.default_rng(0).uniform(-1, 1, (8, *shape)).astype(np.float32)
    for bits, fix in ((FITS, False), (BitWidths(), True)):
        quantized = tqt_onnx.quantize(model, examples, bits=bits).model
        folder = tmp_path / str(fix)
        export_model(quantized, "dpu", folder, options={"fix": fix}, data=examples)
        Reading(folder / "model.onnx").check()
        result = tqt_onnx.check(folder / "model.onnx", examples[:2])
        assert result.ok
        assert bool(json.loads((folder / "positions.json").read_text())["changes"]) == fix
