"""What the verbs accept as models and as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..ir import DataError, load, name_of, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset

ModelSource = "onnx_ir.Model | str | os.PathLike[str]"
DataSource = "Dataset | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str]"

Feeds = dict[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int64] | None
Progress = Callable[[int, int, str], None]


def open_model(model: onnx_ir.Model | str | os.PathLike[str]) -> onnx_ir.Model:
    """The model itself, or the one in the file.

    Raises:
        ModelError: as `ir.load`.
    """
    return load(model) if isinstance(model, (str, os.PathLike)) else model


def data_inputs(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """Graph inputs that must be fed."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


class Feeder:
    """Batches of feeds for a model from any data source; only one batch is in memory.

    Args:
        model: whose inputs are fed.
        data: a `Dataset`, an array [N, ...], arrays by input name, or a path that `open_dataset` understands.
        preprocess: preset applied to images (paths only).
        limit: at most so many examples.
        seed: draws the examples at random; None keeps the order of the source.

    Raises:
        DataError: the data does not fit the model, or a model with several inputs is given a single array.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        data: Dataset | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
        *,
        preprocess: str = "none",
        limit: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.inputs = data_inputs(model)
        self._arrays: dict[str, npt.NDArray[Any]] | None = None
        self._dataset: Dataset | None = None
        if isinstance(data, Mapping):
            self._arrays = {name: np.asarray(array)[:limit] for name, array in data.items()}
        elif isinstance(data, (str, os.PathLike)) and (several := self._named_arrays(Path(data))) is not None:
            self._arrays = {name: array[:limit] for name, array in several.items()}
        else:
            self._dataset = self._open(data, preprocess, limit, seed)
        lengths = {len(array) for array in self._arrays.values()} if self._arrays is not None else set()
        if len(lengths) > 1:
            raise DataError(f"the arrays of the inputs must have one length. Received: {sorted(lengths)}")
        if len(self) == 0:
            raise DataError("the data is empty; at least one example is expected")

    def __len__(self) -> int:
        if self._arrays is not None:
            return min((len(array) for array in self._arrays.values()), default=0)
        assert self._dataset is not None
        return len(self._dataset)

    def batches(self, batch_size: int) -> Iterator[tuple[Feeds, Labels]]:
        """Feeds by input name, and int64 labels [n] or None."""
        if self._arrays is not None:
            for start in range(0, len(self), batch_size):
                part = {name: array[start : start + batch_size] for name, array in self._arrays.items()}
                yield {name: np.ascontiguousarray(array, np.float32) for name, array in part.items()}, None
            return
        assert self._dataset is not None
        name = name_of(self.inputs[0])
        for inputs, labels in self._dataset.batches(batch_size):
            yield {name: inputs}, labels

    def feeds(self, batch_size: int) -> Iterator[Feeds]:
        """The feeds alone."""
        return (feeds for feeds, _ in self.batches(batch_size))

    def _named_arrays(self, path: Path) -> dict[str, npt.NDArray[Any]] | None:
        """Arrays of an `.npz` whose keys are the names of several inputs."""
        names = {name_of(value) for value in self.inputs}
        if path.suffix != ".npz" or len(names) == 1 or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files if name in names}
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not an .npz of plain arrays: {error}") from None
        if set(found) != names:
            raise DataError(f"{path}: arrays for {', '.join(sorted(names))} are expected. Received: {', '.join(sorted(found))}")
        return found

    def _open(self, data: Any, preprocess: str, limit: int | None, seed: int | None) -> Dataset:
        from ..datasets import Dataset, open_array, open_dataset

        if len(self.inputs) != 1:
            names = ", ".join(name_of(value) for value in self.inputs)
            raise DataError(f"the model has the inputs {names}: arrays by name (an .npz, or a mapping) are expected")
        shape = static_shape(self.inputs[0])
        example = None if shape is None else shape[1:]
        if isinstance(data, Dataset):
            dataset = data
        elif isinstance(data, np.ndarray):
            dataset = open_array(data, input_shape=example)
        else:
            return open_dataset(data, input_shape=example, preprocess=preprocess, limit=limit, seed=seed)
        if example is not None and any(w is not None and w != g for w, g in zip(example, dataset.input_shape, strict=False)):
            raise DataError(f"examples of shape {list(example)} are expected. Received: {list(dataset.input_shape)}")
        if seed is not None:
            return dataset.sample(min(limit or len(dataset), len(dataset)), seed)
        return dataset if limit is None else dataset.take(limit)
