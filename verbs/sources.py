"""What the verbs accept as models and as data."""

from __future__ import annotations

import copy
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..ir import DataError, fed_inputs, load, name_of, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from ..datasets import Dataset, Preprocessing

Feeds = dict[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int64] | None
Progress = Callable[[int, int, str], None]
Data: TypeAlias = "Dataset | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str]"
"""What calibrates and evaluates: an opened dataset, an array, arrays by input name, or a path that `open_dataset` understands."""


def open_model(model: onnx_ir.Model | str | os.PathLike[str]) -> onnx_ir.Model:
    """The model itself, or the one in the file.

    Raises:
        ModelError: as `ir.load`.
    """
    return load(model) if isinstance(model, (str, os.PathLike)) else model


def refuse_negative(feeds: Feeds, what: str) -> None:
    """Refuses negative numbers for inputs that were declared unsigned.

    Raises:
        DataError: naming the input and the smallest number.
    """
    for name, array in feeds.items():
        if array.size and float(array.min()) < 0:
            raise DataError(f"input {name!r} was declared unsigned, but the {what} data holds {float(array.min())}")


class Feeder:
    """Batches of feeds for a model from any data source; only one batch is in memory.

    Args:
        model: whose inputs are fed.
        data: a `Dataset`, an array [N, ...], arrays by input name, or a path that `open_dataset` understands.
        preprocess: preset applied to images (paths only), by name or one of one's own.
        limit: at most so many examples.
        seed: draws the examples at random; None keeps the order of the source.
        exclude: names of examples to leave out first, or a text file with one on each line (as `calibration_set` writes it).

    Raises:
        DataError: the data does not fit the model, or a model with several inputs is given a single array.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        data: Data,
        *,
        preprocess: str | Preprocessing = "none",
        limit: int | None = None,
        seed: int | None = None,
        exclude: str | os.PathLike[str] | Sequence[str] | None = None,
    ) -> None:
        self.inputs = fed_inputs(model.graph)
        by_name = data if isinstance(data, Mapping) else self._named_arrays(data)
        if by_name is None:
            dataset = self._open(data, preprocess, limit, seed, exclude)  # refuses a model that has not just one input
            self._datasets = {name_of(self.inputs[0]): dataset}
        else:
            self._datasets = {name: drawn(dataset, limit, seed, exclude) for name, dataset in self._open_each(by_name).items()}

    def __len__(self) -> int:
        return min((len(dataset) for dataset in self._datasets.values()), default=0)

    def batches(self, batch_size: int) -> Iterator[tuple[Feeds, Labels]]:
        """Feeds by input name, and int64 labels [n] or None (several inputs have none)."""
        for parts in zip(*(dataset.batches(batch_size) for dataset in self._datasets.values()), strict=True):
            yield {name: inputs for name, (inputs, _) in zip(self._datasets, parts, strict=True)}, parts[0][1]

    def rows(self, otherwise: int) -> int:
        """How many examples a batch has: what the model's inputs fix, else the number given."""
        fixed = [shape[0] for value in self.inputs if (shape := static_shape(value)) and shape[0] is not None]
        return fixed[0] if fixed else otherwise

    def spread(self, count: int) -> Feeder:
        """About `count` of the examples, in whole batches, evenly spaced: class folders come one class after another."""
        view, rows = copy.copy(self), self.rows(1)
        chosen = min(len(self), max(rows, count - count % rows))
        places = np.linspace(0, len(self) - 1, chosen).astype(np.int64)
        view._datasets = {name: replace(dataset, rows=dataset.rows[places]) for name, dataset in self._datasets.items()}
        return view

    def feeds(self, batch_size: int) -> Iterator[Feeds]:
        """The feeds alone."""
        return (feeds for feeds, _ in self.batches(batch_size))

    def _named_arrays(self, data: Any) -> dict[str, npt.NDArray[Any]] | None:
        """Arrays of an `.npz` whose keys are the names of several inputs; None where `data` is something else."""
        names = {name_of(value) for value in self.inputs}
        path = Path(data) if isinstance(data, (str, os.PathLike)) else None
        if path is None or path.suffix != ".npz" or len(names) == 1 or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files if name in names}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not an .npz of plain arrays: {error}") from None
        if set(found) != names:
            raise DataError(f"{path}: arrays for {', '.join(sorted(names))} are expected. Received: {', '.join(sorted(found))}")
        return found

    def _open_each(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Dataset]:
        """One dataset for each input, of one length."""
        from ..datasets import open_array

        shapes = {name_of(value): static_shape(value) for value in self.inputs}
        if set(arrays) != set(shapes):
            received = ", ".join(sorted(arrays)) or "none"
            raise DataError(f"arrays for the inputs {', '.join(sorted(shapes))} are expected. Received: {received}")
        opened = {}
        for name, shape in shapes.items():
            try:
                opened[name] = open_array(np.asarray(arrays[name]), input_shape=None if shape is None else shape[1:])
            except DataError as error:
                raise DataError(f"input {name!r}: {error}") from None
        lengths = {name: len(dataset) for name, dataset in opened.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the arrays of the inputs must have one length. Received: {lengths}")
        return opened

    def _open(self, data: Any, preprocess: str | Preprocessing, limit: int | None, seed: int | None, exclude: Any) -> Dataset:
        from ..datasets import Dataset, open_array, open_dataset

        if len(self.inputs) != 1:
            names = ", ".join(name_of(value) for value in self.inputs)
            raise DataError(f"the model has the inputs {names}: arrays by name (an .npz, or a mapping) are expected")
        shape = static_shape(self.inputs[0])
        example = None if shape is None else shape[1:]
        if isinstance(data, Dataset):
            dataset = data
        elif isinstance(data, (str, os.PathLike)):
            return open_dataset(data, input_shape=example, preprocess=preprocess, limit=limit, seed=seed, exclude=exclude)
        else:
            dataset = open_array(np.asarray(data), input_shape=example)
        if example is not None and any(w is not None and w != g for w, g in zip(example, dataset.input_shape, strict=False)):
            raise DataError(f"examples of shape {list(example)} are expected. Received: {list(dataset.input_shape)}")
        return drawn(dataset, limit, seed, exclude)


def drawn(dataset: Dataset, limit: int | None, seed: int | None, exclude: Any) -> Dataset:
    """At most `limit` of those not left out, at random where there is a seed; datasets of one length give the same rows."""
    from ..datasets import listed_names

    if exclude is not None:
        dataset = dataset.without_names(listed_names(exclude))
    if seed is not None:
        return dataset.sample(min(limit or len(dataset), len(dataset)), seed)
    return dataset if limit is None else dataset.take(limit)
