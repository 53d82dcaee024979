"""Calibration that adjusts the weights on its way: each layer reproduces the float layer's output from quantized inputs.

The sequential walk with a float walk beside it. Before a compute layer runs, its inputs are decided and known in both forms,
at sampled places of all images; `kernels.reconstruct` gives its weights on their grid and its bias, in closed form. What lies
behind is measured on the adjusted layer, as in any calibration.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import MIN_EXPONENT, PASS_THROUGH, QuantizerGraph, name_of
from ..kernels.percentile import PERCENTILE
from ..kernels.reconstruct import SWEEPS, Reconstruction, reconstruct
from ..kernels.ridge import STRENGTHS, Rows
from .calibration import run
from .decisions import GroupStatistics
from .engine import Engine
from .feeds import Batches
from .pace import Pace, Work
from .parallel import Progress
from .sampling import Sample, most_rows
from .segments import Segment, carried_quantizer, sites
from .sequential import Walk, constant_array
from .spill import Spill
from .tunable import TunableLayer, tunable_layers, weights_of

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_ROWS: Final = 8192
"""Places looked at per layer, over all images."""

_QUICK_ROWS: Final = 2048
"""The same once the time is used up."""

_QUICK_PULL: Final = STRENGTHS[len(STRENGTHS) // 2]
"""The pull is not chosen then, which is what takes longest: few rows ask for a strong one."""


@dataclass(frozen=True)
class TunedRow:
    """What was done to one layer.

    Attributes:
        layer: name of its weights.
        error_before: mean squared error behind its activation, on inputs quantized upstream, with the static weights.
        error_after: with those that are shipped; of the images kept back where there are such, as `error_before`.
        variance: of the float output behind the activation, to compare the errors with.
        log2_before: static `log2 t` of its weights.
        log2_after: the one that is shipped.
        strength: pull towards the float weights that was chosen; None where the static weights were better.
    """

    layer: str
    error_before: float
    error_after: float
    variance: float
    log2_before: float
    log2_after: float
    strength: float | None


@dataclass(frozen=True)
class TunedCalibration:
    """What a tuning walk found.

    Attributes:
        thresholds: `{share group: log2_t}`, as `calibrate` gives them.
        constants: new contents of weights and biases, by name, float32.
        rows: one per layer that was looked at.
        in_time: whether every layer got its full treatment.
        images: how many the data had, as counted by the leading dimension of the first input.
    """

    thresholds: dict[str, float]
    constants: dict[str, Array]
    rows: tuple[TunedRow, ...]
    in_time: bool
    images: int = 0


def calibrate_tuned(
    model: onnx_ir.Model,
    graph: QuantizerGraph,
    batches: Batches,
    *,
    method: str = "mse",
    percentile: float = PERCENTILE,
    static: Mapping[str, float] | None = None,
    given: Mapping[str, float] | None = None,
    deadline: float = math.inf,
    seed: int = 0,
    progress: Progress | None = None,
) -> TunedCalibration:
    """Calibrates sequentially and adjusts weights and biases on the way; the model itself is not changed.

    Args:
        model: the lowered float graph.
        graph: its quantizers.
        batches: as for `calibrate`; read once.
        method: of activations.
        percentile: for that method.
        static: statically decided thresholds; of these, constants that are not adjusted keep theirs.
        given: thresholds known beforehand; weights whose threshold is given keep it, and their contents.
        deadline: by `time.monotonic()`, when all layers should be done; those that would not be get a quick version, which costs
            little more than calibration.
        seed: of the places looked at.
        progress: called as `progress(done, total, what)`.

    Raises:
        As `calibrate`.
    """
    given = given or {}
    values = sites(model, graph)
    constants = {
        name: (static or {})[name]
        for name, members in graph.groups().items()
        if name in (static or {}) and all(values[member.value].is_initializer() for member in members)
    }
    make = partial(TunedWalk, given=given, deadline=deadline, seed=seed)
    thresholds, walk = run(
        model,
        graph,
        batches,
        Engine(model),
        method=method,
        percentile=percentile,
        parallel=False,
        given={**constants, **given},
        progress=progress,
        walk_type=make,
        by_max=_output_groups(model, graph),
    )
    if not isinstance(walk, TunedWalk):
        return TunedCalibration(thresholds, {}, (), True)
    return TunedCalibration(thresholds | walk.tuned, walk.constants, tuple(walk.rows), walk.in_time, sum(walk.images))


def _output_groups(model: onnx_ir.Model, graph: QuantizerGraph) -> set[str]:
    """Share groups of what the network gives: logits must not saturate, the largest one is the answer."""
    by_value = graph.by_value()
    found, pending = set(), list(model.graph.outputs)
    while pending:
        value = pending.pop()
        quantizer, node = by_value.get(name_of(value)), value.producer()
        if quantizer is not None:
            found.add(quantizer.group)
        elif node is not None and (node.op_type in PASS_THROUGH or node.op_type in ("Softmax", "LogSoftmax")):
            pending.extend(filter(None, node.inputs[:1]))
    return found


class TunedWalk(Walk):
    """A walk that adjusts layers.

    Attributes:
        tuned: thresholds of adjusted weights.
        constants: new contents by name.
        rows: what was done.
        in_time: whether the deadline was kept throughout.
        images: in each batch.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        graph: QuantizerGraph,
        statistics: Mapping[str, GroupStatistics],
        known_thresholds: Mapping[str, float],
        engine: Engine,
        *,
        given: Mapping[str, float],
        deadline: float,
        seed: int,
    ) -> None:
        """As `Walk`, with what `calibrate_tuned` takes."""
        self.constants: dict[str, Array] = {}
        super().__init__(model, graph, statistics, known_thresholds, engine)
        self.tuned: dict[str, float] = {}
        self.rows: list[TunedRow] = []
        self.in_time = True
        self.images: list[int] = []
        self._static = known_thresholds
        self._random = np.random.default_rng(seed)
        self._float_spills: dict[str, Spill] = {}
        inside = {node for segment in self._segments for node in segment.nodes}
        self._layers = {
            node: layer
            for node, layer in tunable_layers(model, self.quantizers).items()
            if node in inside and self.quantizers[name_of(layer.weight)].group not in given
        }
        self._left = len(self._layers)
        works = {name_of(layer.weight): (_work(layer, _ROWS), _work(layer, _QUICK_ROWS)) for layer in self._layers.values()}
        self._pace = Pace(works, deadline)

    def run(self, batches: Batches, progress: Progress | None) -> None:
        """Walks, in both forms."""
        try:
            super().run(batches, progress)
        finally:
            for spill in self._float_spills.values():
                spill.close()

    def _take_in(self, batches: Batches) -> None:
        super()._take_in(batches)
        first = next(iter(self._spills.values()), None)
        self.images = [] if first is None else [(*shape, 1)[0] for shape in first.shapes]

    def _run_segment(self, segment: Segment) -> None:
        layers = [self._layers[node] for node in segment.nodes if node in self._layers]
        for layer in layers:
            self._tune(segment, layer)
        self._left -= len(layers)
        if self._left:
            self._run_in_float(segment)
        super()._run_segment(segment)
        for name in [name for name in self._float_spills if not (self._left and self._readers[name])]:
            self._float_spills.pop(name).close()

    def _run_in_float(self, segment: Segment) -> None:
        """Spills what later segments read, as the float network has it."""
        wanted = [value for value in segment.outputs if self._readers[name_of(value)]]
        if not wanted:
            return
        session = self._engine.session(segment.nodes, segment.inputs, wanted, {})
        for feed in self._feeds(segment, quantized=False):
            for name, array in session.run(feed).items():
                if name not in self._float_spills:
                    self._float_spills[name] = Spill(self.account, array.dtype)
                self._float_spills[name].append(array)

    def _feeds(self, segment: Segment, *, quantized: bool) -> Iterator[dict[str, Array]]:
        """The inputs of a segment batch by batch; graph inputs have one form only."""
        names = [name_of(value) for value in segment.inputs]
        if quantized:
            for batch in zip(*(self._spills[name] for name in names), strict=True):
                yield {name: self._real(name, array) for name, array in zip(names, batch, strict=True)}
        else:
            for batch in zip(*(self._float_spills.get(name, self._spills[name]) for name in names), strict=True):
                yield dict(zip(names, batch, strict=True))

    def _data(self, segment: Segment, layer: TunableLayer, *, quantized: bool) -> Iterator[Array]:
        """What a layer reads, batch by batch: a segment's input, or what its first nodes make of them."""
        value = layer.node.inputs[0]
        assert value is not None
        name = name_of(value)
        if value in segment.inputs:
            yield from (feed[name] for feed in self._feeds(segment, quantized=quantized))
            return
        before = _before(segment, value)
        session = self._engine.session(before, segment.inputs, [value], self._constants(segment) if quantized else {})
        for feed in self._feeds(segment, quantized=quantized):
            yield session.run(feed)[name]

    def _tune(self, segment: Segment, layer: TunableLayer) -> None:
        quick = not self._pace.allows_full(name_of(layer.weight))
        self.in_time = self.in_time and not quick
        weights = layer.stacked(weights_of(layer)).astype(np.float64)
        bias = None if layer.bias is None else _bias_of(layer.bias, len(weights))
        rows = self._rows(segment, layer, bias, _QUICK_ROWS if quick else _ROWS)
        if rows is None:
            return
        began = time.monotonic()
        quantizer = self.quantizers[name_of(layer.weight)]
        lowest, sweeps = self._lowest(layer), 0 if quick else SWEEPS
        with np.errstate(over="ignore", invalid="ignore"):  # losses beyond float32 are not better than any other
            try:
                found = reconstruct(
                    rows,
                    weights,
                    bias,
                    quantizer.bits,
                    lowest_exponent=lowest,
                    sweeps=sweeps,
                    strength=_QUICK_PULL if quick else None,
                    late=self._pace.late,
                )
            except np.linalg.LinAlgError as error:
                logger.debug("%s keeps its static weights: %s", name_of(layer.weight), error)
                return
            self._keep_better(layer, rows, found, bias)
        self.in_time = self.in_time and found.in_time
        if found.in_time:
            self._pace.done(_work(layer, rows.held.size), time.monotonic() - began, full=not quick)

    def _keep_better(self, layer: TunableLayer, rows: Rows, found: Reconstruction, bias: npt.NDArray[np.float64] | None) -> None:
        """Takes the new weights if they are better than the static ones on the images kept back."""
        name = name_of(layer.weight)
        quantizer = self.quantizers[name]
        judged = rows.part(True) if rows.held.any() else rows
        static = layer.stacked(self._quantized_constant(layer.weight)).astype(np.float64)
        before, after = judged.loss(static, bias), judged.loss(found.weights, found.bias)
        log2 = {"before": float(self._static[quantizer.group]), "after": float(found.exponent + quantizer.bits - 1)}
        better = after < before
        variance = float(rows.clipped(rows.target).var(dtype=np.float64))
        self.rows.append(
            TunedRow(
                name,
                before,
                after if better else before,
                variance,
                log2["before"],
                log2["after"] if better else log2["before"],
                found.strength if better else None,
            )
        )
        logger.debug("%s: squared error %.3g -> %.3g of %.3g", name, before, after, variance)
        if not better:
            return
        self.constants[name] = layer.unstacked(found.weights, weights_of(layer).shape).astype(np.float32)
        self.tuned[quantizer.group] = log2["after"]
        self._set_exponents(quantizer.group, log2["after"])
        if layer.bias is not None and found.bias is not None:
            self._set_bias(layer.bias, found.bias)

    def _set_bias(self, value: onnx_ir.Value, bias: npt.NDArray[np.float64]) -> None:
        array = bias.reshape(constant_array(value).shape).astype(np.float32)
        name = name_of(value)
        self.constants[name] = array
        group = self._statistics.get(name)
        if group is not None and group.threshold is None:
            group.replace(name, array)

    def _lowest(self, layer: TunableLayer) -> int:
        """The finest exponent allowed: by Q5 together with the input's, by the room of an int32 bias (L11)."""
        lowest = MIN_EXPONENT
        data = None if layer.node.inputs[0] is None else carried_quantizer(layer.node.inputs[0], self.quantizers)
        if data is None or data.exponent is None:
            return lowest
        lowest = max(lowest, MIN_EXPONENT - data.exponent)
        if layer.bias is not None and self.quantizers[name_of(layer.bias)].derived_from is not None:
            largest = float(np.abs(constant_array(layer.bias)).max(initial=0.0))
            if largest > 0:
                lowest = max(lowest, math.frexp(largest)[1] - 30 - data.exponent)
        return lowest

    def _rows(self, segment: Segment, layer: TunableLayer, bias: npt.NDArray[np.float64] | None, wanted: int) -> Rows | None:
        """What the layer sees, and what it should give, at places drawn from every image."""
        sample = Sample(layer, bias, sum(self.images), wanted, self._random)
        forms = (self._data(segment, layer, quantized=quantized) for quantized in (True, False))
        for seen, exact, images in zip(*forms, self.images, strict=True):
            sample.add(seen, exact, images)
        return sample.rows()

    def _quantized_constant(self, value: onnx_ir.Value) -> Array:
        replaced = self.constants.get(name_of(value))
        return super()._quantized_constant(value) if replaced is None else self._on_grid(replaced, self.quantizers[name_of(value)])


def _work(layer: TunableLayer, rows: int) -> Work:
    groups, inputs, outputs = layer.stacked(weights_of(layer)).shape
    return Work(groups, inputs, outputs, most_rows(layer, rows))


def _bias_of(value: onnx_ir.Value, groups: int) -> npt.NDArray[np.float64]:
    """A bias as [G, O]."""
    return constant_array(value).reshape(groups, -1).astype(np.float64)


def _before(segment: Segment, value: onnx_ir.Value) -> Sequence[onnx_ir.Node]:
    """The nodes of a segment that `value` depends on."""
    wanted = {value}
    nodes = []
    for node in reversed(segment.nodes):
        if any(output in wanted for output in node.outputs):
            nodes.append(node)
            wanted.update(read for read in node.inputs if read is not None)
    return nodes[::-1]
