from __future__ import annotations

import io
from dataclasses import dataclass, field

from rich.console import RenderableType

from tqt_onnx.report import make_console
from tqt_onnx.report.training import training_lines, training_table


@dataclass(frozen=True)
class Row:
    step: int
    loss: float
    accuracy: float | None
    agreement: float | None
    train_loss: float | None
    frozen: int


@dataclass(frozen=True)
class Threshold:
    group: str
    initial: float
    final: float
    frozen_at: int | None


@dataclass(frozen=True)
class Result:
    steps: int = 4000
    total: int = 5000
    epochs: float = 3.2
    kept: int = 2000
    selected_by: str = "accuracy on 2,000 of 20,000 examples of d.zip, held back from training"
    history: tuple[Row, ...] = (
        Row(0, 2.5, 0.1, None, None, 0),
        Row(1000, 1.0, 0.5, None, 1.2, 0),
        Row(2000, 0.5, 0.75, None, 0.6, 1),
        Row(4000, 0.75, 0.7, None, 0.4, 2),
    )
    thresholds: tuple[Threshold, ...] = field(
        default=tuple(Threshold(f"layer{i}/conv", 1.5, 1.5 + i / 8, 100 if i < 2 else None) for i in range(12))
    )
    seconds_per_step: float | None = 0.25
    resumed_from: int | None = 1000
    ended_by: str | None = None


def shown(renderable: RenderableType) -> list[str]:
    stream = io.StringIO()
    make_console(stream).print(renderable)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_lines() -> None:
    assert training_lines(Result(), "18,000 of 20,000 examples of d.zip") == [
        "trained on 18,000 of 20,000 examples of d.zip: 4,000 of 5,000 steps, 3.2 epochs, 0.25 s each (12 min 30 s), "
        "gone on from step 1,000",
        "kept: step 2,000, selected by accuracy on 2,000 of 20,000 examples of d.zip, held back from training",
    ]
    assert training_lines(Result(steps=5000, seconds_per_step=None, resumed_from=None))[0] == "trained: 5,000 steps, 3.2 epochs"


def test_an_early_end_says_why() -> None:
    line = training_lines(Result(ended_by="3 validations without improvement"))[0]
    assert line.endswith("gone on from step 1,000; ended by 3 validations without improvement")


def test_what_was_frozen_behind_the_kept_step_is_not_frozen() -> None:
    thresholds = tuple(Threshold(name, 1.5, 2.5, at) for name, at in (("a", 2000), ("b", 2001), ("c", None)))
    lines = shown(training_table(Result(thresholds=thresholds, history=())))
    assert lines[0].startswith("Thresholds: 1 of 3 frozen, ")
    assert {line.split()[0]: line.split()[-1] for line in lines[3:]} == {"a": "2,000", "b": "-", "c": "-"}


def test_tables() -> None:
    lines = shown(training_table(Result()))
    assert lines[:6] == [
        "Selection data",
        "state    step  loss   top-1  training loss  frozen",
        "------  -----  ----  ------  -------------  ------",
        "before      0   2.5  10.00%              -       0",
        "kept    2,000   0.5  75.00%            0.6       1",
        "last    4,000  0.75  70.00%            0.4       2",
    ]
    assert lines[6] == "Thresholds: 2 of 12 frozen, 7 at another power of two; largest moves first (10 of 12)"
    assert lines[9].split() == ["layer11/conv", "1.500", "2.875", "+1.375", "2^2", "2^3", "-"]
    assert len(lines) == 9 + 10


def test_what_there_is_not_is_left_out() -> None:
    assert shown(training_table(Result(history=(), thresholds=()))) == []
    lines = shown(training_table(Result(history=(Row(0, 1.0, None, None, None, 0),), thresholds=(), kept=0)))
    assert lines[1].split() == ["state", "step", "loss", "frozen"]
    assert [line.split()[0] for line in lines[3:]] == ["before", "kept", "last"]
