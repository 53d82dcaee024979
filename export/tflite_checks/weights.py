"""Weights as TFLite's int8 holds them: -127 to 127, and one scale, which need not be a power of two (H7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ...ir import UnsupportedError
from ..integers.network import SUMS, IntegerNetwork, Operation, Step, Tensor

MOST: Final = 127
_ROOM: Final = 1 << 30
"""A sum below this may be doubled."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A layer's weights.

    Attributes:
        step: name of the layer.
        tensor: the weights.
        integers: as int8 holds them, in the ONNX layout.
        factor: what all of them were divided by; their scale is the tensor's times this.
        times: what all of them were multiplied by; their scale is the tensor's divided by this.
        clipped: how many were -128 and are -127.
    """

    step: str
    tensor: Tensor
    integers: npt.NDArray[np.int64]
    factor: int
    times: int
    clipped: int

    @property
    def scale(self) -> float:
        """What the integers are multiplied by."""
        return self.factor / self.times * 2.0**self.tensor.exponent

    @property
    def reals(self) -> npt.NDArray[np.float32]:
        """The weights that are written, which are on the tensor's own grid."""
        return (self.integers * self.scale).astype(np.float32)

    def scaled(self, bias: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The layer's bias on the scale of its sum."""
        return bias // self.factor * self.times


def weighted(network: IntegerNetwork) -> Iterator[tuple[Step, Operation, Tensor]]:
    """Every layer that multiplies by constant weights: step, operation, weights."""
    for step in network.steps:
        for operation in step.operations:
            if operation.op in SUMS and operation.inputs[1] in network.tensors:
                tensor = network.tensors[operation.inputs[1]]
                if tensor.integers is not None:
                    yield step, operation, tensor


def held_weights(network: IntegerNetwork, *, narrow: bool) -> Mapping[str, Held]:
    """The weights of every layer by name of the tensor.

    Weights beyond int8 that have a common factor (the reciprocals of an average pool, all of them equal) are divided by it, and the
    factor goes into their scale: the sums are the same numbers. What is left at -128 cannot be held. Weights that leave room for
    it are doubled: TFLite's reference kernels round the last bit of a sum away before they round, and that bit is then zero.

    Args:
        network: in integers.
        narrow: writes -127 in the place of -128.

    Raises:
        UnsupportedError: a weight that int8 does not hold, or does as -128 only.
    """
    readers: dict[str, list[tuple[Step, Operation, Tensor]]] = {}
    for one in weighted(network):
        readers.setdefault(one[2].name, []).append(one)
    return {name: _held(found, network, narrow=narrow) for name, found in readers.items()}


def _held(readers: Sequence[tuple[Step, Operation, Tensor]], network: IntegerNetwork, *, narrow: bool) -> Held:
    """Weights that one or several layers read: factor and doubling must suit the biases and the sums of all of them."""
    step, _, tensor = readers[0]
    assert tensor.integers is not None
    integers, factor = tensor.integers, 1
    if np.abs(integers).max(initial=0) > MOST:
        factor = int(np.gcd.reduce(np.concatenate([integers.ravel(), *_biases(readers, network)]).astype(np.int64)))
        integers = integers // factor
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    lowest = int((integers < -MOST).sum())
    has_room = all(operation.bound is not None and operation.bound < _ROOM * factor for _, operation, _ in readers)
    times = 2 if max(high, -low) <= MOST // 2 and has_room else 1
    where = f"target tflite: layer {step.name!r}"
    if high > MOST or low < -MOST - 1:
        raise UnsupportedError(f"{where}: weights from -127 to 127 are the most that int8 holds. Received: {low} to {high}")
    if lowest and not narrow:
        raise UnsupportedError(
            f"{where}: {lowest} of {integers.size} weights are -128, which TFLite's int8 weights exclude; --narrow-weights "
            "writes -127 in their place, which changes the network by as much. Received: -128"
        )
    return Held(step.name, tensor, np.maximum(integers, -MOST) * times, factor, times, lowest)


def _biases(readers: Sequence[tuple[Step, Operation, Tensor]], network: IntegerNetwork) -> Iterator[npt.NDArray[np.int64]]:
    for _, operation, _ in readers:
        bias = network.tensors[operation.inputs[2]].integers if len(operation.inputs) > 2 else None
        if bias is not None:
            yield bias.ravel()
