"""What DPUs can shift by, in positions: `pos = -exponent`, the number of fractional bits (H5).

Of a layer, `shift_cut = wpos + ipos - opos` is what its sum is shifted down by, and `shift_bias = wpos + ipos - bpos` what its bias
is shifted up by. Of an Add, `shift_read = max(ipos) - min(ipos)` is what the coarser operand is shifted up by, and
`shift_write = min(ipos) - opos`; of a Mul, `shift_write` is the sum of both `ipos`, minus `opos`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

POINTS: Final = "--layer-bits 32 --relu-bits 7 --avgpool-bits 7 --avgpool-reciprocal-bits 7"
"""Options of `quantize` whose tensors int8 holds."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A range of shifts, both ends included.

    Attributes:
        name: of the shift, as the compiler's messages have it.
        least: smallest.
        most: largest.
    """

    name: str
    least: int
    most: int

    def excess(self, shift: int) -> int:
        """How far a shift lies outside: negative below, positive above, 0 inside."""
        return min(shift - self.least, 0) + max(shift - self.most, 0)

    def violation(self, shift: int) -> str:
        """The sentence about a shift outside."""
        return f"{self.name} is {shift}, a DPU has {self.least} to {self.most}"


SHIFT_CUT: Final = Limit("shift_cut", 0, 16)
SHIFT_READ: Final = Limit("shift_read", 0, 7)
SHIFT_WRITE: Final = {"Add": Limit("shift_write", -7, 25), "Sub": Limit("shift_write", -7, 25), "Mul": Limit("shift_write", 0, 32)}
"""Operator -> limit."""

_ACCUMULATOR_BITS: Final = 24
_BIAS_BITS: Final = 8
_MOST_SHIFT_BIAS: Final = 15


def shift_bias_limit(shift_cut: int, *, leaky: bool) -> Limit:
    """What a DPU shifts a bias by; behind the sum of a leaky relu it is never shifted down.

    Ours never are: biases lie on the grid of their sum, so a finer position would hold nothing more. Only `most` can be left.
    """
    least = 0 if leaky else min(0, -(_ACCUMULATOR_BITS - (_BIAS_BITS + shift_cut)))
    return Limit("shift_bias", least, _MOST_SHIFT_BIAS)


SLOPE_BITS: Final = 8
DPU_SLOPE: Final = 26
"""The leaky relu of a DPU: 26/256 of what is negative. Toolchains leave other slopes to the CPU."""

KERNEL: Final = Limit("kernel size", 1, 16)
STRIDE: Final = Limit("stride", 1, 8)
"""Of Conv, on the widest of the DPUs; smaller ones have less, and say so when they compile."""

ENGINES: Final = frozenset(
    {
        *("Add", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul"),
        *("Pad", "Relu", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators that DPUs or their toolchains are documented to take; the rest runs on the CPU."""
