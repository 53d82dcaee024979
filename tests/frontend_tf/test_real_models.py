"""Third-party files: they convert, keep their batch norms, and compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tqt_onnx.frontend_tf import load, to_onnx
from tqt_onnx.ir import SOURCE_KEY


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "batch_norms", "convolutions", "ends"),
    [
        ("mobilenet_v1_0.25_128_frozen.pb", 27, 28, ("input", "MobilenetV1/Predictions/Reshape_1")),
        ("mobilenet_v1_0.75_224.keras", 27, 28, ("input_layer", "predictions")),
        ("resnet8_cifar10.h5", 7, 9, ("input_1", "dense")),
        ("vww_mobilenet_v1_0.25_96.h5", 27, 27, ("input_1", "dense")),
    ],
)
def test_converts_and_agrees(
    data: Path, file: str, batch_norms: int, convolutions: int, ends: tuple[str, str], assert_same: Callable[..., None]
) -> None:
    frozen = load(data / "models" / file)
    assert (frozen.inputs, frozen.outputs) == ((ends[0],), (ends[1],))
    model = to_onnx(frozen)
    found = Counter(node.op_type for node in model.graph)
    assert (found["BatchNormalization"], found["Conv"], found["Transpose"]) == (batch_norms, convolutions, 1)
    assert found["Mul"] == found["Shape"] == found["Identity"] == 0
    assert all(SOURCE_KEY in node.metadata_props for node in model.graph)
    for node in model.graph:
        for value in node.outputs:
            assert value.shape is not None and str(value.shape[0]) == "N"
            assert all(isinstance(dim, int) for dim in list(value.shape)[1:])
    assert_same(frozen, model, **({"low": 0.0, "high": 255.0} if file.startswith("resnet8") else {}))
