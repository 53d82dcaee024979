"""OpenCV's TensorFlow test graphs, nothing said about them: those that TensorFlow reproduces convert and agree, but for a list.

`benchmarks/opencv_graphs.py` prints the whole table.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.real

EXCEPTIONS: Final = {
    "lstm": "BlockLSTM: recurrent networks are out of scope",
    "max_pool_grad": "MaxPoolGrad: the gradient of an operator is out of scope, ONNX has none",
    "mvn_batch_norm": "FusedBatchNorm in training mode: an image's result depends on the others in the batch",
    "clip_by_value": "Maximum and Minimum of a tensor whose rank nothing tells; taken for images, the data is a matrix",
    "square": "Square of a tensor whose rank nothing tells; taken for images, the data is a matrix",
    "reshape_no_reorder": "Reshape of a tensor whose rank nothing tells; taken for images, the data has rank 3",
}
"""Graphs that TensorFlow reproduces and that do not come out right without a word from the user: the operator, and why."""

TENSORFLOW_FAILS: Final = frozenset(
    {
        "fp16_deconvolution",
        "fp16_max_pool_even",
        "fp16_max_pool_odd_valid",
        "fp16_padding_same",
        "fp16_single_conv",
        "slim_batch_norm",
    }
)
"""Graphs that TensorFlow cannot import as they are: float16 weights in float32 operators, colocation with a lost node."""

NEED_A_SHAPE: Final = ("clip_by_value", "square", "reshape_no_reorder")


def examine(data: Path, name: str, with_shape: bool = False) -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "opencv_graphs.py"
    if "opencv_graphs" not in sys.modules:
        spec = importlib.util.spec_from_file_location("opencv_graphs", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["opencv_graphs"] = module
        spec.loader.exec_module(module)
    return sys.modules["opencv_graphs"].examine(data / "graphs" / "opencv", name, with_shape)


def test_every_graph_is_as_the_lists_say(data: Path) -> None:
    """Also fails when an exception starts to work: then it is none any more."""
    names = sorted(path.name.removesuffix("_net.pb") for path in (data / "graphs" / "opencv").glob("*_net.pb"))
    outcomes = {name: examine(data, name) for name in names}
    assert {name for name, one in outcomes.items() if not one.tensorflow} == TENSORFLOW_FAILS
    wrong = {name: one.reason for name, one in outcomes.items() if one.tensorflow and not one.agrees}
    assert sorted(wrong) == sorted(EXCEPTIONS), wrong
    assert not any(one.reason == "another result" for one in outcomes.values())  # never silently wrong
    assert len(outcomes) - len(wrong) - sum(not one.tensorflow for one in outcomes.values()) >= 56


@pytest.mark.parametrize("name", NEED_A_SHAPE)
def test_a_shape_is_all_that_some_exceptions_need(data: Path, name: str) -> None:
    assert examine(data, name, with_shape=True).agrees


@pytest.mark.parametrize(
    ("name", "operator"),
    [("lstm", "'BlockLSTM'"), ("max_pool_grad", "'MaxPoolGrad'"), ("mvn_batch_norm", "'FusedBatchNorm' is in training mode")],
)
def test_the_others_are_refused_by_their_operator(data: Path, name: str, operator: str) -> None:
    assert operator in examine(data, name).reason
