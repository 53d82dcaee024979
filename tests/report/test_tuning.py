"""What is said about a quantized network's nearness to its float one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from tqt_onnx.calibrate import TunedRow
from tqt_onnx.report import make_console, nearness_line, tuned_table


@dataclass
class Near:
    images: int
    top1: float | None
    sqnr: float


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (Near(50, 0.96, 21.25), "answers as the float network on 48 of 50 examples, outputs 21.2 dB above the noise"),
        (Near(8, None, -3.0), "on 8 examples outputs -3.0 dB above the noise"),
        (Near(8, 1.0, math.inf), "answers as the float network on 8 of 8 examples, nothing differs"),
        (Near(8, None, -math.inf), "on 8 examples outputs -inf dB above the noise"),
    ],
)
def test_nearness_is_one_line(found: Near, line: str) -> None:
    assert nearness_line(found) == line


def test_the_largest_gains_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    layers = [TunedRow(f"w{i}", 0.1 * i, 0.01, 1.0, -0.5, 0.5, 0.1) for i in range(12)] + [
        TunedRow("zero", 0.0, 0.0, 0.0, 1.0, 1.0, None)
    ]
    make_console().print(tuned_table(layers))
    text = capsys.readouterr().out
    assert "(10 of 13)" in text
    assert text.index("w11") < text.index("w10") < text.index("w3")
    assert "zero" not in text
    assert "2^0 " in text and "2^1" in text
