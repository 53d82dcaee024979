"""`calibration_set`: N random images, prepared as the network sees them, in one `.npy` that quantization tools exchange."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from ..ir import DataError, UsageError, atomic_path, fed_inputs, static_shape
from .sources import Progress, open_model

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset, Preprocessing

SCHEMA: Final = "tqt_onnx.calibration-set/1"

_BATCH = 16
"""Images in memory at once."""


@dataclass(frozen=True)
class CalibrationSet:
    """What was written.

    Attributes:
        path: the `.npy` file.
        shape: of its array, [N, H, W, C].
        names: the examples drawn, in the order of the rows: files, rows or records of the source.
        source: what they were drawn from.
        preprocess: preset applied.
        seed: of the draw.
        minimum: smallest number in the array.
        maximum: largest number.
    """

    path: Path
    shape: tuple[int, ...]
    names: tuple[str, ...]
    source: str
    preprocess: str
    seed: int
    minimum: float
    maximum: float

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {
            "schema": SCHEMA,
            "path": str(self.path),
            "shape": list(self.shape),
            "dtype": "float32",
            "source": self.source,
            "preprocess": self.preprocess,
            "seed": self.seed,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "names": list(self.names),
        }


def calibration_set(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    model: onnx_ir.Model | str | os.PathLike[str] | None = None,
    count: int = 50,
    preprocess: str | Preprocessing = "none",
    seed: int = 0,
    exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    list_file: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CalibrationSet:
    """Writes `count` examples drawn at random, as float32 [N, H, W, C]: Graffitist's `calibration_set.npy`.

    The same seed, source and preset give the same bytes. A few images are in memory at a time. Nothing is left behind if it fails.

    Args:
        data: anything `open_dataset` takes.
        output: the `.npy` to write.
        input_shape: H, W, C of the network's input; without it and without `model` that of the source.
        model: an ONNX model (or its file) with one input whose shape is taken instead.
        count: how many.
        preprocess: preset, by name or one of one's own.
        seed: draws them and their order.
        exclude: examples not to draw, as in `open_dataset`.
        list_file: where to write the names of the examples, one on each line; given as `exclude` later, it keeps sets apart.
        force: overwrite what exists.
        progress: called with (done, total, what).

    Raises:
        DataError: data that cannot be read or does not fit, or fewer examples than `count`.
        ModelError: a file that is no model.
        UsageError: outputs that are in the way, or both `input_shape` and `model`.
    """
    from ..datasets import open_dataset

    shape = _shape(input_shape, model)
    outputs = [Path(path) for path in (output, list_file) if path is not None]
    if len({path.resolve() for path in outputs}) != len(outputs):
        raise UsageError(f"the array and the list of names want a file each. Received: {outputs[0]} for both")
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(path, force=force)) for path in outputs]
        chosen = open_dataset(data, input_shape=shape, preprocess=preprocess, exclude=exclude).sample(count, seed)
        names = chosen.names()
        with temporary[0].open("wb") as file:
            minimum, maximum = _write(file, chosen, progress)
        if list_file is not None:
            _write_names(temporary[1], names, chosen.source)
    return CalibrationSet(
        path=outputs[0],
        shape=(len(chosen), *chosen.input_shape),
        names=tuple(names),
        source=str(data),
        preprocess=preprocess if isinstance(preprocess, str) else preprocess.help,
        seed=seed,
        minimum=minimum,
        maximum=maximum,
    )


def _shape(input_shape: Sequence[int] | None, model: Any) -> tuple[int | None, ...] | None:
    if model is None:
        return None if input_shape is None else tuple(input_shape)
    if input_shape is not None:
        raise UsageError("either an input shape or a model to take it from is expected. Received: both")
    inputs = fed_inputs(open_model(model).graph)
    if len(inputs) != 1:
        raise DataError(f"a model with one input is expected. Received: {len(inputs)}")
    shape = static_shape(inputs[0])
    return None if shape is None else tuple(shape[1:])


def _write(file: IO[bytes], chosen: Dataset, progress: Progress | None) -> tuple[float, float]:
    """Writes header and rows one batch at a time, so that a full disk is an error (a memory map would end the process)."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(chosen), *chosen.input_shape)}
    np.lib.format.write_array_header_1_0(file, header)
    done, minimum, maximum = 0, float("inf"), float("-inf")
    for images, _ in chosen.batches(_BATCH):
        file.write(np.ascontiguousarray(images, "<f4").data)
        minimum, maximum = min(minimum, float(images.min())), max(maximum, float(images.max()))
        done += len(images)
        if progress is not None:
            progress(done, len(chosen), "preparing")
    return minimum, maximum


def _write_names(path: Path, names: Sequence[str], source: str) -> None:
    broken = next((name for name in names if len(name.splitlines()) != 1), None)
    if broken is not None:  # the list would be read as names that do not exist
        raise DataError(f"{source}: the name {broken!r} cannot be listed on a line")
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8", errors="surrogateescape", newline="\n")
