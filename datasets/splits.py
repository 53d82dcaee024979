"""Training, selection and test data kept apart, and what each was, in words for the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError
from .arrays import ArrayReader
from .dataset import Dataset, random_order

Integers = npt.NDArray[np.int64]

STREAM: Final = 2
"""Tells the random numbers of a hold-out from those of the order of training and of augmentation."""


@dataclass(frozen=True, eq=False)
class TrainingSplit:
    """Three sets of examples without an example in common.

    Attributes:
        train: to train on.
        select: to choose the best checkpoint by, or None.
        test: that nothing is decided by, or None.
        trained_on: where `train` comes from: "18,000 of 20,000 examples of cifar.zip".
        selected_on: where `select` comes from: "2,000 of 20,000 examples of cifar.zip, held back from training, as many of each
            class in proportion"; "nothing" without it.
        tested_on: where `test` comes from; "nothing" without it.
    """

    train: Dataset
    select: Dataset | None
    test: Dataset | None
    trained_on: str
    selected_on: str
    tested_on: str


def split_for_training(
    dataset: Dataset, select: Dataset | float | None = None, *, test: Dataset | None = None, seed: int = 0
) -> TrainingSplit:
    """Sets training data apart from what selects and what tests.

    Args:
        dataset: examples to train on.
        select: examples of their own; or how many of `dataset` are held back from training: a share below 1, or a whole number.
            They are drawn at random, of each class in proportion where the labels are in memory (those of TFRecord files are not).
        test: examples that must be among neither.
        seed: of the draw.

    Raises:
        DataError: examples that are in two of the sets, or nothing would be left to train on or to select by.
    """
    if test is not None:
        refuse_overlap(dataset, test, "training", "test")
    whole = _described(dataset, len(dataset))
    tested = "nothing" if test is None else _described(test, len(test))
    if select is None:
        return TrainingSplit(dataset, None, test, whole, "nothing", tested)
    if isinstance(select, Dataset):
        refuse_overlap(dataset, select, "training", "selection")
        if test is not None:
            refuse_overlap(select, test, "selection", "test")
        return TrainingSplit(dataset, select, test, whole, _described(select, len(select)), tested)
    held, by_class = hold_out(dataset, _count(dataset, select), seed)
    rest = dataset.without(held)
    how = "held back from training" + (", of each class in proportion" if by_class else "")
    # What is held back needs no comparison with `test`: `dataset` as a whole had it.
    return TrainingSplit(rest, held, test, _described(dataset, len(rest)), f"{_described(dataset, len(held))}, {how}", tested)


def hold_out(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, bool]:
    """Examples drawn at random, in the order of the dataset.

    Args:
        dataset: with `count` examples at least.
        count: how many.
        seed: of the draw.

    Returns:
        The examples, and whether each class has its share of them: where labels are in memory. A class keeps at least one
        example outside as long as others can give one in its place.
    """
    order = random_order(len(dataset), seed, STREAM)
    if not isinstance(dataset.all_labels, np.ndarray):
        return replace(dataset, rows=dataset.rows[np.sort(order[:count])]), False
    _, classes, sizes = np.unique(dataset.all_labels[dataset.rows], return_inverse=True, return_counts=True)
    quotas = _shares(sizes, count)
    by_class = order[np.argsort(classes[order], kind="stable")]  # of each class, in the drawn order
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = by_class[rank < np.repeat(quotas, sizes)]
    return replace(dataset, rows=dataset.rows[np.sort(chosen)]), True


def shared_examples(one: Dataset, other: Dataset) -> list[str]:
    """Names of the examples of `one` that are in `other` too.

    Examples are the same when they are the same row of one reader, file (also through links), member of a zip, row of an array
    file, record, or row of memory. Copies are not recognized.
    """
    if one.reader is other.reader:
        rows = one.rows[np.isin(one.rows, other.rows)]
        return [one.reader.name(row) for row in rows.tolist()]
    taken = set(_places(other))
    return [one.reader.name(row) for row, place in zip(one.rows.tolist(), _places(one), strict=True) if place in taken]


def refuse_overlap(one: Dataset, other: Dataset, name: str, other_name: str) -> None:
    """Refuses examples that would serve two purposes, as far as `shared_examples` sees them.

    Args:
        one: examples.
        other: examples that must not be among them.
        name: what `one` is for, in a word.
        other_name: what `other` is for.

    Raises:
        DataError: naming the first example that is in both.
    """
    shared = shared_examples(other, one)
    if shared:
        raise DataError(
            f"{other.source}: {other_name} data that is no {name} data is expected. "
            f"Received: {len(shared):,} of its {len(other):,} examples are in the {name} data too, the first is {shared[0]}"
        )


def _places(dataset: Dataset) -> Sequence[object]:
    """For each example something that is equal only for the same one."""
    if dataset.location is not None:
        folders: dict[str, str] = {}
        return [_real(os.path.join(dataset.location, name), folders) for name in dataset.names()]  # noqa: PTH118  # a million of them
    reader = dataset.reader
    if isinstance(reader, ArrayReader) and isinstance(reader.data, np.ndarray):
        step, start = reader.data.strides[0], reader.data.__array_interface__["data"][0]
        if step == 0:  # one row that stands for all has one address
            return [(start, row) for row in dataset.rows.tolist()]
        addresses: list[object] = (start + dataset.rows * step).tolist()
        return addresses
    return [(id(reader), row) for row in dataset.rows.tolist()]


def _real(path: str, folders: dict[str, str]) -> str:
    """A path without links; each folder is looked up once."""
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    real = f"{folders[folder]}{os.sep}{name}"
    return os.path.realpath(real) if Path(real).is_symlink() else real


def _count(dataset: Dataset, select: float) -> int:
    """How many examples a share or a number of them is."""
    share = 0 < select < 1
    count = max(1, round(select * len(dataset))) if share else int(select) if float(select).is_integer() else 0
    if not 0 < count < len(dataset):
        raise DataError(
            f"{dataset.source}: 1 to {len(dataset) - 1} of its {len(dataset)} examples, or a share between 0 and 1, "
            f"can be held back for selection. Received: {select}"
        )
    return count


def _shares(sizes: Integers, count: int) -> Integers:
    """`count` divided in proportion to the sizes of the classes, by largest remainders."""
    quotas, remainders = np.divmod(sizes.astype(np.int64) * count, sizes.sum())
    for last_too in (False, True):  # a class's last example only where there is no other
        left = count - int(quotas.sum())
        open_ = np.flatnonzero((quotas + (not last_too)) < sizes)
        best = open_[np.argsort(-remainders[open_], kind="stable")][:left]
        quotas[best] += 1
    result: Integers = quotas
    return result


def _described(dataset: Dataset, count: int) -> str:
    of = "" if count == len(dataset) else f" of {len(dataset):,}"
    return f"{count:,}{of} examples of {dataset.source}"
