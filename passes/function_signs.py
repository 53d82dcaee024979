"""Whether a function of 8-bit integers is ever negative: asked of every number it can be given (L12).

Its input is an integer of 8 bits times a power of two, which may be any of those that are allowed (Q5). That is few enough to
try all of them, so the answer is a proof, whatever the function looks like. Where it has no value (the root of a negative
number) nothing is known: the answer is yes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import MAX_EXPONENT, MIN_EXPONENT, FunctionRegion
from ..kernels.fixed_point import bounds
from ..kernels.functions import Step, run

_USUAL_EXPONENT = -5


def may_be_negative(region: FunctionRegion, *, signed: bool) -> bool:
    """Whether anything can leave the region that is not known to be at least zero.

    Args:
        region: a function of one number.
        signed: whether its input may be negative.
    """
    steps = region.steps()
    return _has_negative(steps, [_USUAL_EXPONENT], signed) or _has_negative(steps, range(MIN_EXPONENT, MAX_EXPONENT + 1), signed)


def _has_negative(steps: Sequence[Step], exponents: Sequence[int], signed: bool) -> bool:
    low, high = bounds(8, signed)
    integers = np.arange(low, high + 1, dtype=np.float64)
    return not bool((run(steps, np.ldexp(integers, np.asarray(exponents)[:, None])) >= 0).all())  # NaN is not >= 0
