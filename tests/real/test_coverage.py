"""Files of other people the whole road: lines of docs/coverage.md."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from third_party import DATA
from whole_road import NETWORK, record, take

import tqt_onnx
from tqt_onnx.ir import TqtOnnxError, UnsupportedError

pytestmark = pytest.mark.real

MODELS: Final[dict[str, dict[str, Any]]] = {
    "resnet8_cifar10.h5": {},
    "mobilenet_v1_0.25_128_frozen.pb": {},
    "mobilenet_v1_0.75_224.keras": {},
    "vww_mobilenet_v1_0.25_96.h5": {},
    "kws_dscnn_saved_model": {},
    "cifar_small_ckpt": {"outputs": ["Output"]},
    "yolov2_mobilenet_voc20.pb": {},
}
"""File -> options of `convert`."""

ISLANDS: Final[dict[str, list[str]]] = {
    "global_pool_by_axis": ["ReduceMean"],
    "keras_batch_norm_training": ["InstanceNormalization"],
    "keras_softmax": ["Div", "Exp", "ReduceMax", "ReduceSum"],
    "l2_normalize": ["Clip", "Clip", "Div", "Div", "ReduceSumSquare", "ReduceSumSquare", "Sqrt", "Sqrt"],
    "max_pool_by_axis": ["ReduceMax"],
    **{f"reduce_sum_{axes}_True": ["Add", "ReduceSum"] for axes in ("0", "1", "1_2", "2", "3")},
}
"""OpenCV graph -> operators that stay float."""

REFUSED: Final = {
    **dict.fromkeys(
        (
            "argmax",
            "ave_pool3d",
            "batch_matmul",
            "max_pool2d_asymmetric_pads_nhwc",
            "reduce_max_channel",
            "reduce_sum",
            "reshape_as_shape",
            "reshape_layer",
            "reshape_no_reorder",
            "unfused_flatten_unknown_batch",
        ),
        "nothing to quantize",
    ),
    "lstm": "operator 'BlockLSTM'",
    "max_pool_grad": "operator 'MaxPoolGrad'",
    "mvn_batch_norm": "batch norm 'FusedBatchNorm' is in training mode",
}
"""OpenCV graph -> what the refusal says: some hold one operator alone, that moves, adds up or has no layer beside it."""

FIXED_BATCH: Final = frozenset({"keras_pad_concat", "reduce_sum_0_True", "slim_softmax_v2"})
"""OpenCV graphs that take their own number of examples only."""

COLOCATED: Final = frozenset({"slim_batch_norm"})
"""OpenCV graphs that TensorFlow cannot import as they are, for nodes colocated with one that is gone, and we can."""

EXAMPLES: Final = 4


@pytest.mark.parametrize("name", MODELS)
def test_models(data: Path, name: str) -> None:
    options = MODELS[name]
    inputs = tqt_onnx.convert(data / "models" / name, **options).model.graph.inputs
    shape = [dim for dim in list(inputs[0].shape or ())[1:] if isinstance(dim, int)]
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    journey = take(data / "models" / name, images, settings=NETWORK, **options)
    journey.assert_exact()
    record("files", name, journey)


def opencv() -> ModuleType:
    """`benchmarks/opencv_graphs.py`."""
    if "opencv_graphs" not in sys.modules:
        path = Path(__file__).parents[2] / "benchmarks" / "opencv_graphs.py"
        spec = importlib.util.spec_from_file_location("opencv_graphs", path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["opencv_graphs"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["opencv_graphs"]


def reason_of(error: BaseException, folder: Path) -> str:
    """What the tool says, without the path in front and what it received behind."""
    text = re.sub(rf"^{re.escape(str(folder))}[^ ]*: |^\w+_net: ", "", str(error))
    return text.partition(". Received:")[0].partition(" for '{{node")[0].partition("; ")[0]


def graphs() -> list[str]:
    """Names of OpenCV's graphs, none where the data is absent."""
    return opencv().names_in(DATA / "graphs" / "opencv")  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", graphs() or [pytest.param("", marks=pytest.mark.skip("third-party data not found"))])
def test_opencv_graphs(data: Path, name: str) -> None:
    """Each graph that TensorFlow reproduces, on its own example and on noise of its size."""
    folder = data / "graphs" / "opencv"
    found = opencv().example(folder, name)
    label = f"OpenCV {name}"
    if found is None and name in COLOCATED:
        found = np.moveaxis(np.load(folder / f"{name}_in.npy"), 1, -1).astype(np.float32)
    if found is None:
        with pytest.raises(TqtOnnxError) as refusal:
            tqt_onnx.convert(folder / f"{name}_net.pb")
        record("files", label, reason_of(refusal.value, folder))
        return
    noise = np.random.default_rng(0).normal(size=(EXAMPLES - len(found), *found.shape[1:])) * found.std()
    images = found if name in FIXED_BATCH else np.concatenate([found, found[:1] + noise]).astype(np.float32)
    try:
        journey = take(folder / f"{name}_net.pb", images, settings=NETWORK, input_shape=found.shape[1:])
    except UnsupportedError as error:
        assert name in REFUSED and REFUSED[name] in str(error), error
        record("files", label, reason_of(error, folder))
        return
    assert name not in REFUSED
    journey.assert_exact(ISLANDS.get(name, []))
    record("files", label, journey)
