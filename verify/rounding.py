"""What another rounding than the model's changes: in every tensor, in the outputs, in the answers (H1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import UsageError, grid_of, kept_bounds, name_of, only_consumer
from .batches import Feeds, slices
from .fixed_tensor import FixedPoint
from .oracle import Oracle
from .oracle_ops import OPS, ROUNDINGS, Operand, rounding_ops
from .ties import TieCounter

RULES: Final[dict[str, str]] = {
    "half_even": "to nearest, ties to even",
    "half_up": "to nearest, ties up, towards +infinity",
    "half_away": "to nearest, ties away from zero",
    "floor_pool": "the outputs of average pools down, all others to nearest, ties to even",
}
"""Rounding -> how it rounds, in words."""


@dataclass(frozen=True, slots=True)
class TensorEffect:
    """One integer tensor.

    Attributes:
        tensor: its name, as in the ties of a check.
        ties: numbers that lay exactly between two integers, in the model's own run.
        requantized: numbers that were rounded.
        decided: numbers that the other rule alone rounds to another integer, given what it is given in the simulation.
        changed: integers that differ from the model's, whatever the cause; behind the bound of a relu6.
    """

    tensor: str
    ties: int
    requantized: int
    decided: int
    changed: int


@dataclass(frozen=True, slots=True)
class OutputEffect:
    """One output, or one integer tensor that a float part reads.

    Attributes:
        output: its name.
        integer: whether its numbers are integers times a scale; those behind a float part are not.
        numbers: how many.
        changed: how many differ.
        answers: examples of which it is a vector of classes; 0 where it is none.
        answers_changed: examples with another largest class.
    """

    output: str
    integer: bool
    numbers: int
    changed: int
    answers: int
    answers_changed: int


@dataclass(frozen=True, slots=True)
class RoundingEffect:
    """What a target's rounding changes.

    Attributes:
        rounding: a name of `ROUNDINGS`.
        images: examples run.
        tensors: those that are rounded, in topological order.
        outputs: of the model, in its order.
        ends: integer tensors that float parts read, other than outputs.
    """

    rounding: str
    images: int
    tensors: tuple[TensorEffect, ...]
    outputs: tuple[OutputEffect, ...]
    ends: tuple[OutputEffect, ...]

    @property
    def numbers(self) -> int:
        """Integers that leave the integer part: of outputs, and of what float parts read."""
        return sum(item.numbers for item in (*self.outputs, *self.ends) if item.integer)

    @property
    def changed(self) -> int:
        """How many of them differ."""
        return sum(item.changed for item in (*self.outputs, *self.ends) if item.integer)

    @property
    def answers(self) -> int:
        """Top-1 answers compared, over all outputs that are vectors of classes."""
        return sum(item.answers for item in self.outputs)

    @property
    def answers_changed(self) -> int:
        """How many of them differ."""
        return sum(item.answers_changed for item in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it; `docs/json.md` says what each field means."""
        totals = {name: getattr(self, name) for name in ("numbers", "changed", "answers", "answers_changed")}
        return {"rule": RULES[self.rounding], **totals, **asdict(self)}


def measure_rounding(model: onnx_ir.Model, batches: Iterable[Feeds], rounding: str) -> RoundingEffect:
    """Runs the oracle as the model rounds and as the target does, once each.

    Args:
        model: a Q/DQ model.
        batches: feeds; they are read once, one at a time.
        rounding: a name of `ROUNDINGS`.

    Raises:
        UsageError: there is no such rounding.
        DataError: feeds that do not fit the model.
        UnsupportedError: as `Oracle.run`.
    """
    meter, oracle, ties = RoundingMeter(model, rounding), Oracle(model), TieCounter()
    for batch in batches:
        for part in slices(batch):
            if any(array.size for array in part.values()):
                meter(part, oracle.run(part, keep=meter.keep, observe=ties))
    return meter.result(ties.ties, ties.requantized)


class RoundingMeter:
    """Simulates a rounding beside the model's own run: to be told of every slice that was run.

    Args:
        model: a Q/DQ model.
        rounding: a name of `ROUNDINGS`.

    Attributes:
        keep: values that it must be told.

    Raises:
        UsageError: there is no such rounding.
    """

    def __init__(self, model: onnx_ir.Model, rounding: str) -> None:
        if rounding not in ROUNDINGS:
            raise UsageError(f"roundings are {', '.join(ROUNDINGS)}. Received: {rounding!r}")
        self._rounding = rounding
        self._oracle = Oracle(model, rounding_ops(rounding))
        self._outputs = [name_of(value) for value in model.graph.outputs]
        self._ends = _ends(model, self._oracle)
        self._kept = dict(_rounded_tensors(model))
        self.keep = tuple(dict.fromkeys([*self._kept.values(), *self._outputs, *self._ends]))
        self._images = 0
        self._decided: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {}
        self._integer: dict[str, bool] = {}

    def __call__(self, feeds: Feeds, expected: Mapping[str, Operand]) -> None:
        """One slice, and what the model's own rounding made of it."""
        received = self._oracle.run(feeds, keep=self.keep, observe=self._observe)
        for name in self.keep:
            if name in expected and name in received:
                self._compare(name, expected[name], received[name])
        self._images += max((array.shape[0] for array in feeds.values()), default=0)

    def result(self, ties: Mapping[str, int], requantized: Mapping[str, int]) -> RoundingEffect:
        """What was found, with the ties of the model's own run."""
        tensors = [
            TensorEffect(name, ties.get(name, 0), count, self._decided[name], self._count(self._kept[name])["changed"])
            for name, count in requantized.items()
        ]
        return RoundingEffect(self._rounding, self._images, tuple(tensors), self._effects(self._outputs), self._effects(self._ends))

    def _effects(self, names: Sequence[str]) -> tuple[OutputEffect, ...]:
        fields = ("numbers", "changed", "answers", "answers_changed")
        return tuple(
            OutputEffect(name, self._integer[name], *(self._count(name)[field] for field in fields))
            for name in names
            if name in self._integer
        )

    def _count(self, name: str) -> Counter[str]:
        return self._counts.setdefault(name, Counter())

    def _compare(self, name: str, expected: Operand, received: Operand) -> None:
        before, behind = _numbers(expected), _numbers(received)
        self._integer[name] = isinstance(expected, FixedPoint)
        self._count(name).update(numbers=before.size, changed=int((before != behind).sum()))
        classes = before.size // len(before) if before.ndim > 1 and len(before) else 0
        if classes > 1 and classes == max(before.shape[1:]):
            largest = (array.reshape(len(array), -1).argmax(axis=1) for array in (before, behind))
            differing = int(np.not_equal(*largest).sum())
            self._count(name).update(answers=len(before), answers_changed=differing)

    def _observe(self, node: onnx_ir.Node, inputs: Sequence[Operand | None], output: Operand) -> None:
        """Counts where the rule itself decides otherwise."""
        x = inputs[0]
        if node.op_type == "QuantizeLinear" and isinstance(x, FixedPoint) and grid_of(node).exponent > x.exponent:
            bounds = kept_bounds(node)
            plain = OPS["QuantizeLinear"](node, inputs)
            differing = np.clip(_numbers(plain), *bounds) != np.clip(_numbers(output), *bounds)
            self._decided[name_of(node.outputs[0])] += int(differing.sum())


def _numbers(operand: Operand) -> npt.NDArray[Any]:
    return operand.integers if isinstance(operand, FixedPoint) else operand


def _rounded_tensors(model: onnx_ir.Model) -> Iterator[tuple[str, str]]:
    """Output of each QuantizeLinear, and the tensor that is kept of it: that behind an integer Clip, if one follows (L2)."""
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            clip = only_consumer(node.outputs[0])
            kept = clip.outputs[0] if clip is not None and clip.op_type == "Clip" else node.outputs[0]
            yield name_of(node.outputs[0]), name_of(kept)


def _ends(model: onnx_ir.Model, oracle: Oracle) -> list[str]:
    """Integer tensors whose numbers a float part reads, and that are no output."""
    islands = {name for island in oracle.islands for name in island.outputs}
    found = []
    for node in model.graph:
        above = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        real = node.outputs[0]
        if above is None or above.name not in oracle.plan.integers or real.is_graph_output():
            continue
        if any(reader.outputs[0].name in islands for reader, _ in real.uses()):
            found.append(name_of(above))
    return list(dict.fromkeys(found))
