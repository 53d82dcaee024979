"""Every tensor as int8, and biases of 8 bits.

An unsigned tensor keeps its scale where int8 saturates where it does: at 127, or at a bound of its own (relu6). Otherwise its
scale doubles, and it has one bit less. What is narrower than its saturation allows (4 bits) gets a finer scale of the same range;
constants have no saturation, so their integers are kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...ir import Quantizer, UnsupportedError, constant
from ...kernels import fixed_point
from .draft import Draft
from .limits import POINTS

_TOP: Final = 127
_BIAS_REACH: Final = 40
"""Positions above the sum's that are tried for a bias: none of 32 bits is wider."""


def refuse_wide(draft: Draft) -> None:
    """Refuses what has more than 8 bits and is no bias.

    Raises:
        UnsupportedError: naming the tensor and its width.
    """
    for quantizer in draft.quantizers.values():
        if quantizer.bits > 8 and quantizer.derived_from is None:
            raise UnsupportedError(
                f"target dpu: tensor {quantizer.value!r}: has {quantizer.bits} bits, a DPU's tensors have 8; "
                f"`quantize` with {POINTS} gives such a model"
            )


def to_int8(draft: Draft) -> None:
    """Makes every group of tensors signed and 8 bits wide."""
    for members in draft.groups():
        first = members[0]
        if first.bits == 8 and first.signed:
            continue
        stored = [draft.model.graph.initializers.get(member.value) for member in members]
        arrays = [constant(value) for value in stored]
        known = [array for array in arrays if array is not None]
        by = _for_constants(first, known) if len(known) == len(members) else _for_activations(members)
        exact = by == 0 or (len(known) == len(members) and _fits(known, first.decided_exponent + by))
        what = f"{'int' if first.signed else 'uint'}{first.bits}"
        for member in members:
            draft.put(replace(member, bits=8, signed=True, limit=None, exponent=first.decided_exponent + by))
        if not exact:
            top = max(member.upper for member in members)
            draft.change(
                "int8",
                first.value,
                f"is {what} and ends at {top}, a DPU's tensors are int8 and end at {_TOP}; {_advice(members)}",
                f"moves it from 2^{first.decided_exponent} to 2^{first.decided_exponent + by}",
            )


def _advice(members: list[Quantizer]) -> str:
    """What `quantize` gives a tensor that fits, as far as an option does."""
    roles = {member.role for member in members}
    if members[0].signed:
        return "signed tensors fit with 8 bits (--activation-bits 8, --avgpool-bits 8)"
    if roles <= {"activation", "reciprocal"}:
        return f"`quantize` with {POINTS} gives relus and pools that fit"
    return f"no option of `quantize` gives 7 bits to {' or '.join(sorted(roles - {'activation'}))} tensors"


def _for_constants(quantizer: Quantizer, arrays: list[npt.NDArray[Any]]) -> int:
    """Constants keep their integers where int8 holds them."""
    return 0 if _fits(arrays, quantizer.decided_exponent) else 1


def _fits(arrays: list[npt.NDArray[Any]], exponent: int) -> bool:
    """Whether int8 holds the numbers on a grid without rounding."""
    return all(
        np.array_equal(fixed_point.dequantize(fixed_point.quantize(array, exponent, 8, True), exponent), array) for array in arrays
    )


def _for_activations(members: list[Quantizer]) -> int:
    """By how much the scale moves."""
    first = members[0]
    tops = {member.upper for member in members}
    if max(tops) > _TOP:
        return 1
    if not first.signed and all(member.upper == _TOP or _is_bounded(member) for member in members):
        return 0
    return first.bits - (8 if first.signed else 7)


def _is_bounded(quantizer: Quantizer) -> bool:
    """Whether its own bound (relu6) ends it, rather than its type."""
    if quantizer.limit is None:
        return False
    return quantizer.upper == round(float(np.ldexp(quantizer.limit, -quantizer.decided_exponent)))


def narrow_bias(draft: Draft, bias: Quantizer, sum_exponent: int) -> None:
    """Gives a bias 8 bits at the position of the smallest squared error, no finer than the sum; ties to the finer one."""
    array = constant(draft.model.graph.initializers.get(bias.value))
    assert array is not None
    errors = {exponent: _error(array, exponent) for exponent in range(sum_exponent, sum_exponent + _BIAS_REACH)}
    best = min(errors, key=lambda exponent: (errors[exponent], exponent))
    draft.put(replace(bias, bits=8, group=bias.id, derived_from=None, exponent=best))


def _error(array: npt.NDArray[Any], exponent: int) -> float:
    """Squared error of int8 on a grid."""
    real = np.ldexp(fixed_point.quantize(array, exponent, 8, True).astype(np.float64), exponent)
    return float(np.sum((real - array.astype(np.float64)) ** 2))
