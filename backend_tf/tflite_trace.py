"""The network with FakeQuant nodes in the places of its quantizers, so that TF's converter finds our scales and no others.

A FakeQuant of 8 bits over `[-128 s, 127 s]` or `[0, 255 s]` is an int8 tensor of the scale `s` and the zero point 0 or -128; over
`[-127 s, 127 s]`, narrow, it is an int8 weight of the scale `s`. Bounds of a Clip, relu6's and those of fewer bits are put on the
grid of the rounding, behind it: rounding is monotone, so the integers are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..ir import Quantizer
from ..kernels.fixed_point import bounds
from .carry import CARRYING, carried_pairs
from .fixed import FixedNetwork, FixedTrace
from .layout import Form, Laid, store
from .ops import OPS
from .program import Step
from .tflite_ops import TFLITE_OPS

_BITS: Final = 8
_SIX: Final = 6.0
_LITTLE: Final = 2.0**-14
_ONE: Final = -6
"""Exponent of the grid on which a one is put: TFLite's own requantization rounds away the last bit of a product first, here a zero.
So is every one up to `2 * 2^-1`."""
_SELECTING: Final = CARRYING | {"Clip"}


@dataclass(frozen=True, slots=True)
class HeldWeight:
    """A weight as int8 holds it.

    Attributes:
        integers: -127 to 127, in the ONNX layout.
        scale: what they are multiplied by; a power of two, or a common factor of all weights times one.
    """

    integers: npt.NDArray[np.int64]
    scale: float


class FakeQuantTrace(FixedTrace):
    """One run for TF's converter.

    Args:
        network: what is traced.
        weights: by name, those that layers multiply by.
        floats: names of the nodes that stay float.
    """

    ops = OPS | TFLITE_OPS

    def __init__(self, network: FixedNetwork, weights: Mapping[str, HeldWeight], floats: Collection[str]) -> None:
        super().__init__(network)
        self.held, self.arrays = weights, {name: network.stored(name) for name in network.program.weights}
        self.grids = dict(self.quantizers) | carried_pairs(network.program, self.quantizers)
        for step in network.program.steps:
            if step.op == "Identity" and step.outputs[0] not in self.grids and step.inputs[0] in self.grids:
                self.grids[step.outputs[0]] = self.grids[step.inputs[0]]
        self._own = self.quantizers
        self.quantizers = dict(self.grids)
        self._makers = {name: step for step in network.program.steps for name in step.outputs}
        self._floats = floats
        self._is_float_now = False
        self._ones = Counter[str]()
        self._constants = Counter[tuple[Any, ...]]()
        self._rescaled: set[str] = set()
        self._bounds: dict[str, tuple[float | None, float | None]] = {}

    def begin(self, step: Step) -> None:
        """The next step: one that stays float reads real numbers."""
        self._is_float_now = step.name in self._floats

    def value(self, name: str) -> Laid:
        """As `Trace.value`."""
        laid = super().value(name)
        if self._is_float_now and name in self.grids and name in self._values:
            exponent = self.grids[name].decided_exponent or 1  # products with one would be dropped
            return laid.like(laid.tensor * np.float32(np.ldexp(1.0, -exponent)) * np.float32(np.ldexp(1.0, exponent)))
        return laid

    def weight(self, name: str) -> tf.Tensor:
        """As `Trace.weight`, but a new constant for every reader."""
        self._weights.pop(name, None)
        return super().weight(name)

    def bound(self, name: str, low: float | None, high: float | None) -> None:
        """Bounds that the quantizer of a value keeps, in the place of the Clip in front of it."""
        self._bounds[name] = (low, high)

    def kernel(self, name: str, form: Form = "plain", groups: int = 1) -> tf.Tensor:
        """A layer's weight, stored as it needs it, as a narrow FakeQuant."""
        held = self.held[name]
        constant = self._constant(store(held.integers, form, groups), held.scale)
        return _fake_quantized(constant, -127 * held.scale, 127 * held.scale, narrow=True)

    def weighed(self, name: str, tensor: tf.Tensor, quantizer: Quantizer) -> tf.Tensor:
        """A constant: a layer's weight, its bias (whose scale follows from its layer's), or an operand of 8 bits."""
        if name in self.held:
            weight = self.program.weights[name]
            return self.kernel(name, weight.form, weight.groups)
        return tensor if quantizer.bits > _BITS else self._operand(self.arrays[name], quantizer)

    def rounded(self, name: str, tensor: tf.Tensor, quantizer: Quantizer) -> tf.Tensor:
        """A quantizer of at most 8 bits.

        The converter drops one of two FakeQuants in a row: between them goes a product with one, which has a rounding of its own.
        """
        exponent, step = quantizer.decided_exponent, self._makers.get(name)
        if step is not None and step.op in _SELECTING and name not in self._rescaled:
            tensor = self._carried(step, tensor, quantizer)
        if name not in self._own:
            return _on_grid(tensor, exponent, quantizer.signed)
        low, high = self._bounds.get(name, (None, None))
        if (low, high) == (0.0, _SIX) and quantizer.bits == _BITS:
            return _on_grid(tf.nn.relu6(tensor), exponent, quantizer.signed)
        tensor = _on_grid(tensor, exponent, quantizer.signed)
        least, most = _integer(low, exponent, quantizer.lower, max), _integer(high, exponent, quantizer.upper, min)
        lowest, highest = bounds(_BITS, quantizer.signed)
        for edge, is_free, limited in ((most, most == highest, tf.minimum), (least, least == lowest, tf.maximum)):
            if not is_free:
                tensor = limited(tensor, self._operand(np.ldexp(float(edge), exponent), quantizer))
                tensor = _on_grid(tensor, exponent, quantizer.signed)
        return tensor

    def entries(self, name: str, reals: npt.NDArray[np.float32]) -> tf.Tensor:
        """Entries of a table as int8."""
        return self._operand(reals, self.quantizers[name])

    def rescaled(self, step: Step, tensor: tf.Tensor) -> tf.Tensor:
        """What a step selects from, on the grid of what it writes; it is not rescaled again behind it."""
        name = step.outputs[0]
        quantizer = self.quantizers[name]
        self._rescaled.add(name)
        return _on_grid(self._carried(step, tensor, quantizer), quantizer.decided_exponent, quantizer.signed)

    def _carried(self, step: Step, tensor: tf.Tensor, quantizer: Quantizer) -> tf.Tensor:
        """A tensor that has a grid already: times one, where its next grid is another."""
        grid = self.grids.get(step.input(0))
        if grid is None or (grid.decided_exponent, grid.signed) == (quantizer.decided_exponent, quantizer.signed):
            return tensor
        exponent = _ONE + self._ones[step.input(0)] % -_ONE  # equal products of one tensor would be made one, with two scales
        self._ones[step.input(0)] += 1
        one = _on_grid(self._constant(np.ldexp(1.0, -exponent), np.ldexp(1.0, exponent)), exponent, signed=True)
        return _on_grid(tensor, grid.decided_exponent, grid.signed) * one

    def _operand(self, reals: Any, quantizer: Quantizer) -> tf.Tensor:
        """A constant of 8 bits that is no weight."""
        exponent = quantizer.decided_exponent
        integers = np.ldexp(np.asarray(reals, np.float64), -exponent)
        return _on_grid(self._constant(integers, np.ldexp(1.0, exponent)), exponent, quantizer.signed)

    def _constant(self, integers: Any, scale: float) -> tf.Tensor:
        """A constant behind which comes a FakeQuant.

        The converter makes one of equal constants, and drops the FakeQuant of one with several readers. So the second of equal ones
        is a little larger, by less than the FakeQuant notices.
        """
        array = np.asarray(integers, np.float64)
        key = (array.shape, array.tobytes(), scale)
        self._constants[key] += 1
        return tf.constant((array + (self._constants[key] - 1) * _LITTLE) * scale, tf.float32)


def _integer(edge: float | None, exponent: int, own: int, nearer: Any) -> int:
    """The nearer to zero of a bound of a Clip and one of a quantizer, in integers."""
    return own if edge is None else int(nearer(own, round(edge * 2.0**-exponent)))


def _on_grid(tensor: tf.Tensor, exponent: int, signed: bool) -> tf.Tensor:
    """8 bits of a power of two."""
    scale = np.ldexp(1.0, exponent)
    low, high = bounds(_BITS, signed)
    return _fake_quantized(tensor, low * scale, high * scale)


def _fake_quantized(tensor: tf.Tensor, low: float, high: float, *, narrow: bool = False) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(tensor, low, high, num_bits=_BITS, narrow_range=narrow)
