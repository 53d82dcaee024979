"""`evaluate`: networks of different sizes and class counts side by side, in the memory of a few batches."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from PIL import Image

import tqt_onnx
from tqt_onnx import DataError, UsageError
from tqt_onnx.datasets import Dataset

Array = np.ndarray[Any, Any]


def brightness(size: int, background: bool = False) -> onnx_ir.Model:
    """Classes 0 (dark) and 1 (bright) of grey images of that size, decided by the mean; with a background class in front."""
    classes = 3 if background else 2
    weights = "{0.0, -1.0, 1.0}" if background else "{-1.0, 1.0}"
    bias = "{-1000.0, 127.5, -127.5}" if background else "{127.5, -127.5}"
    return onnx_ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[N,{size},{size},1] image) => (float[N,{classes}] y)
        <float[1,{classes}] w = {weights}, float[{classes}] b = {bias}, int64[3] axes = {{1, 2, 3}}, int64[2] flat = {{-1, 1}}>
        {{ m = ReduceMean<keepdims = 0>(image, axes) f = Reshape(m, flat) y = Gemm(f, w, b) }}"""
    )


@pytest.fixture(name="folder", scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven dark and five bright images of 16 x 16; one dark image lies in the folder of the bright ones."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        place = folder / ("bright" if index >= 6 else "dark")
        place.mkdir(exist_ok=True)
        grey = np.full((16, 16), 40 + index if index < 7 else 200 + index, np.uint8)
        Image.fromarray(grey).save(place / f"{index:02}.png")
    return folder


def test_networks_of_different_sizes_see_the_same_images(folder: Path) -> None:
    """Class folders are sorted: `bright` is 0 and `dark` 1, so the networks are wrong on all but the odd one."""
    models = {"8": brightness(8), "16": brightness(16), "32": brightness(32)}
    result = tqt_onnx.evaluate(models, folder, batch_size=5)
    assert result.names == ("8", "16", "32")
    assert [(model.top1, model.count) for model in result.models] == [(1, 12)] * 3
    assert result.agree == ((12,) * 3,) * 3
    drawn = tqt_onnx.evaluate(models, folder, batch_size=5, limit=9, seed=3)
    assert drawn.agree == ((9,) * 3,) * 3
    assert {model.top1 for model in drawn.models} <= {0, 1}


def test_arrays_have_one_size(folder: Path) -> None:
    array = np.zeros((4, 8, 8, 1), np.float32)
    with pytest.raises(DataError, match=r"^16: .*\[N, 16, 16, 1\].*Received: \[4, 8, 8, 1\]; only images can be resized"):
        tqt_onnx.evaluate({"8": brightness(8), "16": brightness(16)}, array)
    with pytest.raises(DataError, match=r"^16: (?!.*only images)"):
        tqt_onnx.evaluate({"16": brightness(16)}, array)


@pytest.mark.parametrize("offset", [(0, 1), {"plain": 0, "background": 1}])
def test_class_counts_may_differ(folder: Path, offset: Any) -> None:
    models = {"plain": brightness(8), "background": brightness(8, background=True)}
    result = tqt_onnx.evaluate(models, folder, label_offset=offset)
    assert [model.top1 for model in result.models] == [1, 1]
    assert result.differences[0].agreement == 1.0


def test_offsets_are_one_or_one_each(folder: Path) -> None:
    models = {"a": brightness(8, background=True), "b": brightness(8, background=True)}
    for offset in (1, (1,), (1, 1)):
        assert [model.top1 for model in tqt_onnx.evaluate(models, folder, label_offset=offset).models] == [1, 1]
    with pytest.raises(UsageError, match=r"one for each of 2 models, is expected\. Received: 3"):
        tqt_onnx.evaluate(models, folder, label_offset=(1, 1, 0))
    with pytest.raises(DataError, match="label offset"):
        tqt_onnx.evaluate(models, folder, label_offset={"a": 1})


class Counted:
    """A reader that keeps track of the batches it has handed out and that are still alive."""

    shape = (8, 8, 1)

    def __init__(self, count: int) -> None:
        self.count, self.most, self.alive = count, 0, weakref.WeakSet[Any]()

    def __len__(self) -> int:
        return self.count

    def name(self, row: int) -> str:
        return f"row {row}"

    def read(self, rows: Any) -> Any:
        class Batch(np.ndarray[Any, Any]):  # a plain array cannot be referred to weakly
            pass

        gc.collect()
        self.most = max(self.most, len(self.alive) + 1)
        batch = np.full((len(rows), *self.shape), 10.0, np.float32).view(Batch)
        self.alive.add(Handle(batch))
        return batch


class Handle:
    """What lives as long as its batch."""

    def __new__(cls, batch: Any) -> Handle:
        handle = super().__new__(cls)
        batch.handle = handle
        return handle


@pytest.mark.parametrize("count", [20, 200])
def test_memory_does_not_grow_with_the_number_of_images(count: int) -> None:
    """While a batch is read, only the one before it and what a `zip` still holds are referred to."""
    reader = Counted(count)
    data = Dataset(reader, np.arange(count), np.zeros(count, np.int64), "counted")
    result = tqt_onnx.evaluate({"a": brightness(8), "b": brightness(8)}, data, batch_size=4)
    assert result.count == count
    assert reader.most <= 3
