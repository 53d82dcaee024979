"""A layer with a batch norm of its own: its variables, and the weight and bias they fold to (B2, B3).

    w' = w * s        b' = b * s + (beta - s * mean)        s = gamma / sqrt(variance + epsilon)

in float64, cast to float32: the formulas of `kernels.batch_norm` once more with TensorFlow, bit for bit the same eagerly and in a
graph. So what is trained is what is written back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..kernels.batch_norm import fold
from .batch_norm_specs import BatchNormSpec, channels_of, step_of
from .layout import restore
from .program import Program, Step, Weight

_LEAST = sys.float_info.min


@dataclass(frozen=True, slots=True, eq=False)
class NormalizedLayer:
    """One such layer.

    Attributes:
        spec: what it is called.
        step: the layer in the program.
        weight: how its weight is stored.
        bias_shape: of its bias in the lowered graph.
        variables: by role; the weight in its stored form, the others [channels].
    """

    spec: BatchNormSpec
    step: Step
    weight: Weight
    bias_shape: tuple[int, ...]
    variables: Mapping[str, Any]

    @classmethod
    def make(cls, spec: BatchNormSpec, program: Program, variable: Callable[[str, tuple[int, ...]], Any]) -> NormalizedLayer:
        """Finds the layer and has its variables made.

        Args:
            spec: of the layer.
            program: of the lowered graph.
            variable: makes the variable of a role, with that shape.

        Raises:
            ModelError: the graph has no such layer.
        """
        step, weight = step_of(spec, program), program.weights[spec.weight]
        vector = (channels_of(step, weight.shape),)
        variables = {role: variable(role, weight.stored_shape if role == "weight" else vector) for role in spec.names}
        return cls(spec, step, weight, program.weights[spec.bias].shape, variables)

    @property
    def groups(self) -> int:
        """Of the convolution."""
        return int(self.step.get("group", 1))

    def value(self, role: str) -> tf.Tensor:
        """A variable as float64."""
        return tf.cast(tf.convert_to_tensor(self.variables[role]), tf.float64)

    @property
    def deviation(self) -> tf.Tensor:
        """`sqrt(variance + epsilon)` of the moving variance, float64 [channels]."""
        # TensorFlow's graph optimizer makes g / sqrt(v) a product with rsqrt(v), another number; not with a maximum between.
        return tf.maximum(tf.sqrt(self.value("variance") + self.spec.epsilon), tf.constant(_LEAST, tf.float64))

    def folded(self) -> dict[str, tf.Tensor]:
        """Weight, in its stored form, and bias of the lowered graph by name: float32, from the moving statistics."""
        scale = self.value("gamma") / self.deviation
        shift = self.value("beta") - scale * self.value("mean")
        bias = shift if "bias" not in self.variables else self.value("bias") * scale + shift
        return {
            self.spec.weight: _product(tf.convert_to_tensor(self.variables["weight"]), self._along(scale)),
            self.spec.bias: self.as_bias(tf.cast(bias, tf.float32)),
        }

    def as_bias(self, vector: tf.Tensor) -> tf.Tensor:
        """One number per channel in the shape of the lowered graph's bias."""
        return tf.reshape(vector, self.bias_shape)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """The same as `folded` in NumPy and in the layout of ONNX: what is written back (B3)."""
        held = {role: np.asarray(variable.value.numpy(), np.float32) for role, variable in self.variables.items()}
        norm = (held["gamma"], held["beta"], held["mean"], held["variance"])
        weight = restore(held["weight"], self.weight.form)
        folded, bias = fold(weight, held.get("bias"), norm, self.spec.epsilon, self.step.op, self.groups)
        return {self.spec.weight: folded, self.spec.bias: bias.reshape(self.bias_shape)}

    def _along(self, scale: tf.Tensor) -> tf.Tensor:
        """One number per channel, to be broadcast against the stored weight: `along_channels` of the kernel, then `store`."""
        if self.step.op == "ConvTranspose":  # stored as [h, w, out / groups, in]
            columns = tf.transpose(tf.reshape(scale, (self.groups, -1)))
            return tf.repeat(columns, self.weight.shape[0] // self.groups, axis=1)
        return tf.reshape(scale, (self.groups, -1)) if self.weight.form == "depthwise" else scale


def _product(weight: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """float32 weight times float64 factor, rounded once; gradients in float32, which is what they are used in."""

    def forward(weight: tf.Tensor, factor: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            leading = list(range(weight.shape.rank - factor.shape.rank))
            total = tf.reduce_sum(gradient * weight, leading)
            return gradient * tf.cast(factor, tf.float32), tf.cast(total, tf.float64)

        return tf.cast(tf.cast(weight, tf.float64) * factor, tf.float32), backward

    return tf.custom_gradient(forward)(weight, factor)
