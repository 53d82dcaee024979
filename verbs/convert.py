"""`convert`: a trained model becomes an optimized float ONNX model, compared with its source before it is handed out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..ir import VERSION_KEY, UsageError, fed_inputs, forget_batch_norms, name_of, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from ..passes import Pass
    from ..verify import Session

Arrays = Mapping[str, npt.NDArray[Any]]

SCHEMA: Final = "tqt_onnx.conversion/1"

TOLERANCE: Final = 1e-4
"""Largest accepted difference from TensorFlow, in units of the output's range. float32 kernels that sum in another order
differ by 1e-6 to 1e-5 of the range; a wrong padding, layout or batch norm differs by more than 1e-2."""

_NOISE_FACTOR: Final = 8
"""Every layer rounds; what the inputs' rounding alone does to an output, times this, is what some dozens of layers may do."""

_SILENT: Final = 1e-30
"""An output that moves less than that does not move: a sigmoid far from 0."""

_MOST: Final = 1e-2
"""Of the range: no noise excuses more."""


class Reference(Protocol):
    """What the converted model is compared with: the frozen TensorFlow graph, or the ONNX file as it was."""

    def example_shapes(self, batch: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of each input for a batch of examples."""
        ...

    def run(self, feeds: Arrays) -> Mapping[str, npt.NDArray[Any]]:
        """One array per output, by name."""
        ...


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from its source's on the probe inputs.

    Attributes:
        name: of the output.
        difference: largest absolute difference.
        output_range: largest minus smallest value that the source gives.
        noise: how far the output moves where the inputs' last bits do: it is measured where the difference is not within
            tolerance, because a Softmax of large numbers, for instance, multiplies what float32 rounds.
    """

    name: str
    difference: float
    output_range: float
    noise: float = 0.0

    @property
    def relative(self) -> float:
        """Difference in units of the range; infinite for an output that no probe moves: it says nothing about the network."""
        return self.difference / self.output_range if self.output_range else float("inf")

    def within(self, tolerance: float) -> bool:
        """Whether the difference is within tolerance, or no more than float32 arithmetic itself leaves open. A NaN is not."""
        if self.relative <= tolerance:
            return True
        return self.difference <= _NOISE_FACTOR * self.noise and self.relative <= _MOST


@dataclass(frozen=True)
class Conversion:
    """An optimized float model and how it compares.

    Attributes:
        model: ONNX, opset 21, batch norms folded unless they were to be kept.
        differences: one for each output.
        tolerance: what is accepted, relative to the output's range.
        source: what the outputs were compared with, `TensorFlow` or `onnxruntime`.
        passes: the passes that were run, each with the options that would name it.
    """

    model: onnx_ir.Model
    differences: tuple[OutputDifference, ...]
    tolerance: float
    source: str = "TensorFlow"
    passes: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """The worst relative difference."""
        return max(output.relative for output in self.differences)

    @property
    def ok(self) -> bool:
        """Whether every output agrees with its source. A NaN does not."""
        return all(output.within(self.tolerance) for output in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON; an output that no probe moves has no relative difference (null)."""
        outputs = [
            {
                "name": item.name,
                "difference": _finite(item.difference),
                "range": _finite(item.output_range),
                "relative": _finite(item.relative),
                "noise": _finite(item.noise),
                "accepted": item.within(self.tolerance),
            }
            for item in self.differences
        ]
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "source": self.source,
            "tolerance": self.tolerance,
            "outputs": outputs,
            "passes": list(self.passes),
        }


def convert(
    source: str | os.PathLike[str] | Any,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    signature: str | None = None,
    trust: bool = False,
    keep_batch_norm: bool = False,
    passes: str | Sequence[Pass] | None = None,
    tolerance: float = TOLERANCE,
) -> Conversion:
    """Converts and optimizes a trained model, then compares it with its source on random inputs.

    Args:
        source: `.pb`, `.pbtxt`, `.meta`, a folder with a checkpoint, a SavedModel, `.keras`, `.h5`, `.onnx`, or a live
            `keras.Model` or `tf.function`.
        inputs: names of the input tensors of a graph; found where unambiguous.
        outputs: names of the output tensors; found where unambiguous.
        input_shape: H, W, C where the graph does not know it.
        checkpoint: of an unfrozen graph, where it does not lie beside it.
        signature: of a SavedModel with several.
        trust: run the Python code of Lambda layers inside a Keras file.
        keep_batch_norm: leave batch norms unfolded, for retraining (B0).
        passes: what to run instead of the recipe `optimize`, as text (`passes.language`) or as passes.
        tolerance: accepted difference, in units of each output's range.

    Returns:
        The model and its differences; `ok` tells whether they are accepted.

    Raises:
        ModelError: unreadable, truncated or ambiguous source.
        UnsupportedError: an operator without an ONNX form.
        UsageError: options that do not go together, or a list of passes that cannot be read.
    """
    from ..passes import OPTIMIZE, OPTIMIZE_KEEP_BATCH_NORM, describe, parse_passes, run_passes

    if passes is not None and keep_batch_norm:
        raise UsageError("a list of passes says itself whether batch norms are folded; keep_batch_norm goes without one")
    if passes is None:
        steps: Sequence[Pass] = OPTIMIZE_KEEP_BATCH_NORM if keep_batch_norm else OPTIMIZE
    else:
        steps = parse_passes(passes) if isinstance(passes, str) else tuple(passes)
    model, reference, origin = _open(source, inputs, outputs, input_shape, checkpoint, signature, trust)
    run_passes(model, steps)
    forget_batch_norms(model)  # a model in memory is no other than its file
    model.metadata_props[VERSION_KEY] = __version__
    return Conversion(model, _compare(reference, model, tolerance), tolerance, origin, tuple(describe(steps)))


def _open(
    source: Any,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    input_shape: Sequence[int] | None,
    checkpoint: str | os.PathLike[str] | None,
    signature: str | None,
    trust: bool,
) -> tuple[onnx_ir.Model, Reference, str]:
    """The unoptimized model, what to compare it with, and how that is called."""
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".onnx":
        foreign = {"inputs": inputs, "outputs": outputs, "checkpoint": checkpoint, "signature": signature}
        given = [name for name, value in foreign.items() if value is not None]
        if given:
            raise UsageError(f"an .onnx file says itself what its {given[0]} are. Received: {given[0]}={foreign[given[0]]!r}")
        return _open_onnx(source, input_shape)
    from ..frontend_tf import load, to_onnx

    frozen = load(source, inputs, outputs, input_shape, checkpoint=checkpoint, signature=signature, trust=trust)
    return to_onnx(frozen), frozen, "TensorFlow"


def _open_onnx(source: str | os.PathLike[str], input_shape: Sequence[int] | None) -> tuple[onnx_ir.Model, Reference, str]:
    from ..frontend_onnx import adopt, as_written

    model = adopt(source, input_shape)
    shapes = {name_of(value): static_shape(value) or () for value in fed_inputs(model.graph)}
    return model, _OnnxReference(as_written(source), shapes), "onnxruntime"


class _OnnxReference:
    """The ONNX file as it was, run without optimizations, one example after the other.

    A batch that the file fixes is filled with copies of the example: what an image gives cannot depend on its neighbours.
    """

    def __init__(self, model: onnx_ir.Model, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        from ..verify import Session

        self._shapes = shapes
        fixed = [dim for value in fed_inputs(model.graph) for dim in (static_shape(value) or ())[:1] if dim is not None]
        self._rows = fixed[0] if fixed else 1
        self._session = Session(model, optimize=False)

    def example_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the model that was read, which has its batch open where it could be opened."""
        return {name: tuple(batch if dim is None else dim for dim in shape) for name, shape in self._shapes.items()}

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """One array per output."""
        count = max((len(array) for array in feeds.values() if array.ndim), default=1)
        results: dict[str, list[npt.NDArray[Any]]] = {}
        for row in range(count):
            one = {name: np.repeat(array[row : row + 1], self._rows, 0) if array.ndim else array for name, array in feeds.items()}
            for name, array in self._session.run(one).items():
                results.setdefault(name, []).append(array[:1] if array.ndim and len(array) == self._rows else array)
        return {name: np.concatenate(arrays) if arrays[0].ndim else arrays[0] for name, arrays in results.items()}


def probes(reference: Reference, batch: int = 4) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Random inputs on the scales networks are fed with ([-1, 1] and [0, 255]), and beyond, for networks that stay silent there."""
    rng = np.random.default_rng(0)
    shapes = reference.example_shapes(batch)
    ranges = ((-1.0, 1.0), (0.0, 255.0), (-1e3, 1e3))
    return [{name: rng.uniform(low, high, shape).astype(np.float32) for name, shape in shapes.items()} for low, high in ranges]


def _compare(reference: Reference, model: onnx_ir.Model, tolerance: float) -> tuple[OutputDifference, ...]:
    from ..verify import Session

    session = Session(model, optimize=False)
    worst: dict[str, OutputDifference] = {}
    at: dict[str, Arrays] = {}
    for index, feeds in enumerate(probes(reference)):
        if index >= 2 and all(item.output_range or item.difference for item in worst.values()):
            break
        ours, theirs = session.run(feeds), reference.run(feeds)
        for name, expected in theirs.items():
            found = _difference(name, ours[name], expected)
            known = worst.get(name)
            silent = known is None or not (known.output_range or known.difference)
            if not silent and not (found.output_range or found.difference):
                continue  # constant on this probe, and the same in both: no news
            if known is None or silent or not found.relative <= known.relative:  # a NaN is the worst of all
                worst[name] = found
                at[name] = feeds
    return tuple(
        item if item.relative <= tolerance else replace(item, noise=_noise(session, at[name], name)) for name, item in worst.items()
    )


def _noise(session: Session, feeds: Arrays, name: str) -> float:
    """How far an output moves where every input is a few last bits off, three times at random."""
    rng = np.random.default_rng(0)
    expected = session.run(feeds)[name].astype(np.float64)
    moved = 0.0
    for _ in range(3):
        nudged = {key: array * (1 + rng.uniform(-1, 1, array.shape) * 2.0**-22).astype(array.dtype) for key, array in feeds.items()}
        moved = max(moved, float(np.abs(session.run(nudged)[name].astype(np.float64) - expected).max(initial=0.0)))
    return moved


def _difference(name: str, ours: npt.NDArray[Any], expected: npt.NDArray[Any]) -> OutputDifference:
    if ours.shape != expected.shape:
        return OutputDifference(name, float("inf"), 0.0)
    same = (ours == expected) & ~np.isfinite(expected)  # both overflow: no news
    ours, theirs = ours.astype(np.float64)[~same], expected.astype(np.float64)[~same]
    if not theirs.size:
        return OutputDifference(name, 0.0, 0.0)
    with np.errstate(invalid="ignore"):  # where only one of them does, the difference is infinite or NaN: not accepted
        gap, spread = np.abs(ours - theirs), float(theirs.max() - theirs.min())
    if expected.dtype.kind == "f" and spread < _SILENT and float(gap.max()) < _SILENT:
        return OutputDifference(name, 0.0, 0.0)
    if expected.dtype.kind != "f":  # a class index: the same one for every probe is an answer, and a step is a difference
        spread = max(spread, 1.0)
    return OutputDifference(name, float(gap.max()), spread)


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
