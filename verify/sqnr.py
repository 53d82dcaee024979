"""Signal to quantization noise, tensor by tensor: where a quantized model loses its accuracy.

    SQNR = 10 log10( sum f^2 / sum (q - f)^2 )        f: the float model's number, q: the quantized model's

over all images. `q - f` holds what the layers above have done wrong too. The noise that the tensor's own quantizer makes of
the undisturbed `f` is therefore measured apart: a tensor with a good `own` and a bad total only passes on what it was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import ModelError, Quantizer, constant, fed_inputs, integer_name, name_of, quantizers_of
from ..kernels import fixed_point
from .batches import Feeds
from .fixed_tensor import FixedPoint
from .oracle_ops import Operand
from .runtime import Session
from .truncate import truncated

Float64 = npt.NDArray[np.float64]

OUTPUT_ROLE: Final = "output"
"""Role of a graph output that has no quantizer of its own: a Softmax, or a moved tensor."""


@dataclass(frozen=True, slots=True)
class TensorNoise:
    """Signal and noise of one tensor.

    Attributes:
        tensor: its name, the same in both models.
        role: of its quantizer, or `output`.
        bits: of its quantizer, or None.
        signed: of its quantizer, or None.
        exponent: binary logarithm of its scale, or None.
        count: numbers compared.
        signal: sum of the squares of the float model's numbers.
        noise: sum of the squares of the differences.
        own_noise: the same of what the quantizer alone does to the float model's numbers; None without a quantizer.
        not_finite: numbers left out because one of the models has an infinity or a NaN there.
    """

    tensor: str
    role: str
    bits: int | None
    signed: bool | None
    exponent: int | None
    count: int
    signal: float
    noise: float
    own_noise: float | None
    not_finite: int

    @property
    def sqnr_db(self) -> float:
        """Decibels; infinite where nothing differs, minus infinity where there is noise and no signal."""
        return decibels(self.signal, self.noise)

    @property
    def own_db(self) -> float | None:
        """Decibels if the layers above were exact; None without a quantizer."""
        return None if self.own_noise is None else decibels(self.signal, self.own_noise)


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A tensor that could not be compared with the float model.

    Attributes:
        tensor: its name.
        reason: why.
    """

    tensor: str
    reason: str


def decibels(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)` of two sums of squares."""
    if not noise:
        return math.inf
    return 10 * (math.log10(signal) - math.log10(noise)) if signal else -math.inf  # the ratio itself may overflow


class NoiseMeter:
    """Runs the float model beside the oracle and adds up squares in float64; nothing of a batch is kept.

    Args:
        model: a Q/DQ model with its quantizer graph.
        reference: the float model it was made from, lowered as it was, so that every quantized value has its name.

    Attributes:
        runs: how often the float model was run: once for each slice.

    Raises:
        ModelError: the reference has other inputs, or no tensor that is quantized in the model.
    """

    def __init__(self, model: onnx_ir.Model, reference: onnx_ir.Model) -> None:
        graph = quantizers_of(model)
        if graph is None:
            raise ModelError("not a quantized model: it carries no tqt_onnx.quantizers; `quantize` writes them")
        expected, received = ({name_of(value) for value in fed_inputs(one.graph)} for one in (model, reference))
        if expected != received:
            raise ModelError(
                f"the float model is another network: inputs {', '.join(sorted(expected))} are expected. "
                f"Received: {', '.join(sorted(received))}"
            )
        self._totals: dict[str, _Total] = {}
        self._missing: dict[str, str] = {}
        self.runs = 0
        computed = {value.name for node in reference.graph for value in node.outputs}
        taps: list[str] = []
        dequantized = {name_of(node.outputs[0]): node for node in model.graph if node.op_type == "DequantizeLinear"}
        for quantizer in graph.quantizers:
            node = dequantized.get(quantizer.value)
            integers = None if node is None else constant(node.inputs[0])
            if integers is not None:
                self._constant(reference, quantizer, integers)
            elif quantizer.value in computed:
                self._totals[quantizer.value] = _Total(quantizer)
                taps.append(quantizer.value)
            else:
                self._missing[quantizer.value] = "the float model has no tensor of this name"
        if not taps:
            raise ModelError("the float model is another network: it shares no tensor with the quantized one")
        outputs = [name_of(value) for value in model.graph.outputs if value.name in computed]
        for name in (name for name in outputs if name not in self._totals):
            self._totals[name] = _Total(None)
            taps.append(name)
        self._session = Session(truncated(reference, taps))

    def __call__(self, feeds: Feeds, tensors: Mapping[str, Operand]) -> None:
        """Adds one slice.

        Args:
            feeds: what both models are fed with.
            tensors: what the oracle computed of them: integer tensors, and graph outputs.
        """
        self.runs += 1
        for name, expected in self._session.run(feeds).items():
            total = self._totals[name]
            found = tensors.get(integer_name(name) if total.quantizer is not None else name)
            if found is None:
                self._missing[name] = "the oracle cannot compute it"
                continue
            received = found.real() if isinstance(found, FixedPoint) else found
            if received.shape != expected.shape:
                self._missing[name] = f"its shape is {list(received.shape)}, in the float model {list(expected.shape)}"
                continue
            total.add(expected, received)

    def result(self) -> tuple[TensorNoise, ...]:
        """What was compared, in the order of the quantizers, outputs last."""
        return tuple(total.noise_of(name) for name, total in self._totals.items() if total.count and name not in self._missing)

    def unmatched(self) -> tuple[Unmatched, ...]:
        """Quantized tensors and outputs without a counterpart in the float model."""
        return tuple(Unmatched(name, reason) for name, reason in self._missing.items())

    def _constant(self, reference: onnx_ir.Model, quantizer: Quantizer, integers: npt.NDArray[Any]) -> None:
        """Weights and biases need no data."""
        expected = constant(reference.graph.initializers.get(quantizer.value))
        if expected is None:
            self._missing[quantizer.value] = "the float model has no constant of this name"
        elif expected.shape != integers.shape:
            self._missing[quantizer.value] = f"its shape is {list(integers.shape)}, in the float model {list(expected.shape)}"
        else:
            total = self._totals[quantizer.value] = _Total(quantizer)
            total.add(expected, FixedPoint(integers.astype(np.int64), quantizer.decided_exponent).real())


class _Total:
    """Running sums of one tensor."""

    def __init__(self, quantizer: Quantizer | None) -> None:
        self.quantizer = quantizer
        self.count = self._not_finite = 0
        self._signal = self._noise = self._own = 0.0

    def add(self, reference: npt.NDArray[Any], received: npt.NDArray[Any]) -> None:
        """Adds numbers of the float model and of the quantized one, of one shape."""
        expected, found = reference.astype(np.float64).ravel(), received.astype(np.float64).ravel()
        finite = np.isfinite(expected) & np.isfinite(found)
        if not finite.all():
            expected, found = expected[finite], found[finite]
        self.count += expected.size
        self._not_finite += finite.size - expected.size
        self._signal += _squares(expected)
        self._noise += _squares(found - expected)
        if self.quantizer is not None:
            q = self.quantizer
            own = fixed_point.quantize(expected, q.decided_exponent, q.bits, q.signed, q.upper)
            self._own += _squares(np.ldexp(own.astype(np.float64), q.decided_exponent) - expected)

    def noise_of(self, name: str) -> TensorNoise:
        """The sums so far."""
        q = self.quantizer
        return TensorNoise(
            tensor=name,
            role=OUTPUT_ROLE if q is None else q.role,
            bits=None if q is None else q.bits,
            signed=None if q is None else q.signed,
            exponent=None if q is None else q.exponent,
            count=self.count,
            signal=self._signal,
            noise=self._noise,
            own_noise=None if q is None else self._own,
            not_finite=self._not_finite,
        )


def _squares(numbers: Float64) -> float:
    return float(numbers @ numbers)
