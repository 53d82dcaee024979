from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console, RenderableType

from tqt_onnx.datasets import AccuracyCounter
from tqt_onnx.ir import Quantizer, QuantizerGraph
from tqt_onnx.report import (
    accuracy_table,
    check_table,
    inspect_table,
    island_table,
    make_console,
    table,
)


def plain(renderable: RenderableType) -> str:
    stream = io.StringIO()
    make_console(stream).print(renderable)
    return stream.getvalue()


def test_plain_table_is_aligned_and_unbroken() -> None:
    long = "a/" * 100
    shown = plain(table("Title", ("name", "count", "share", "sure"), [(long, 12345, 0.123456, True), ("b", None, 2.0, False)]))
    assert shown.splitlines() == [
        "Title",
        f"{'name':200}   count   share  sure",
        f"{'-' * 200}  ------  ------  ----",
        f"{long}  12,345  0.1235  yes",
        f"{'b':200}       -       2  no",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_files_are_neither_markup_nor_control(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, color_system=None)
    console.print(table("[red]t[/red]", ("[b]c",), [("layer[0]/x:smile:\x1b[2J\n\u202e",)]))
    assert "[red]t[/red]" in stream.getvalue()
    assert "[b]c" in stream.getvalue()
    assert "layer[0]/x:smile:\\x1b[2J\\n\\u202e" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_terminal_table_is_ruled() -> None:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=80, color_system=None).print(table("T", ("a", "b"), [("x", 1)]))
    assert "─" in stream.getvalue()


def test_rows_must_fit_and_may_be_absent() -> None:
    with pytest.raises(ValueError, match=r"2 cells are expected\. Received: 1"):
        table("t", ("a", "b"), [("x",)])
    assert plain(table("t", ("a", "b"), [])).splitlines() == ["t", "a  b", "-  -"]


def test_accuracy_table() -> None:
    counter = AccuracyCounter(["float", "int8"])
    scores = np.eye(4)
    counter.update({"float": scores, "int8": scores[[0, 1, 2, 0]]}, np.arange(4))
    shown = plain(accuracy_table(counter.result()))
    assert "float  100.00%  100.00%  51.01% .. 100.00%       4" in shown
    assert "int8    75.00%  100.00%" in shown
    assert "Differences on the same 4 images" in shown
    assert "int8 - float        -25.00" in shown
    assert "75.00%" in shown
    unlabelled = AccuracyCounter(["float", "int8"])
    unlabelled.update({"float": scores, "int8": scores})
    shown = plain(accuracy_table(unlabelled.result()))
    assert "top-5" not in shown
    assert "100.00%" in shown


def but(thing: SimpleNamespace, **changes: object) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(thing), **changes})


DIFFERENCE = SimpleNamespace(engine="ort", tensor="conv1__q", count=3, total=4096, first_index=(0, 5, 1), expected=-7, received=-6)
CERTIFICATE = SimpleNamespace(node="conv1", op_type="Conv", bound=5, accumulator_bits=4, certified=True, reason="")
CHECK = SimpleNamespace(
    engines=("ort",),
    images=2,
    integers={"ort": 1_000_000},
    differences=(),
    not_certified=(),
    floats=(),
    certificates=(CERTIFICATE,),
    first_optimized=None,
)
BROKEN = but(
    CHECK,
    differences=(DIFFERENCE,),
    not_certified=(but(DIFFERENCE, tensor="fc__q", received=0.5),),
    first_optimized=DIFFERENCE,
    floats=(SimpleNamespace(engine="ort", tensor="softmax", total=20, largest=0.5, largest_error=1e-6, ok=True),),
    certificates=(
        CERTIFICATE,
        but(CERTIFICATE, node="fc", op_type="Gemm", bound=33161217, accumulator_bits=27, certified=False, reason="beyond 2^24"),
    ),
)


def test_check_says_bit_for_bit_or_names_the_first_difference() -> None:
    clean = plain(check_table(CHECK))
    assert "ort     1,000,000          0                         0  bit for bit" in clean
    assert "Difference" not in clean
    assert "certificate" not in clean
    shown = plain(check_table(BROKEN))
    assert "DIFFERS" in shown
    assert "[0, 5, 1]      -7          -6" in shown
    assert "[0, 5, 1]      -7         0.5" in shown
    assert "33,161,217" in shown
    assert "conv1 " not in shown.split("Layers without certificate")[1]
    assert "1e-06" in shown


def test_bit_for_bit_is_said_of_nothing_less() -> None:
    for changed, verdict in [
        (but(CHECK, not_certified=(DIFFERENCE,)), "exact where certified"),
        (but(CHECK, integers={"ort": 0}), "NOT compared"),
        (but(CHECK, integers={}), "NOT compared"),
        (but(CHECK, differences=(DIFFERENCE,), not_certified=(DIFFERENCE,)), "DIFFERS"),
    ]:
        shown = plain(check_table(changed))
        assert verdict in shown
        assert "bit for bit" not in shown


GRAPH = QuantizerGraph(
    "layer32",
    (
        Quantizer("x", "x__input", 8, True, "input", "x", exponent=-7),
        Quantizer("y", "y", 8, False, "activation", "y", limit=6.0),
        Quantizer("w", "w", 4, True, "weight", "w", exponent=-3),
    ),
)
INSPECTION = SimpleNamespace(
    quantized=False,
    contract="layer32",
    rows=(
        SimpleNamespace(
            node="conv[0]",
            op_type="Conv",
            shape=(None, 8, 4, 4),
            parameters=1152,
            weight=GRAPH.quantizers[2],
            output=GRAPH.quantizers[1],
            note="",
        ),
        SimpleNamespace(
            node="soft", op_type="Softmax", shape=None, parameters=0, weight=None, output=None, note="stays float (L8)"
        ),
    ),
    graph=GRAPH,
    islands=(SimpleNamespace(node="soft", op_type="Softmax", reason="stays float (L8)"),),
)


def test_inspection() -> None:
    shown = plain(inspect_table(INSPECTION))
    assert "Would be quantized (layer32)" in shown
    assert "conv[0]  Conv      Nx8x4x4       1,152  int4 2^-3  uint8 <=6" in shown
    assert "stays float (L8)" in shown
    assert plain(island_table(INSPECTION.islands)).splitlines()[0] == "Stays float"
