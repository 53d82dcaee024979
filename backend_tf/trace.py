"""One run through the program: values by name, quantized where the quantizer graph says so."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from ..ir import ModelError, Quantizer, integer_name
from ..kernels import epilogue, tqt
from .fusion import WIDEST
from .layout import Laid
from .program import Program, Step
from .thresholds import Thresholds


class Trace:
    """The values of one call of the model.

    Args:
        program: what is computed.
        variables: weights in their stored form, by ONNX name.
        thresholds: None where the model runs in float.
        quantizers: by value name; empty where the model runs in float.
        wide: names of steps that are computed in float64 (X2).
        tap: whether to keep the integers of every quantizer.
        one_pass: whether quantizers run as `kernels.epilogue` has them, for training; else as the reference does.
    """

    def __init__(
        self,
        program: Program,
        variables: Mapping[str, tf.Tensor],
        thresholds: Thresholds | None,
        quantizers: Mapping[str, Quantizer],
        wide: frozenset[str],
        tap: bool = False,
        one_pass: bool = False,
    ) -> None:
        self.program = program
        self.quantizers = quantizers
        self.taps: dict[str, Laid] = {}
        self.carried: dict[str, Laid] = {}
        self._variables = variables
        self._thresholds = thresholds
        self._wide = wide
        self._tap = tap
        self._one_pass = one_pass
        self._values: dict[str, Laid] = {}
        self._weights: dict[str, tf.Tensor] = {}

    def store(self, name: str, laid: Laid) -> None:
        """Keeps a computed value, behind its quantizer where it has one."""
        self._values[name] = laid.like(self._quantized(name, laid.tensor, laid.perm))

    def value(self, name: str) -> Laid:
        """A value of the graph: computed before, a weight, or a constant.

        Raises:
            ModelError: nothing computes it.
        """
        if name in self._values:
            return self._values[name]
        if name in self.program.weights:
            return self._plain_weight(name)
        if name in self.program.constants:
            return Laid.plain(tf.constant(self.program.constants[name]))
        raise ModelError(f"nothing computes the value {name!r}; steps must come in topological order, with one output each")

    def tap_carried(self, pairs: Mapping[str, Quantizer]) -> None:
        """Keeps the int64 integers of values that are on a quantizer's grid without having one (L7).

        They are the values as computed, in units of the scale, neither rounded nor saturated once more.

        Args:
            pairs: value name -> the quantizer whose scale it is on.
        """
        if self._thresholds is None:
            return
        for name, quantizer in pairs.items():
            laid = self.value(name)
            integers = tqt.integers_of(tf.cast(laid.tensor, tf.float64), self._thresholds.exponent(quantizer))
            self.carried[integer_name(name)] = laid.like(tf.cast(integers, tf.int64))

    def input(self, step: Step, index: int) -> Laid:
        """Input `index` of a step."""
        return self.value(step.input(index))

    def weight(self, name: str) -> tf.Tensor:
        """A weight in its stored form, quantized."""
        if name not in self._weights:
            perm = tuple(range(len(self.program.weights[name].stored_shape)))
            self._weights[name] = self._quantized(name, tf.convert_to_tensor(self._variables[name]), perm)
        return self._weights[name]

    def with_weight(self, name: str, tensor: tf.Tensor) -> Trace:
        """The same run with another tensor, as it is, in the place of one weight, and nothing in float64."""
        other = copy.copy(self)
        other._weights, other._wide = {**self._weights, name: tensor}, frozenset()
        return other

    def constant(self, step: Step, index: int) -> npt.NDArray[Any]:
        """An input that must be constant.

        Raises:
            UnsupportedError: it is computed, or a weight.
        """
        found = self.program.constants.get(step.input(index))
        if found is None:
            raise step.refuse(f"input {index} must be a constant", step.inputs[index])
        return found

    def rounding(self, quantizer: Quantizer) -> epilogue.Rounding:
        """A quantizer with the scale it has in this run."""
        assert self._thresholds is not None
        return epilogue.Rounding(self._thresholds.exponent(quantizer), quantizer.bits, quantizer.signed, quantizer.limit)

    @property
    def is_float(self) -> bool:
        """Whether no quantizer is on."""
        return self._thresholds is None

    def is_computed(self, name: str) -> bool:
        """Whether the value is neither a variable of the model nor a constant."""
        return name in self._values

    def dtype(self, step: Step) -> tf.DType:
        """What a compute layer computes in: float64 where its certificate fails (X2)."""
        return tf.float64 if step.name in self._wide else tf.float32

    def _plain_weight(self, name: str) -> Laid:
        """A weight in the ONNX order, for operators that know no other."""
        tensor, form = self.weight(name), self.program.weights[name].form
        if form == "plain":
            return Laid.plain(tensor)
        moved = tf.transpose(tensor, (3, 2, 0, 1) if form == "conv" else (2, 3, 0, 1))
        return Laid.plain(tf.reshape(moved, self.program.weights[name].shape))

    def _quantized(self, name: str, tensor: tf.Tensor, perm: tuple[int, ...]) -> tf.Tensor:
        quantizer = self.quantizers.get(name)
        if quantizer is None or self._thresholds is None:
            return tensor
        if self._one_pass and tensor.dtype == tf.float32 and quantizer.bits <= WIDEST:
            return epilogue.epilogue(tensor, self.rounding(quantizer))
        exponent = self._thresholds.exponent(quantizer)
        if quantizer.bits > 24:  # an int32 bias does not fit float32: its layer casts it to what that computes in
            tensor = tf.cast(tensor, tf.float64)
        tensor = tqt.quantize_at(tensor, exponent, quantizer.bits, quantizer.signed, quantizer.limit)
        if self._tap:
            self.taps[integer_name(name)] = Laid(tqt.integers_of(tensor, exponent), perm)
        return tensor if quantizer.bits > 24 else tf.cast(tensor, tf.float32)
