"""`convert`: a TensorFlow model becomes an optimized float ONNX model, compared with TensorFlow before it is handed out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..ir import VERSION_KEY

if TYPE_CHECKING:
    import onnx_ir

    from ..frontend_tf import FrozenGraph

TOLERANCE: Final = 1e-4
"""Largest accepted difference from TensorFlow, in units of the output's range. float32 kernels that sum in another order
differ by 1e-6 to 1e-5 of the range; a wrong padding, layout or batch norm differs by more than 1e-2."""


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from TensorFlow's on the probe inputs.

    Attributes:
        name: of the output.
        difference: largest absolute difference.
        output_range: largest minus smallest value that TensorFlow gives.
    """

    name: str
    difference: float
    output_range: float

    @property
    def relative(self) -> float:
        """Difference in units of the range; infinite for an output that no probe moves: it says nothing about the network."""
        return self.difference / self.output_range if self.output_range else float("inf")


@dataclass(frozen=True)
class Conversion:
    """An optimized float model and how it compares.

    Attributes:
        model: ONNX, opset 21, batch norms folded unless they were to be kept.
        differences: one for each output.
        tolerance: what is accepted, relative to the output's range.
    """

    model: onnx_ir.Model
    differences: tuple[OutputDifference, ...]
    tolerance: float

    @property
    def difference(self) -> float:
        """The worst relative difference."""
        return max(output.relative for output in self.differences)

    @property
    def ok(self) -> bool:
        """Whether every output agrees with TensorFlow. A NaN does not."""
        return all(output.relative <= self.tolerance for output in self.differences)


def convert(
    source: str | os.PathLike[str] | Any,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    keep_batch_norm: bool = False,
    tolerance: float = TOLERANCE,
) -> Conversion:
    """Converts and optimizes a trained model, then compares it with TensorFlow on random inputs.

    Args:
        source: `.pb` (frozen), `.keras`, `.h5`, or a live `keras.Model`.
        inputs: names of the input tensors of a frozen graph; found where unambiguous.
        outputs: names of the output tensors; found where unambiguous.
        input_shape: H, W, C where the graph does not know it.
        keep_batch_norm: leave batch norms unfolded, for retraining (B0).
        tolerance: accepted difference, in units of each output's range.

    Returns:
        The model and its differences; `ok` tells whether they are accepted.

    Raises:
        ModelError: unreadable, truncated or ambiguous source.
        UnsupportedError: an operator without an ONNX form.
    """
    from ..frontend_tf import load, to_onnx
    from ..passes import optimize

    frozen = load(source, inputs, outputs, input_shape)
    model = to_onnx(frozen)
    optimize(model, keep_batch_norm=keep_batch_norm)
    model.metadata_props[VERSION_KEY] = __version__
    return Conversion(model, _compare(frozen, model), tolerance)


def probes(frozen: FrozenGraph, batch: int = 4) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Random inputs on the scales networks are fed with ([-1, 1] and [0, 255]), and beyond, for networks that stay silent there."""
    rng = np.random.default_rng(0)
    ranges = ((-1.0, 1.0), (0.0, 255.0), (-1e3, 1e3))
    return [
        {
            name: rng.uniform(low, high, [batch if dim is None else dim for dim in shape]).astype(np.float32)
            for name, shape in frozen.input_shapes.items()
        }
        for low, high in ranges
    ]


def _compare(frozen: FrozenGraph, model: onnx_ir.Model) -> tuple[OutputDifference, ...]:
    from ..verify import Session

    session = Session(model, optimize=False)
    worst: dict[str, OutputDifference] = {}
    for index, feeds in enumerate(probes(frozen)):
        if index >= 2 and all(item.output_range or item.difference for item in worst.values()):
            break
        ours, theirs = session.run(feeds), frozen.run(feeds)
        for name, expected in theirs.items():
            found = _difference(name, ours[name], expected)
            known = worst.get(name)
            silent = known is None or not (known.output_range or known.difference)
            if not silent and not (found.output_range or found.difference):
                continue  # constant on this probe, and the same in both: no news
            if known is None or silent or not found.relative <= known.relative:  # a NaN is the worst of all
                worst[name] = found
    return tuple(worst.values())


def _difference(name: str, ours: npt.NDArray[Any], expected: npt.NDArray[Any]) -> OutputDifference:
    if ours.shape != expected.shape:
        return OutputDifference(name, float("inf"), 0.0)
    gap = np.abs(ours.astype(np.float64) - expected.astype(np.float64))
    spread = float(expected.max()) - float(expected.min())
    if expected.dtype.kind != "f":  # a class index: the same one for every probe is an answer, and a step is a difference
        spread = max(spread, 1.0)
    return OutputDifference(name, float(gap.max()), spread)
