"""Writes the integers of a network into files, as they are computed: only one batch is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import DataError, UnsupportedError
from ..base import Feeds
from ..integers.network import IntegerNetwork, Tensor
from .axes import Axes, axes_of
from .memory_files import GrowingArray, WordFiles, hex_digits, quoted, safe_stem, sha256_of, storage

TENSORS: Final = "tensors"
FLOATS: Final = "floats"


def examples_per_run(network: IntegerNetwork) -> int:
    """How many examples the network takes at once: what its inputs fix, else 1."""
    fixed = [port.shape[0] for port in network.inputs if port.shape and port.shape[0] is not None]
    return fixed[0] if fixed else 1


def runs(examples: Iterable[Feeds], size: int | None) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """The feeds in runs of so many examples; None leaves them as they are, for a network that computes each example alone.

    Raises:
        DataError: some are left over.
    """
    for feeds in examples:
        count = len(next(iter(feeds.values())))
        step = size or max(1, count)
        if count % step:
            raise DataError(f"the model takes {size} examples at once. Received: {count}")
        for start in range(0, count, step):
            yield {name: np.asarray(array[start : start + step], np.float32) for name, array in feeds.items()}


class Recorder:
    """The files of all tensors of a network.

    Args:
        network: whose tensors.
        folder: to write into.
    """

    def __init__(self, network: IntegerNetwork, folder: Path) -> None:
        self.runs = 0
        self._network, self._folder, self._batch = network, folder, examples_per_run(network)
        self._axes = axes_of(network)
        count = len(network.tensors)
        self._stems = {name: f"{TENSORS}/{safe_stem(index, count, name)}" for index, name in enumerate(network.tensors)}
        self._words: dict[str, WordFiles] = {}
        self._floats: dict[str, GrowingArray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name in (TENSORS, FLOATS):
            (folder / name).mkdir()
        for tensor in network.constants:
            assert tensor.integers is not None
            self._add(tensor, tensor.integers, ())

    def record(self, feeds: Feeds, integers: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Runs of the network: its float inputs, and the integers of all tensors that are no constants, run behind run.

        Raises:
            UnsupportedError: a tensor has no integers: a float part in front of it cannot be run.
        """
        count = len(next(iter(feeds.values()))) // self._batch
        comments = [self._comment(run * self._batch) for run in range(self.runs, self.runs + count)]
        for place, (name, array) in enumerate(feeds.items()):
            if name not in self._floats:
                path = self._folder / FLOATS / f"{safe_stem(place, len(feeds), name)}.npy"
                self._floats[name] = GrowingArray(path, "<f4", array.shape[1:])
            self._floats[name].append(array)
        for name, tensor in self._network.tensors.items():
            if tensor.kind == "constant":
                continue
            if name not in integers:
                raise UnsupportedError(
                    f"target vectors: tensor {name!r} has no integers: it is computed behind an operator that cannot be run here"
                )
            self._add(tensor, integers[name], comments)
        self.runs += count

    def close(self) -> None:
        """Ends all files."""
        for words in self._words.values():
            words.close()
        for floats in self._floats.values():
            floats.close()

    def described(self, tensor: Tensor) -> dict[str, Any]:
        """What the manifest says of a tensor's files, once they are closed."""
        files, shape = self._words[tensor.name], self._shapes[tensor.name]
        return {
            "shape": list(shape) if tensor.kind == "constant" else [files.rows, *shape[1:]],
            "run_shape": list(shape),
            "axes": list(self._axes[tensor.name]),
            "words_per_run": int(np.prod(shape)),
            "digits": hex_digits(tensor.bits),
            "dtype": np.dtype(storage(tensor.bits, tensor.signed)).name,
            "files": {path.suffix[1:]: self._file(path) for path in (files.npy, files.mem)},
        }

    def described_floats(self, name: str) -> dict[str, Any]:
        """What the manifest says of the floats of a network input."""
        array = self._floats[name]
        return {"dtype": "float32", "shape": [array.rows, *array.row], **self._file(array.path)}

    def _comment(self, first: int) -> str:
        return f"example {first}" if self._batch == 1 else f"examples {first} to {first + self._batch - 1}"

    def _add(self, tensor: Tensor, integers: npt.NDArray[np.int64], comments: Sequence[str]) -> None:
        if tensor.name not in self._words:
            rows = integers.shape[:1] if tensor.kind == "constant" else (len(integers) // len(comments),)
            shape = (*rows, *integers.shape[1:])
            self._shapes[tensor.name] = shape
            row = None if tensor.kind == "constant" else integers.shape[1:]
            head = _comments(tensor, shape, self._axes[tensor.name])
            self._words[tensor.name] = WordFiles(self._folder / self._stems[tensor.name], tensor.bits, tensor.signed, row, head)
        self._words[tensor.name].append(integers, comments)

    def _file(self, path: Path) -> dict[str, str]:
        return {"path": path.relative_to(self._folder).as_posix(), "sha256": sha256_of(path)}


def _comments(tensor: Tensor, shape: tuple[int, ...], axes: Axes) -> list[str]:
    """The head of a `.mem` file."""
    sign = "signed, two's complement" if tensor.signed else "unsigned"
    sizes = " x ".join(f"{size} ({axis})" for size, axis in zip(shape, axes, strict=True)) or "one number"
    often = "once: a constant" if tensor.kind == "constant" else "for each run of the network, one behind the other"
    return [
        f"tensor {quoted(tensor.name)}, the integers of {quoted(tensor.value)}",
        f"each line a word of {tensor.bits} bits, {sign}, {hex_digits(tensor.bits)} hexadecimal digits",
        f"real number = integer * 2^{tensor.exponent}",
        f"{sizes}, the last axis fastest, {often}",
    ]
