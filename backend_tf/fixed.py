"""The regenerated network with its quantizers fixed: weights lie on their grids already, and scales are constants."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir
import tensorflow as tf

from ..ir import Quantizer, QuantizerGraph
from .carry import rounded_clips
from .exactness import wide_steps
from .layout import Laid, store
from .ops import OPS, Op
from .program import Program, Step, parse, skeleton
from .regenerate import check_program
from .trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A function of one integer (L12).

    Attributes:
        source: name of the value that it is a function of.
        exponent: binary logarithm of the scale of that value.
        first: integer of the first entry.
        entries: integers on the grid of the result.
        exponent_out: binary logarithm of the scale of the result.
    """

    source: str
    exponent: int
    first: int
    entries: Sequence[int]
    exponent_out: int


class FixedNetwork:
    """A lowered model and its quantizers, ready to be traced into any TensorFlow graph.

    Args:
        lowered: float model whose constants lie on their grids, as `remove_qdq` gives it.
        graph: its decided quantizers.
        tables: name of what a function computes -> its entries.

    Raises:
        UnsupportedError: an operator without counterpart in TensorFlow.
    """

    def __init__(self, lowered: onnx_ir.Model, graph: QuantizerGraph, tables: Mapping[str, Table]) -> None:
        self.quantizers = graph.by_value()
        self.tables = tables
        self.program = parse(lowered, frozenset(self.quantizers))
        check_program(self.program, graph)
        self.arrays = skeleton(lowered, frozenset(self.quantizers))[1]
        self.wide = wide_steps(self.program, graph, self.arrays)
        self.steps = _needed(self.program, tables)

    def stored(self, name: str) -> npt.NDArray[np.float32]:
        """A weight as TensorFlow's operators take it."""
        weight = self.program.weights[name]
        return store(self.arrays[name], weight.form, weight.groups)

    def run(self, trace: FixedTrace, feeds: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Traces the network into the current graph.

        Args:
            trace: a new one of this network.
            feeds: every input by name.

        Returns:
            The outputs by name.
        """
        for name, tensor in feeds.items():
            trace.store(name, Laid.plain(tensor))
        for step in self.steps:
            trace.begin(step)
            with tf.name_scope(scope_name(step.name)):
                if step.outputs[0] in self.tables:
                    trace.look_up(step.outputs[0], self.tables[step.outputs[0]])
                    continue
                found = trace.ops[step.op](trace, step)
                for name, laid in zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=False):
                    trace.store(name, laid)
        outputs = {name: trace.value(name).onnx for name in self.program.outputs}
        return {name: tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor for name, tensor in outputs.items()}


class FixedTrace(Trace):
    """One run of a `FixedNetwork`; what a quantizer becomes is `rounded`, which targets may replace.

    Attributes:
        ops: the table of operators.
    """

    ops: ClassVar[Mapping[str, Op]] = OPS

    def __init__(self, network: FixedNetwork) -> None:
        quantizers = network.quantizers | rounded_clips(network.program, network.quantizers)
        weights = {name: network.stored(name) for name in network.program.weights}
        super().__init__(network.program, weights, None, quantizers, network.wide)

    @property
    def is_float(self) -> bool:
        """Never: there are quantizers, if none whose scale could move."""
        return False

    def begin(self, step: Step) -> None:
        """Called in front of every step."""

    def rounded(self, name: str, tensor: tf.Tensor, quantizer: Quantizer) -> tf.Tensor:
        """The quantizer as TensorFlow's own operators: `s * clip(round(x / s))`, ties to even (Q1, Q2, Q5)."""
        del name
        scale, inverse = (
            tf.constant(np.ldexp(1.0, exponent), tensor.dtype)
            for exponent in (quantizer.decided_exponent, -quantizer.decided_exponent)
        )
        low, high = (tf.constant(bound, tensor.dtype) for bound in (quantizer.lower, quantizer.upper))
        return tf.cast(tf.maximum(tf.minimum(tf.round(tensor * inverse), high), low) * scale, tf.float32)

    def weighed(self, name: str, tensor: tf.Tensor, quantizer: Quantizer) -> tf.Tensor:
        """A quantized constant, which is on its grid."""
        del name, quantizer
        return tensor

    def look_up(self, name: str, table: Table) -> None:
        """Stores the result of a function: entries that were computed in float64, so nothing is left to TensorFlow's curves."""
        x = self.value(table.source)
        positions = tf.cast(x.tensor * np.float32(np.ldexp(1.0, -table.exponent)), tf.int32) - table.first
        entries = np.ldexp(np.asarray(table.entries, np.float64), table.exponent_out).astype(np.float32)
        self.store(name, x.like(tf.gather(self.entries(name, entries), positions)))

    def entries(self, name: str, reals: npt.NDArray[np.float32]) -> tf.Tensor:
        """The entries of the table of a function, which are on the grid of its result."""
        del name
        return tf.constant(reals)

    def _quantized(self, name: str, tensor: tf.Tensor, perm: tuple[int, ...]) -> tf.Tensor:
        del perm
        quantizer = self.quantizers.get(name)
        if quantizer is None:
            return tensor
        if name in self.program.weights:
            return self.weighed(name, tensor, quantizer)
        return self.rounded(name, tensor, quantizer)


def scope_name(name: str) -> str:
    """A name with the characters that TensorFlow takes in a scope."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name).lstrip("_/-") or "node"


def _needed(program: Program, tables: Mapping[str, Table]) -> tuple[Step, ...]:
    """The steps that outputs depend on; those inside of functions are replaced by tables."""
    wanted: set[Any] = set(program.outputs)
    kept = []
    for step in reversed(program.steps):
        if wanted.isdisjoint(step.outputs):
            continue
        kept.append(step)
        wanted.update([tables[step.outputs[0]].source] if step.outputs[0] in tables else step.inputs)
    return tuple(reversed(kept))
