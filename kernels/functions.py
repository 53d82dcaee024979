"""Functions of one number in float64, by ONNX operator: the definition of the tables they become (L12).

Written so that nothing overflows on the way to a finite result, and nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Attributes = Mapping[str, Any]
Formula = Callable[..., Reals]
"""`(attributes, operands...) -> values`."""

SELU_ALPHA: Final = 1.67326319217681884765625
SELU_GAMMA: Final = 1.05070102214813232421875
"""The defaults of the ONNX standard: float32 numbers."""

LEAKY_ALPHA: Final = float(np.float32(0.01))
HARD_SIGMOID_ALPHA: Final = float(np.float32(0.2))
"""Defaults of the standard as engines read them, in float32."""

_erf: Formula = np.vectorize(math.erf, otypes=[np.float64])
_erfc: Formula = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(x: Reals) -> Reals:
    """`1 / (1 + exp(-x))`."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softplus(x: Reals) -> Reals:
    """`log(1 + exp(x))`."""
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


def elu(x: Reals, alpha: float, gamma: float = 1.0, width: float = 1.0) -> Reals:
    """`gamma x` above zero, `gamma alpha (exp(x / width) - 1)` below."""
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / width))


def gelu(x: Reals, approximate: str = "none") -> Reals:
    """`x` times the normal distribution function at `x`, or the approximation with tanh."""
    if approximate == "tanh":
        return x * sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))  # (1 + tanh(z)) / 2 = sigmoid(2 z)
    return 0.5 * x * _erfc(-x / math.sqrt(2.0))


def hard_sigmoid(x: Reals, alpha: float, beta: float) -> Reals:
    """`min(max(alpha x + beta, 0), 1)`."""
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _clip(_: Attributes, x: Reals, low: Reals | None = None, high: Reals | None = None) -> Reals:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


FORMULAS: Final[dict[str, Formula]] = {
    "Abs": lambda _, x: np.abs(x),
    "Add": lambda _, a, b: a + b,
    "Ceil": lambda _, x: np.ceil(x),
    "Celu": lambda given, x: elu(x, given.get("alpha", 1.0), 1.0, given.get("alpha", 1.0)),
    "Clip": _clip,
    "Div": lambda _, a, b: a / b,
    "Elu": lambda given, x: elu(x, given.get("alpha", 1.0)),
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Floor": lambda _, x: np.floor(x),
    "Gelu": lambda given, x: gelu(x, given.get("approximate", "none")),
    "HardSigmoid": lambda given, x: hard_sigmoid(x, given.get("alpha", HARD_SIGMOID_ALPHA), given.get("beta", 0.5)),
    "HardSwish": lambda _, x: np.where(x >= 3.0, x, x * np.clip(x + 3.0, 0.0, 6.0) / 6.0),
    "LeakyRelu": lambda given, x: np.where(x >= 0, x, given.get("alpha", LEAKY_ALPHA) * x),
    "Log": lambda _, x: np.log(x),
    "Max": lambda _, *operands: np.asarray(np.maximum.reduce(np.broadcast_arrays(*operands))),
    "Min": lambda _, *operands: np.asarray(np.minimum.reduce(np.broadcast_arrays(*operands))),
    "Mish": lambda _, x: x * np.tanh(softplus(x)),
    "Mul": lambda _, a, b: a * b,
    "Neg": lambda _, x: -x,
    "Pow": lambda _, a, b: np.power(a, b),
    "Reciprocal": lambda _, x: 1.0 / x,
    "Relu": lambda _, x: np.maximum(x, 0.0),
    "Round": lambda _, x: np.rint(x),
    "Selu": lambda given, x: elu(x, given.get("alpha", SELU_ALPHA), given.get("gamma", SELU_GAMMA)),
    "Sigmoid": lambda _, x: sigmoid(x),
    "Sign": lambda _, x: np.sign(x),
    "Softplus": lambda _, x: softplus(x),
    "Softsign": lambda _, x: x / (1.0 + np.abs(x)),
    "Sqrt": lambda _, x: np.sqrt(x),
    "Sub": lambda _, a, b: a - b,
    "Tanh": lambda _, x: np.tanh(x),
}
"""Every operator that can be part of a table."""


Step = tuple[str, dict[str, Any], tuple[int | Reals | None, ...]]
"""An operator of `FORMULAS`, its attributes, its operands: 0 is the argument, n the result of step n, an array a constant."""


def apply(step: Step, values: Sequence[Reals]) -> Reals:
    """One operator in float64; where it has no value (the logarithm of a negative number) the result is NaN or infinite.

    Args:
        step: what to compute.
        values: the argument and the results of the steps before.
    """
    op_type, attributes, operands = step
    given = (values[operand] if isinstance(operand, int) else operand for operand in operands)
    with np.errstate(all="ignore"):
        return np.asarray(FORMULAS[op_type](attributes, *given), np.float64)


def run(steps: Sequence[Step], argument: Reals) -> Reals:
    """A function of one number in float64, element by element.

    Args:
        steps: what it consists of, in order; the last one gives the result.
        argument: float64 array of any shape.
    """
    values = [argument]
    for step in steps:
        values.append(apply(step, values))
    return values[-1]
