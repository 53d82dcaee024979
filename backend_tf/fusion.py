"""Ends of layers as one step: `sum -> 16 bits -> + bias -> relu -> 8 bits` becomes an Epilogue, which passes over memory once.

A rewrite of the program for training. The steps one by one stay the reference: what is tapped, verified and exported runs those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..ir import Quantizer
from .program import Program, Step

EPILOGUE = "Epilogue"
"""Operator of the steps that are put in: inputs are the value in front of everything and what is added to it, if anything;
attributes are the quantizers `first` (of the first input, or None) and `second` (of the output), `relu`, and `channelwise`
(whether what is added is the bias of a convolution)."""

WIDEST = 16
"""Bits up to which a quantizer can be part of an Epilogue: what float32 rounds."""

_BIASED = frozenset({"Conv", "Gemm"})


def fused(
    program: Program, quantizers: Mapping[str, Quantizer], kept: Collection[str] = (), whole: Collection[str] = ()
) -> tuple[Program, dict[str, Quantizer]]:
    """The program with an Epilogue for every chain of steps whose values in between have no other reader.

    Args:
        program: the graph.
        quantizers: by value name.
        kept: names of values that somebody asks for.
        whole: names of the layers that keep their bias.

    Returns:
        The program, and the quantizers that are left outside of Epilogues.
    """
    chains = _Chains(program, quantizers, {*kept, *program.outputs}, whole)
    for step in program.steps:
        chains.end_at(step)
    return chains.rewritten()


def is_limit_of(quantizer: Quantizer | None, low: float | None, high: float | None) -> bool:
    """Whether a Clip between these bounds is what its unsigned quantizer does anyway (L2)."""
    return quantizer is not None and not quantizer.signed and low == 0.0 and high is not None and quantizer.limit == high


@dataclass(slots=True)
class _Chain:
    """A chain that is being followed upwards from its last value.

    Attributes:
        head: the value it begins with so far.
        gone: outputs of the steps it has swallowed.
        addend: what is added.
        channelwise: whether that is the bias of a convolution.
        relu: whether it rectifies.
        unbiased: the layer without its bias, where the chain has taken that.
    """

    head: str
    gone: list[str]
    addend: str | None = None
    channelwise: bool = False
    relu: bool = False
    unbiased: Step | None = None


class _Chains:
    """All chains of a program, found in topological order."""

    def __init__(
        self, program: Program, quantizers: Mapping[str, Quantizer], kept: Collection[str], whole: Collection[str]
    ) -> None:
        self._program = program
        self._quantizers = quantizers
        self._kept = kept
        self._whole = whole
        self._makers = {name: step for step in program.steps for name in step.outputs}
        self._readers = Counter(name for step in program.steps for name in step.inputs)
        self._ends: dict[str, Step] = {}
        self._gone: set[str] = set()
        self._replaced: dict[str, Step] = {}
        self._inside: set[str] = set()

    def end_at(self, step: Step) -> None:
        """Records the chain that ends with the step's output, if there is one."""
        output = step.outputs[0]
        second = self._quantizers.get(output)
        if second is None or second.bits > WIDEST or len(step.outputs) > 1:
            return
        chain = _Chain(output, [])
        self._rectifier(chain, second)
        self._sum(chain)
        if not chain.gone and chain.unbiased is None:
            return
        first = self._quantizers.get(chain.head) if chain.gone and self._rounds_for_it_alone(chain.head) else None
        inputs = (chain.head,) if chain.addend is None else (chain.head, chain.addend)
        if chain.unbiased is not None and not chain.gone:  # the layer's own output is the chain's: its sum needs a name
            sums = f"{output}/sum"
            chain.unbiased = replace(chain.unbiased, outputs=(sums,))
            inputs = (sums, *inputs[1:])
        attributes = {"first": first, "second": second, "relu": chain.relu, "channelwise": chain.channelwise}
        self._ends[output] = Step(EPILOGUE, step.name, inputs, (output,), attributes)
        self._gone.update(chain.gone)
        self._inside.update([output] if first is None else [output, chain.head])
        if chain.unbiased is not None:
            self._replaced[chain.head] = chain.unbiased

    def rewritten(self) -> tuple[Program, dict[str, Quantizer]]:
        """The program with what was recorded."""
        steps = []
        for step in self._program.steps:
            output = step.outputs[0]
            if output not in self._gone:
                steps.append(self._replaced.get(output, step))
            if output in self._ends:
                steps.append(self._ends[output])
        left = {name: quantizer for name, quantizer in self._quantizers.items() if name not in self._inside}
        return replace(self._program, steps=tuple(steps)), left

    def _rectifier(self, chain: _Chain, second: Quantizer) -> None:
        step = self._makers[chain.head]
        if step.op == "Clip":
            low, high = (float(self._program.constants.get(step.input(i), np.nan)) if step.given(i) else None for i in (1, 2))
            if not is_limit_of(second, low, high):
                return
        elif step.op != "Relu":
            return
        if self._is_free(step.input(0)):
            chain.relu = step.op == "Relu"
            self._swallow(chain, step.input(0))

    def _sum(self, chain: _Chain) -> None:
        step = self._makers[chain.head]
        if step.op == "Identity" and self._rounds_for_it_alone(step.input(0)):
            self._swallow(chain, step.input(0))
        elif step.op in _BIASED and step.given(2) and step.name not in self._whole:
            chain.addend, chain.channelwise = step.input(2), step.op == "Conv"
            chain.unbiased = replace(step, inputs=step.inputs[:2])
        elif step.op == "Add" and len(step.inputs) == 2:
            computed = [name for name in (step.input(0), step.input(1)) if name in self._makers]
            if computed:
                head = next(filter(self._rounds_for_it_alone, computed), computed[0])
                chain.addend = step.input(1) if head == step.input(0) else step.input(0)
                self._swallow(chain, head)

    def _swallow(self, chain: _Chain, head: str) -> None:
        """The chain now begins with `head`; the step behind it is done by the Epilogue."""
        chain.gone.append(chain.head)
        chain.head = head

    def _is_free(self, name: str) -> bool:
        """Whether the value is computed, not rounded, and nobody else's business."""
        return name in self._makers and name not in self._quantizers and self._is_read_once(name)

    def _rounds_for_it_alone(self, name: str) -> bool:
        """Whether the chain can do the rounding of this value too: nobody else reads it, and no other chain ends there."""
        quantizer = self._quantizers.get(name)
        return (
            quantizer is not None
            and quantizer.bits <= WIDEST
            and quantizer.limit is None
            and name in self._makers
            and name not in self._ends
            and self._is_read_once(name)
        )

    def _is_read_once(self, name: str) -> bool:
        return self._readers[name] == 1 and name not in self._kept
