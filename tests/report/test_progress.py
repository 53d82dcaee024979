from __future__ import annotations

import io

from rich.console import Console

from tqt_onnx.report import make_console, progress_bar
from tqt_onnx.report.progress import _Lines, duration


def test_lines_without_a_terminal() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = _Lines(make_console(stream), clock=lambda: now[0])
    for done in range(41):
        lines(done, 40, f"layer {done}")
        now[0] += 1
    lines(40, 40, "decided")
    lines(1, 2, "evaluate")
    lines(2, 2, "evaluate")
    assert stream.getvalue().splitlines() == [
        "layer 10: 10/40, 30 s left",
        "layer 20: 20/40, 20 s left",
        "layer 30: 30/40, 10 s left",
        "layer 40: 40/40 in 40.0 s",
        "evaluate: 2/2 in 0.0 s",
    ]


def test_nothing_done_yet_has_no_estimate() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = _Lines(make_console(stream), clock=lambda: now[0])
    lines(0, 4, "slow")
    now[0] = 11
    lines(0, 4, "slow")
    assert stream.getvalue() == "slow: 0/4\n"


def test_an_unknown_total_has_no_end() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = _Lines(make_console(stream), clock=lambda: now[0])
    for done in (0, 1, 2):
        lines(done, 0, "batches measured")
        now[0] += 11
    assert stream.getvalue() == "batches measured: 1\nbatches measured: 2\n"


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=True, width=100)) as progress:
        progress(1, 8, "[red]weights")
        progress(8, 8, "[red]weights")
        progress(3, 0, "open end")
    assert "[red]weights" in stream.getvalue()
    assert "3/?" in stream.getvalue()
    assert "8/8" in stream.getvalue()


def test_without_a_terminal_by_default_on_stderr(capsys) -> None:
    with progress_bar() as progress:
        progress(2, 2, "evaluate")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evaluate: 2/2 in ")


def test_time_left_is_told_by_the_recent_rate() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = _Lines(make_console(stream), clock=lambda: now[0])
    lines(5000, 6000, "training")  # resumed: what was done before took no time here
    now[0] += 60
    lines(5001, 6000, "training")  # traces
    for done in range(5002, 5142):
        now[0] += 2
        lines(done, 6000, "training")
    told = stream.getvalue().splitlines()
    assert told[0] == "training: 5001/6000, 16 h 39 min left"
    assert told[-1] == "training: 5141/6000, 28 min 38 s left"


def test_steps_that_take_longer_than_the_recent_past() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = _Lines(make_console(stream), clock=lambda: now[0])
    for done in range(4):
        lines(done, 10, "slow")
        now[0] += 300
    assert stream.getvalue().splitlines() == [f"slow: {n}/10, {(10 - n) * 5} min 0 s left" for n in (1, 2, 3)]


def test_a_bar_that_goes_on_has_a_time_left_too() -> None:
    stream = io.StringIO()
    with progress_bar(Console(file=stream, force_terminal=True, width=100)) as progress:
        progress(5000, 6000, "training")
        assert progress._bars.tasks[0].speed is None  # the 5000 were not done in no time


def test_durations() -> None:
    assert [duration(s) for s in (0, 119.4, 120, 3599, 7200, 86_399)] == [
        "0 s", "119 s", "2 min 0 s", "59 min 59 s", "2 h 0 min", "23 h 59 min",
    ]  # fmt: skip
    assert duration(1.25, 1) == "1.2 s"
