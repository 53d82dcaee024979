# ruff: noqa: D102 - each property is described where it is computed
"""What a training did: how long, which state was kept and by what, and where the thresholds went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

from rich.console import Group

from .progress import duration
from .table import Cell, PlainTable, table

SHOWN: Final = 10
"""Thresholds in the table; JSON has all."""


class Validation(Protocol):
    """What was measured on the selection data after a step."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def agreement(self) -> float | None: ...
    @property
    def train_loss(self) -> float | None: ...
    @property
    def frozen(self) -> int: ...


class Trained(Protocol):
    """A threshold before and after."""

    @property
    def group(self) -> str: ...
    @property
    def initial(self) -> float: ...
    @property
    def final(self) -> float: ...
    @property
    def frozen_at(self) -> int | None: ...


class Training(Protocol):
    """What `train` returns."""

    @property
    def steps(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def epochs(self) -> float: ...
    @property
    def kept(self) -> int: ...
    @property
    def selected_by(self) -> str: ...
    @property
    def history(self) -> Sequence[Validation]: ...
    @property
    def thresholds(self) -> Sequence[Trained]: ...
    @property
    def seconds_per_step(self) -> float | None: ...
    @property
    def resumed_from(self) -> int | None: ...
    @property
    def ended_by(self) -> str | None: ...


def training_lines(training: Training, trained_on: str = "") -> list[str]:
    """How much was trained, on what, and by what the kept state was chosen.

    Args:
        training: the result.
        trained_on: the training data in words; empty to leave it out.
    """
    steps = f"{training.steps:,} steps" if training.steps == training.total else f"{training.steps:,} of {training.total:,} steps"
    pace = ""
    if training.seconds_per_step is not None:
        whole = duration(training.seconds_per_step * (training.steps - (training.resumed_from or 0)), 1)
        pace = f", {training.seconds_per_step:.3g} s each ({whole})"
    resumed = "" if training.resumed_from is None else f", gone on from step {training.resumed_from:,}"
    ended = "" if training.ended_by is None else f"; ended by {training.ended_by}"
    on = f" on {trained_on}" if trained_on else ""
    return [
        f"trained{on}: {steps}, {training.epochs:.3g} epochs{pace}{resumed}{ended}",
        f"kept: step {training.kept:,}, selected by {training.selected_by}",
    ]


def training_table(training: Training) -> Group:
    """Validations that matter, and the thresholds that moved most; what there is not is left out."""
    parts = [validation_table(training)] if training.history else []
    if training.thresholds:
        parts.append(threshold_table(training))
    return Group(*parts)


def validation_table(training: Training) -> PlainTable:
    """The selection data before training, in the kept state and at the end."""
    history = training.history
    kept = next((row for row in history if row.step == training.kept), None)
    found = {"before": history[0], "kept": kept, "last": history[-1]}
    rows: list[tuple[Cell, ...]] = [
        (name, row.step, row.loss, _share(row.accuracy), _share(row.agreement), row.train_loss, row.frozen)
        for name, row in found.items()
        if row is not None
    ]
    columns = ("state", "step", "loss", "top-1", "as float", "training loss", "frozen")
    known = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    return table("Selection data", [columns[i] for i in known], [[row[i] for i in known] for row in rows])


def threshold_table(training: Training) -> PlainTable:
    """Thresholds by how far they moved; what counts in the end is the power of two above (Q4).

    What was frozen behind the kept step is no part of that state.
    """
    thresholds = training.thresholds
    frozen_at = {one.group: one.frozen_at for one in thresholds if one.frozen_at is not None and one.frozen_at <= training.kept}
    other = sum(math.ceil(one.initial) != math.ceil(one.final) for one in thresholds)
    most = sorted(thresholds, key=lambda one: -abs(one.final - one.initial))[:SHOWN]
    rows = [
        (
            one.group,
            f"{one.initial:.3f}",
            f"{one.final:.3f}",
            f"{one.final - one.initial:+.3f}",
            f"2^{math.ceil(one.initial)}",
            f"2^{math.ceil(one.final)}",
            frozen_at.get(one.group),
        )
        for one in most
    ]
    title = (
        f"Thresholds: {len(frozen_at)} of {len(thresholds)} frozen, {other} at another power of two; largest moves first "
        f"({len(most)} of {len(thresholds)})"
    )
    columns = ("share group", "log2 before", "log2 after", "moved", "before", "after", "frozen at")
    return table(title, columns, rows, elide=("share group",))


def _share(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
