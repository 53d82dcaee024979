"""A rounding as thresholds: `q = lowest + (how many thresholds a reaches)`, exactly, ties to even (Q1, H4).

Level `k` is reached at `a / 2^shift = k - 1/2` where `k` is even, since that tie goes to the even neighbour `k`, and just above
where `k` is odd, since it goes to `k - 1`. In integers the threshold of an odd level is one higher: `(2k - 1) 2^(shift - 1) + 1`.
A target that compares `a >= (k - 1/2) 2^shift` at every level rounds ties up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...ir import integer_bounds
from ..integers.network import SUMS, IntegerNetwork, Operation, Step
from ..qonnx_dialect.quant import is_exact_copy

Ties = Literal["even", "up"]

_FAR: Final = 1 << 61
"""Beyond every sum, and an int64 still when a bias is taken away."""


def threshold(level: int, shift: int, ties: Ties) -> int:
    """The smallest integer `a` for which `a / 2^shift`, rounded, is at least `level`; a Python integer of any size."""
    if shift <= 0:  # a left shift: nothing lies between two integers
        return -((-level) >> -shift)
    tie = (2 * level - 1) << (shift - 1)
    return tie + 1 if ties == "even" and level % 2 else tie


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdTable:
    """The thresholds of one rounded tensor.

    Attributes:
        step: what computes it.
        lowest: smallest integer of the tensor's type: what an input below all thresholds gives.
        even: int64 [channels or 1, 2^bits - 1], rising; ties to even.
        up: the same with ties rounded up: what FINN's own conversion makes.
        bias: name of the constant that the thresholds hold already; None where the sum has none, or it is added in front.
    """

    step: Step
    lowest: int
    even: npt.NDArray[np.int64]
    up: npt.NDArray[np.int64]
    bias: str | None

    @property
    def moved(self) -> int:
        """Thresholds that ties to even moves."""
        return int(np.count_nonzero(self.even != self.up))


def threshold_tables(network: IntegerNetwork) -> dict[str, ThresholdTable]:
    """Tensor -> its thresholds, for every step that rounds, in order."""
    return {step.output: _table(step, network) for step in network.steps if not is_exact_copy(step, network)}


def absorbed_bias(step: Step) -> str | None:
    """Name of the bias of the step's sum where nothing but a relu lies between the sum and its rounding."""
    operations: Mapping[str, Operation] = {operation.output: operation for operation in step.operations}
    operation = operations.get(step.result)
    while operation is not None and operation.op == "Relu":
        operation = operations.get(operation.inputs[0])
    if operation is None or operation.op not in SUMS or len(operation.inputs) < 3:
        return None
    return operation.inputs[2]


def _table(step: Step, network: IntegerNetwork) -> ThresholdTable:
    output = network.tensors[step.output]
    name = absorbed_bias(step)
    stored = None if name is None else network.tensors[name].integers
    biases = [0] if stored is None else [int(bias) for bias in stored.reshape(-1)]
    low, high = _reach(step, network)

    lowest, highest = integer_bounds(output.bits, output.signed)
    levels = np.arange(lowest + 1, highest + 1)

    def rows(ties: Ties) -> npt.NDArray[np.int64]:
        """Levels that the tensor never leaves below are always reached, those above its bound (relu6) never."""
        plain = [min(max(threshold(int(level), step.shift, ties), -_FAR), _FAR) for level in levels]
        edges = np.clip(np.array(plain, np.int64)[None] - np.array(biases, np.int64)[:, None], low, high + 1)
        return np.where(levels > output.upper, high + 1, np.where(levels <= output.lower, low, edges))

    return ThresholdTable(step, lowest, rows("even"), rows("up"), name)


def _reach(step: Step, network: IntegerNetwork) -> tuple[int, int]:
    """Bounds of what is compared: a threshold beyond them is as good as one at their edge."""
    bounds = [operation.bound for operation in step.operations if operation.bound is not None]
    if bounds:
        return -max(bounds), max(bounds)
    reads = [network.tensors[name] for name in step.reads]
    return min(tensor.lower for tensor in reads), max(tensor.upper for tensor in reads)


def described(tensor: str, table: ThresholdTable, network: IntegerNetwork, file: str) -> dict[str, Any]:
    """One entry of `thresholds.json`."""
    output = network.tensors[tensor]
    return {
        "tensor": tensor,
        "quant": output.value,
        "layer": table.step.name,
        "source": table.step.source,
        "file": file,
        "shape": list(table.even.shape),
        "bits": output.bits,
        "signed": output.signed,
        "lowest": output.lower,
        "highest": output.upper,
        "exponent": output.exponent,
        "shift": table.step.shift,
        "sum_exponent": output.exponent - table.step.shift,
        "bias": table.bias,
        "moved": table.moved,
    }
