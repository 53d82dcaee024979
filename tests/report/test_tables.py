from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console, RenderableType

from tqt_onnx.datasets import AccuracyCounter
from tqt_onnx.ir import Quantizer
from tqt_onnx.report import (
    accuracy_table,
    certificate_table,
    check_table,
    difference_table,
    group_table,
    inspect_table,
    island_table,
    layer_table,
    make_console,
    noise_table,
    own_noise_table,
    summary_lines,
    table,
    tie_table,
)
from tqt_onnx.report.table import count, elided


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


QUANTIZERS = (
    Quantizer("x", "x__input", 8, True, "input", "x", exponent=-7),
    Quantizer("y", "y", 8, False, "activation", "g", limit=6.0),
    Quantizer("w", "w", 4, True, "weight", "w", exponent=-3),
    Quantizer("z", "z", 8, False, "activation", "g"),
)
LAYER = SimpleNamespace(
    name="conv[0]",
    topology="conv+relu6",
    value="y",
    shape=(None, 8, 4, 4),
    parameters=1152,
    macs=18_432,
    weight=QUANTIZERS[2],
    bias=None,
    accumulator=None,
    output=QUANTIZERS[1],
    carries=False,
    group="g",
    accumulator_bits=None,
    reason="",
)
SOFT = but(
    LAYER,
    name="soft",
    topology="Softmax",
    value="p",
    shape=None,
    parameters=0,
    macs=0,
    weight=None,
    output=None,
    group=None,
    reason="stays float (L8)",
)
INSPECTION = SimpleNamespace(
    kind="float",
    quantized=False,
    contract="layer32",
    opset=21,
    producer="",
    inputs=(SimpleNamespace(name="x", shape=(None, 3, 4, 4)),),
    outputs=(SimpleNamespace(name="p", shape=None),),
    layers=(LAYER, but(LAYER, topology="max pool", value="m", carries=True, weight=None, output=None, group=None), SOFT),
    groups={"g": (QUANTIZERS[1], QUANTIZERS[3])},
    parameters=1152,
    macs=18_432,
    float_bytes=4608,
    quantized_bytes=576,
)


def test_inspection() -> None:
    shown = plain(layer_table(INSPECTION)).splitlines()
    assert shown[1].split() == ["#", "layer", "topology", "output", "param.", "MACs"]
    assert shown[3] == "1  conv[0]  conv+relu6  Nx8x4x4   1,152  18.4K"
    assert shown[5].split() == ["3", "soft", "Softmax", "-", "0", "0"]
    shown = plain(inspect_table(INSPECTION)).splitlines()
    assert shown[0] == "Would be quantized (layer32)"
    assert shown[3:] == [
        "1  y       int4 2^-3             uint8 <=6  1",
        "2  m                             carried",
        "3  p                                               stays float (L8)",
    ]
    groups = group_table(INSPECTION)
    assert groups is not None
    assert [line.split() for line in plain(groups).splitlines()[3:]] == [
        ["1", "y", "activation", "uint8", "<=6"],
        ["1", "z", "activation", "uint8"],
    ]
    assert summary_lines(INSPECTION) == [
        "float model, opset 21: x [Nx3x4x4] -> p [?]",
        "3 layers, 1,152 parameters (4,608 bytes as float, 576 bytes quantized), 18.4K multiply-accumulates",
    ]
    assert group_table(but(INSPECTION, layers=(SOFT,))) is None
    assert plain(island_table([SimpleNamespace(node="soft", op_type="Softmax", reason="(L8)")])).splitlines()[0] == "Stays float"


def test_widths_of_sums_are_shown_where_they_are_known() -> None:
    shown = plain(layer_table(but(INSPECTION, layers=(but(LAYER, accumulator_bits=20), SOFT)))).splitlines()
    assert (shown[1].split()[-2:], shown[3].split()[-1], shown[4].split()[-1]) == (["sum", "bits"], "20", "-")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, None),
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0K"),
        (99_949, "99.9K"),
        (99_951, "100K"),
        (999_499, "999K"),
        (999_500, "1.0M"),
        (13_574_400, "13.6M"),
        (4_100_000_000, "4.1G"),
        (7 * 10**15, "7000T"),
    ],
)
def test_counts_take_few_characters(number: int | None, shown: str | None) -> None:
    assert count(number) == shown


def noise(tensor: str, sqnr: float, own: float | None, role: str = "activation") -> SimpleNamespace:
    bits, signed, exponent = (None, None, None) if own is None else (8, True, -3)
    return SimpleNamespace(tensor=tensor, role=role, bits=bits, signed=signed, exponent=exponent, sqnr_db=sqnr, own_db=own)


def test_noise_is_ranked() -> None:
    noises = [noise(f"t{index}", 30.0 + index, 60.0 - index) for index in range(12)]
    noises += [noise("exact", math.inf, math.inf), noise("silent", -math.inf, math.inf), noise("p", 12.34, None, "output")]
    lines = plain(noise_table(noises)).splitlines()
    assert lines[0] == "Signal to noise against the float model, worst first (10 of 15 tensors)"
    assert [line.split()[0] for line in lines[3:]] == ["silent", "p", *(f"t{index}" for index in range(8))]
    assert lines[3].split() == ["silent", "activation", "int8", "2^-3", "no", "signal", "exact"]
    assert lines[4].split() == ["p", "output", "-", "12.3", "-"]
    assert [line.split()[0] for line in plain(own_noise_table(noises)).splitlines()[3:]] == ["t11", "t10", "t9", "t8", "t7"]


def test_ties_are_ranked_by_their_share() -> None:
    ties = [SimpleNamespace(tensor=f"t{n}", ties=n, requantized=1000, share=n / 1000) for n in range(14)]
    lines = plain(tie_table(ties)).splitlines()
    assert lines[0] == "Roundings exactly on a tie, most first (10 of 13 tensors)"
    assert lines[3].split() == ["t13", "13", "1,000", "1.3%"]
    assert len(lines) == 3 + 10


LONG = [f"network/network/block_{n:02}/branch/convolution/BiasAdd/and/what/is/behind/it" for n in range(3)]


def test_names_are_cut_in_the_middle_to_fit() -> None:
    shown = plain(table("", ("layer", "topology", "n"), [(name, "x" * 40, 7) for name in LONG], elide=("layer",))).splitlines()
    assert max(map(len, shown)) <= 100
    names = [line.split()[0] for line in shown[2:]]
    assert len(set(names)) == 3  # still told apart
    assert all("..." in name and name.endswith("behind/it") and name.startswith("network") for name in names)
    assert {line[-1] for line in shown[2:]} == {"7"}


def test_names_that_differ_in_the_middle_stay_apart_or_whole() -> None:
    rows = [(name, "x" * 75) for name in LONG]
    shown = plain(table("", ("layer", "note"), rows, elide=("layer",))).splitlines()[2:]
    assert len({line.split()[0] for line in shown}) == 3
    twins = [("a" * 30 + str(n) + "b" * 60, "x" * 75) for n in range(10)]
    shown = plain(table("", ("layer", "note"), twins, elide=("layer",))).splitlines()[2:]
    assert len({line.split()[0] for line in shown}) == 10


def test_what_names_a_fault_stays_whole() -> None:
    long = "a/" * 100
    assert long in plain(difference_table("d", [but(DIFFERENCE, tensor=long)]))
    assert long in plain(certificate_table([but(CERTIFICATE, node=long)]))


@pytest.mark.parametrize("width", [24, 25, 40, 89, 90, 91])
def test_elided_has_the_width(width: int) -> None:
    name = "".join(chr(97 + n % 26) for n in range(90))
    short = elided(name, width)
    assert len(short) == min(width, 90)
    assert width < 90 or short == name
    if width < 90:
        head, tail = short.split("...")
        assert name.startswith(head) and name.endswith(tail) and len(tail) > len(head)


def test_a_terminal_is_filled_and_a_pipe_has_no_colours() -> None:
    rows = [(name, "conv", 7) for name in LONG]
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=60, color_system=None).print(
        table("", ("layer", "t", "n"), rows, elide=("layer",))
    )
    assert max(map(len, stream.getvalue().splitlines())) <= 60
    assert stream.getvalue().count("...") == 3  # one line each, nothing folded
    assert "\x1b" not in plain(table("T", ("layer", "t", "n"), rows, elide=("layer",)))
