"""`calibration_set`: what is written, that it is reproducible, and that nothing is left behind where it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from PIL import Image

from tqt_onnx import DataError, ModelError, UsageError, open_dataset
from tqt_onnx.verbs.calibration_set import calibration_set
from tqt_onnx.verbs.sources import Feeder


@pytest.fixture(name="folder", scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes `a` and `b` of 30 pictures 10 x 12 each; the red of each picture is its number."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(60):
        place = folder / ("a" if number < 30 else "b")
        place.mkdir(exist_ok=True)
        Image.new("RGB", (12, 10), (number, 200, 7)).save(place / f"{number:02d}.png")
    return folder


def network(path: Path, shape: tuple[int | str, ...] = (8, 6, 3)) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_rows_are_the_examples_drawn(folder: Path, tmp_path: Path) -> None:
    result = calibration_set(folder, tmp_path / "c.npy", input_shape=(10, 12, 3), seed=3, preprocess="unit")
    array = np.load(tmp_path / "c.npy")
    assert (array.shape, array.dtype) == ((50, 10, 12, 3), np.float32) and array.flags.c_contiguous
    expected = open_dataset(folder, input_shape=(10, 12, 3), preprocess="unit").sample(50, 3)
    assert np.array_equal(array, expected.array())
    numbers = [round(float(row[0, 0, 0]) * 255) for row in array]
    assert list(result.names) == expected.names() == [f"{'a' if n < 30 else 'b'}/{n:02d}.png" for n in numbers]
    assert len(set(numbers)) == 50
    assert (result.minimum, result.maximum) == (array.min(), array.max())
    fields = json.loads(json.dumps(result.to_dict()))
    assert fields["shape"] == [50, 10, 12, 3] and fields["seed"] == 3 and fields["preprocess"] == "unit"
    assert fields["names"] == expected.names()


def test_the_file_is_what_numpy_writes_and_quantize_reads(folder: Path, tmp_path: Path) -> None:
    calibration_set(folder, tmp_path / "c.npy", input_shape=(5, 5, 3), count=7)
    np.save(tmp_path / "again.npy", np.load(tmp_path / "c.npy"))
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "c.npy").read_bytes()
    assert len(open_dataset(tmp_path / "c.npy", input_shape=(5, 5, 3))) == 7


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    def written(name: str, seed: int) -> bytes:
        calibration_set(folder, tmp_path / name, input_shape=(4, 4, 3), count=20, seed=seed, preprocess="inception")
        return (tmp_path / name).read_bytes()

    assert written("a.npy", 0) == written("b.npy", 0) != written("c.npy", 1)


def test_the_shape_comes_from_a_model(folder: Path, tmp_path: Path) -> None:
    result = calibration_set(folder, tmp_path / "c.npy", model=network(tmp_path / "m.onnx"), count=2)
    assert result.shape == (2, 8, 6, 3)
    assert calibration_set(folder, tmp_path / "d.npy", count=2).shape == (2, 10, 12, 3)  # that of the pictures
    with pytest.raises(UsageError, match="either an input shape or a model"):
        calibration_set(folder, tmp_path / "e.npy", model=tmp_path / "m.onnx", input_shape=(4, 4, 3))
    with pytest.raises(ModelError, match=r"none\.onnx"):
        calibration_set(folder, tmp_path / "e.npy", model=tmp_path / "none.onnx")


def test_a_list_keeps_sets_apart(folder: Path, tmp_path: Path) -> None:
    first = calibration_set(folder, tmp_path / "c.npy", count=40, list_file=tmp_path / "c.txt")
    assert (tmp_path / "c.txt").read_text().splitlines() == list(first.names)
    second = calibration_set(folder, tmp_path / "d.npy", count=20, exclude=tmp_path / "c.txt")
    assert not {*first.names} & {*second.names}
    with pytest.raises(DataError, match=r"there are 20 examples to draw from\. Received: 21"):
        calibration_set(folder, tmp_path / "e.npy", count=21, exclude=tmp_path / "c.txt")


def test_the_feeder_leaves_out_what_is_listed(folder: Path, tmp_path: Path) -> None:
    import onnx_ir

    model = onnx_ir.load(network(tmp_path / "m.onnx", (10, 12, 3)))
    listed = calibration_set(folder, tmp_path / "c.npy", count=40, list_file=tmp_path / "c.txt")
    drawn = {int(row[0, 0, 0]) for row in np.load(tmp_path / "c.npy")}
    for data in (folder, open_dataset(folder)):
        feeder = Feeder(model, data, exclude=tmp_path / "c.txt", limit=15, seed=2)
        assert len(feeder) == 15
        assert not {int(row[0, 0, 0]) for feeds in feeder.feeds(4) for row in feeds["x"]} & drawn
    by_name = Feeder(model, {"x": np.load(tmp_path / "c.npy")}, exclude=["row 0", "row 39"])
    assert len(by_name) == len(listed.names) - 2


def test_few_images_are_in_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tqt_onnx.datasets.images import ImageReader

    read: list[int] = []
    original = ImageReader.read
    monkeypatch.setattr(ImageReader, "read", lambda self, rows: (read.append(len(rows)), original(self, rows))[1])
    seen: list[tuple[int, int]] = []
    calibration_set(folder, tmp_path / "c.npy", progress=lambda done, total, _: seen.append((done, total)))
    assert sum(read) == 50
    assert max(read) <= 16
    assert seen[-1] == (50, 50)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 61}, DataError, "there are 60 examples to draw from. Received: 61"),
        ({"count": 0}, DataError, "Received: 0"),
        ({"preprocess": "inceptoin"}, DataError, "preprocess must be one of"),
        ({"input_shape": (4, 4)}, DataError, "shape H,W,C"),
        ({"input_shape": (4, 4, 3), "exclude": ["cat.png"]}, DataError, "no example called 'cat.png'"),
        ({"list_file": "{t}/c.npy"}, UsageError, "a file each"),
        ({"list_file": "{t}/none/c.txt"}, UsageError, "does not exist"),
    ],
)
def test_refusals_leave_nothing_behind(
    folder: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {name: value.format(t=tmp_path) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        calibration_set(folder, tmp_path / "c.npy", **options)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_stay_unless_forced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.npy").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"c\.npy: exists"):
        calibration_set(folder, tmp_path / "c.npy")
    (tmp_path / "c.txt").write_bytes(b"precious too")
    with pytest.raises(UsageError, match=r"c\.txt: exists"):
        calibration_set(folder, tmp_path / "d.npy", list_file=tmp_path / "c.txt")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"c.npy": b"precious", "c.txt": b"precious too"}
    calibration_set(folder, tmp_path / "c.npy", count=1, list_file=tmp_path / "c.txt", force=True)
    assert np.load(tmp_path / "c.npy").shape[0] == len((tmp_path / "c.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def broken(done: int, *_: Any) -> None:
        if done > 16:
            raise failure

    expected: Callable[..., Any] = pytest.raises(UsageError if isinstance(failure, OSError) else KeyboardInterrupt)
    with expected:
        calibration_set(folder, tmp_path / "c.npy", list_file=tmp_path / "c.txt", progress=broken)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"b\.png: cannot be read as an image"):
        calibration_set(tmp_path, tmp_path / "c.npy", count=2, input_shape=(4, 4, 3))
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
