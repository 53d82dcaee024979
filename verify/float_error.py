"""How far a float32 engine can be from the exact value of a function, number by number (L12, X1).

Every operator adds an error of its own to what the errors of its operands become:

    error(f(x)) <= |f(x') - f(x)|  +  own(f, x)                   for all x' with |x' - x| <= error(x)

Selections and steps are exact. Sums, products, quotients and square roots are rounded correctly by IEEE 754: within half a unit
of the last place, 2^-24 of the result, and exactly right where the result is a float32 number; the bound allows four times that,
since engines divide by multiplying with reciprocals, and takes no quotient by a computed number for exact. Curves are
approximated by every engine in its own way; the bounds in `CURVES` are at least twice what was measured for onnxruntime and
TensorFlow, but for results next to the smallest normal number (`tests/verify/test_float_error.py`). Subnormal numbers may be
flushed to zero.

The bound is one of operator after operator. It holds where an engine computes several at once with an error of that size
(onnxruntime's Gelu, QuickGelu and `B / A` for `(1 / A) * B`); it does not hold where sums are taken in another order:
`(x + c) + d` as `x + (c + d)` loses what c cancels. onnxruntime never does that; TensorFlow's graph optimizer does, and is
kept out by running eagerly (`backend_tf/taps.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ..kernels.functions import HARD_SIGMOID_ALPHA, SELU_ALPHA, SELU_GAMMA, Reals, Step, apply

UNIT: Final = 2.0**-24
"""Half a unit of the last place of a float32 number between 1 and 2."""

SMALLEST: Final = 2.0**-126
"""Smallest normal float32 number."""

LARGEST: Final = float(np.finfo(np.float32).max)

SELECTIONS: Final = frozenset({"Abs", "Clip", "Max", "Min", "Neg", "Relu"})
"""Exact, and no error grows in them."""

STEPS: Final = frozenset({"Ceil", "Floor", "Round", "Sign"})
"""Exact on exact arguments; where an error crosses a step it becomes the step."""

ARITHMETIC: Final = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt"})
"""Rounded correctly."""

_Own = Callable[[dict[str, Any], Reals, Reals], Reals]
"""`(attributes, argument, result) -> absolute error of a float32 evaluation`."""


def _exponential(given: dict[str, Any], x: Reals, y: Reals) -> Reals:
    """`alpha (exp(x) - 1)` below zero loses what the subtraction cancels; above zero there is a product, or nothing at all."""
    gamma = given.get("gamma", SELU_GAMMA)
    above = 0.0 if gamma == 1.0 else 4 * UNIT
    return np.where(x > 0, above * np.abs(y), 8 * UNIT * abs(gamma * given.get("alpha", SELU_ALPHA)))


CURVES: Final[dict[str, _Own]] = {
    "Celu": lambda given, x, y: _exponential({"alpha": given.get("alpha", 1.0), "gamma": 1.0}, x, y),
    "Elu": lambda given, x, y: _exponential({"alpha": given.get("alpha", 1.0), "gamma": 1.0}, x, y),
    "Erf": lambda _, x, _y: 16 * UNIT * np.minimum(np.abs(x), 1.0),
    "Exp": lambda _, x, y: 16 * UNIT * np.maximum(1.0, np.abs(x) / 16) * y,
    "Gelu": lambda _, x, y: 32 * UNIT * np.minimum(np.abs(x), 8.0) + 4 * UNIT * np.abs(y),
    "HardSigmoid": lambda given, x, _y: (
        8 * UNIT * (np.minimum(np.abs(given.get("alpha", HARD_SIGMOID_ALPHA) * x), 2.0) + abs(given.get("beta", 0.5)))
    ),
    "HardSwish": lambda _, x, y: np.where(x <= -3.0, 0.0, 8 * UNIT * (np.minimum(np.abs(x), 8.0) + np.abs(y))),
    "LeakyRelu": lambda _, x, y: np.where(x >= 0, 0.0, 4 * UNIT * np.abs(y)),
    "Log": lambda _, x, y: 8 * UNIT * np.maximum(np.abs(y), np.abs(x - 1.0) * (np.abs(x - 1.0) < 1.0)),
    "Mish": lambda _, x, y: 16 * UNIT * (np.minimum(np.abs(x), 32.0) + np.abs(y)),
    "Pow": lambda _, _x, y: 32 * UNIT * np.abs(y),
    "Reciprocal": lambda _, _x, y: 8 * UNIT * np.abs(y),  # TensorFlow: not even exact where it could be
    "Selu": _exponential,
    "Sigmoid": lambda _, x, _y: np.full(np.shape(x), 8 * UNIT),
    "Softplus": lambda _, _x, y: 16 * UNIT * np.maximum(1.0, np.abs(y)),
    "Softsign": lambda _, _x, y: 8 * UNIT * np.abs(y),
    "Tanh": lambda _, x, _y: np.full(np.shape(x), 16 * UNIT),
}
"""Errors of the approximations, on exact arguments."""

STEEPEST: Final = {"Gelu": 1.13, "HardSwish": 1.5, "Mish": 1.09}
"""Largest slope of the curves that go down and up again."""


def with_error(steps: Sequence[Step], argument: Reals) -> tuple[Reals, Reals]:
    """A function in float64, and a bound of the error of its evaluation in float32.

    Args:
        steps: what it consists of.
        argument: float64 array of float32 numbers.

    Returns:
        The values, and for each a bound; infinite where nothing is known (what overflows on the way, or has no value).
    """
    values, errors = [argument], [np.zeros_like(argument)]
    for step in steps:
        value = apply(step, values)
        with np.errstate(all="ignore"):
            error = _spread(step, values, errors, value) + _own(step, values, errors, value)
            error = np.where(np.isfinite(error) & (np.abs(value) + error <= LARGEST), error, np.inf)
        values.append(value)
        errors.append(error)
    return values[-1], errors[-1]


def _values(step: Step, values: Sequence[Reals]) -> list[Reals]:
    """The operands that are there."""
    return [values[operand] if isinstance(operand, int) else operand for operand in step[2] if operand is not None]


def _errors(step: Step, errors: Sequence[Reals]) -> list[Reals]:
    """Their errors: constants are float32 numbers, without one."""
    return [errors[operand] if isinstance(operand, int) else np.zeros(()) for operand in step[2] if operand is not None]


def _spread(step: Step, values: Sequence[Reals], errors: Sequence[Reals], value: Reals) -> Reals:
    """What becomes of the operands' errors."""
    op_type, attributes, _ = step
    x, e = _values(step, values), _errors(step, errors)
    if op_type in SELECTIONS or op_type in {"Add", "Sub"}:
        together = sum if op_type in {"Add", "Sub"} else lambda found: np.maximum.reduce(np.broadcast_arrays(*found))
        return np.asarray(together(e))
    if op_type == "Mul":
        return np.asarray(np.abs(x[0]) * e[1] + np.abs(x[1]) * e[0] + e[0] * e[1])
    if op_type in {"Div", "Reciprocal"}:
        divisor, lost = np.abs(x[-1]), e[-1]
        above = e[0] if op_type == "Div" else np.zeros(())
        return np.where(above + lost == 0, 0.0, np.where(lost < divisor, (np.abs(value) * lost + above) / (divisor - lost), np.inf))
    if op_type in STEEPEST:
        return STEEPEST[op_type] * e[0]
    ends = [apply((op_type, attributes, (0, *step[2][1:])), [end]) for end in (x[0] - e[0], x[0] + e[0])]
    return np.where(e[0] == 0, 0.0, np.maximum(*(np.abs(end - value) for end in ends)))


def _own(step: Step, values: Sequence[Reals], errors: Sequence[Reals], value: Reals) -> Reals:
    """What a float32 evaluation of the operator adds, on exact operands."""
    op_type, attributes, _ = step
    if op_type in SELECTIONS | STEPS:
        return np.zeros_like(value)
    if op_type in CURVES:
        argument = _values(step, values)[0]
        return CURVES[op_type](attributes, argument, value) + np.where(value == 0, 0.0, SMALLEST)
    exact = (np.abs(value) >= SMALLEST) & (np.abs(value) <= LARGEST) & (value.astype(np.float32) == value)
    exact &= np.asarray(sum(_errors(step, errors))) == 0
    if op_type == "Div":  # often a product with the reciprocal: rounded where constant, only approximate where computed
        divisor = _values(step, values)[-1]
        exact &= (np.abs(np.frexp(divisor)[0]) == 0.5) & (not isinstance(step[2][-1], int))
    return np.where(exact | ((value == 0) & _is_zero_for_sure(step, values, errors)), 0.0, 4 * UNIT * np.abs(value) + SMALLEST)


def _is_zero_for_sure(step: Step, values: Sequence[Reals], errors: Sequence[Reals]) -> Reals:
    """Whether a result of zero is exact: a product with an exact zero, or exact operands."""
    x, e = _values(step, values), _errors(step, errors)
    zero = [(value == 0) & (error == 0) for value, error in zip(x, e, strict=True)]
    return np.asarray(np.logical_or.reduce(np.broadcast_arrays(*zero)) | (np.asarray(sum(e)) == 0))
