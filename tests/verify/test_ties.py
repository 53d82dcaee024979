"""Ties, counted by hand (H1)."""

from __future__ import annotations

import numpy as np
import pytest

from tqt_onnx.ir import Grid
from tqt_onnx.verify import Oracle, TensorTies
from tqt_onnx.verify.fixed_tensor import FixedPoint
from tqt_onnx.verify.ties import TieCounter, count_ties


@pytest.mark.parametrize(
    ("integers", "shift", "signed", "ties"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, True, 2),  # 2/4 and 6/4
        ([-1, -2, -3, -6, -10], 2, True, 3),  # -0.5, -1.5, -2.5
        ([1, 3, -1, -3, 0, 2], 1, True, 4),
        ([253, 255, 257, -255, -257, -259], 1, True, 2),  # 126.5 and -127.5; 127.5 and -128.5 saturate whatever the rule
        ([-1, 1, 509, 511], 1, False, 2),  # 0.5 and 254.5: -0.5 and 255.5 give one integer under any rule
        ([1 << 61, -(1 << 61), 1], 62, True, 2),
        ([1 << 61], 63, True, 0),  # a quarter at most
        ([1, 3], 0, True, 0),
        ([1, 3], -1, True, 0),
        ([], 1, True, 0),
    ],
)
def test_ties_by_hand(integers, shift, signed, ties):
    assert count_ties(FixedPoint(np.array(integers, np.int64), -5), Grid(-5 + shift, 8, signed)) == ties


def test_only_what_rounds_is_counted(net):
    n = net(["n", 4])
    a = n.quantized("x", "a", -2, "i8")  # the host's own rounding of floats
    n.quantized(a, "same", -2, "u8")
    n.quantized(a, "finer", -3, "i16")
    n.quantized(a, "coarser", -1, "i8")
    counter = TieCounter()
    x = np.array([[1, 2, 3, -4], [5, 5, 5, 5]], np.float32) / 4
    Oracle(n.model("same", "finer", "coarser")).run({"x": x}, observe=counter)
    assert (counter.ties, counter.requantized) == ({"coarser__q": 6}, {"coarser__q": 8})


def test_share():
    assert TensorTies("a", 1, 4).share == 0.25
    assert TensorTies("a", 0, 0).share == 0.0


def test_above_the_bound_of_a_relu6_nothing_is_decided(net):
    """Half a step above the bound both neighbours become the bound; half a step below it, they do not."""
    n = net(["n"])
    a = n.quantized("x", "a", -1, "u8")
    r = n.op("QuantizeLinear", [a, n.constant("s", np.float32(1)), n.constant("z", np.uint8(0))], "y__r")
    q = n.op("Clip", [r, n.constant("low", np.uint8(0)), n.constant("high", np.uint8(6))], "y__q")
    n.op("DequantizeLinear", [q, n.constant("s2", np.float32(1)), n.constant("z2", np.uint8(0))], "y")
    counter = TieCounter()
    Oracle(n.model("y")).run({"x": np.array([5.5, 6.5, 7.5, 6.0], np.float32)}, observe=counter)
    assert (counter.ties["y__r"], counter.requantized["y__r"]) == (1, 4)
