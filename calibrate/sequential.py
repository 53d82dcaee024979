"""The sequential walk: every quantizer is decided on inputs already quantized upstream, each operator run once per batch (C4).

The segments of the graph are run in order. Of each, the float outputs of the whole calibration set are measured and
spilled; when the last member of a share group is measured the group is decided (C6), its spilled floats become integers,
and the segments that read them can run. A spill is closed after its last reader (C5).

A group is a cycle where some member can only be computed from another member's quantized value (a concatenation that
contains its own ancestor, both on one scale). Its missing members are then measured in float, in an extra pass over the
data, as in the parallel mode; later they are quantized on the scale so decided.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import ModelError, Quantizer, QuantizerGraph, name_of
from ..kernels import fixed_point
from ..kernels.histogram import Range
from .decisions import GroupStatistics, take_in
from .engine import Engine, Session, cores, rows_for
from .feeds import Batches, checked_feeds
from .forward import integers, reals, storage
from .parallel import Progress, float_pass
from .segments import Segment, carried_quantizer, multiples, needed_segments, sites, split
from .spill import Spill, SpillAccount
from .threads import ahead, in_turns

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


class Walk:
    """The state of one walk; `run` is called once.

    Attributes:
        account: what is spilled.
        quantizers: by value name; their exponents appear as groups are decided.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        graph: QuantizerGraph,
        statistics: Mapping[str, GroupStatistics],
        known_thresholds: Mapping[str, float],
        engine: Engine,
    ) -> None:
        """Prepares the walk.

        Args:
            model: lowered float graph.
            graph: its quantizers.
            statistics: by value name, for the members of all groups that are measured.
            known_thresholds: `{group: log2_t}` of all other groups: constants, and what is given.
            engine: runs the segments.
        """
        self.account = SpillAccount()
        self.quantizers = {q.value: replace(q, exponent=None) for q in graph.quantizers}
        self._exponents: dict[str, int] = {}  # by quantizer id
        self._members: dict[str, list[str]] = defaultdict(list)  # share group -> values
        self._derived: dict[str, list[str]] = defaultdict(list)  # quantizer id -> values whose scale depends on it
        for quantizer in graph.quantizers:
            if quantizer.derived_from is None:
                self._members[quantizer.group].append(quantizer.value)
            for source in quantizer.derived_from or ():
                self._derived[source].append(quantizer.value)
        self._model, self._engine, self._statistics = model, engine, statistics
        self._sites = sites(model, graph)
        self._segments = needed_segments(split(model, self.quantizers), statistics)
        self._readers = Counter(name_of(value) for segment in self._segments for value in segment.inputs)
        self._spills: dict[str, Spill] = {}
        self._grids: dict[str, Quantizer] = {}  # of spilled values that are integers
        self._measured: set[str] = set()
        for group, threshold in known_thresholds.items():
            self._set_exponents(group, threshold)
        self._multiples = {
            name: [(product, self._quantized_constant(factor)) for product, factor in products]
            for name, products in multiples(model, self.quantizers).items()
        }

    def run(self, batches: Batches, progress: Progress | None) -> None:
        """Walks; afterwards every group of `statistics` has its threshold."""
        try:
            with ThreadPoolExecutor(cores()) as threads:
                self._threads = threads
                pending = list(self._segments)
                total = len(pending) + 1
                if progress is not None:
                    progress(0, total, "calibration data")
                self._take_in(batches)
                while pending:
                    segment = next(filter(self._ready, pending), None)
                    if segment is None:
                        self._break_cycle(pending[0], batches)
                        continue
                    if progress is not None:
                        progress(total - len(pending), total, name_of(segment.outputs[0]))
                    self._run_segment(segment)
                    pending.remove(segment)
            if progress is not None:
                progress(total, total, "decided")
        finally:
            for spill in self._spills.values():
                spill.close()

    def _take_in(self, batches: Batches) -> None:
        """Spills the graph inputs: the caller's data are read once."""
        rows = min((rows_for([*segment.inputs, *segment.outputs]) for segment in self._segments), default=1)
        for feed in checked_feeds(list(self._model.graph.inputs), batches, rows):
            for name, array in feed.items():
                if self._readers[name]:
                    self._append(name, array)

    def _ready(self, segment: Segment) -> bool:
        quantized = [name_of(value) for value in (*segment.inputs, *segment.constants) if name_of(value) in self.quantizers]
        available = all(name_of(value) in self._spills for value in segment.inputs)
        return available and all(self.quantizers[name].exponent is not None for name in quantized)

    def _run_segment(self, segment: Segment) -> None:
        session = self._engine.session(segment.nodes, segment.inputs, segment.outputs, self._constants(segment))
        names = [name_of(value) for value in segment.inputs]
        spills = [self._spills[name] for name in names]

        def feed(batch: tuple[Array, ...]) -> dict[str, Array]:
            return {name: self._real(name, array) for name, array in zip(names, batch, strict=True)}

        self._consume(segment, session, ahead(self._threads, feed, zip(*spills, strict=True)))
        for name in names:
            self._readers[name] -= 1
            self._close_if_read(name)
        for value in segment.outputs:
            if name_of(value) in self._statistics:
                self._measured.update([name_of(value), *(product for product, _ in self._multiples.get(name_of(value), ()))])
        for group in dict.fromkeys(self._statistics[name_of(v)] for v in segment.outputs if name_of(v) in self._statistics):
            if group.threshold is None and not self._missing(group):
                self._decide(group, [])

    def _consume(self, segment: Segment, session: Session, feeds: Iterable[dict[str, Array]]) -> None:
        """Runs all batches; what is measured is measured in threads while it is spilled and the next batch runs."""

        def outputs() -> Iterator[dict[str, Array]]:
            for feed in feeds:
                results = session.run(feed)
                yield results
                for value in segment.outputs:
                    self._keep(value, results[name_of(value)])

        in_turns(self._threads, partial(self._measure, segment), outputs())

    def _measure(self, segment: Segment, results: Mapping[str, Array], worker: int) -> None:
        for value in segment.outputs:
            name = name_of(value)
            group = self._statistics.get(name)
            if group is not None and group.threshold is None:
                group.update(name, results[name], worker)
                for product, factor in self._multiples.get(name, ()):
                    group.update(product, results[name] * factor, worker)
            elif name in self.quantizers:
                take_in(Range(), name, results[name])  # a given threshold, or a cycle's: a NaN would become an integer

    def _keep(self, value: onnx_ir.Value, array: Array) -> None:
        """Spills one batch of an output: as integers where its grid is known, else as it is."""
        name = name_of(value)
        group = self._statistics.get(name)
        if not self._readers[name] and (group is None or group.rule.second is None):
            return
        if name not in self._spills:
            grid = carried_quantizer(value, self.quantizers)
            if grid is not None and grid.exponent is not None:
                self._grids[name] = grid
        grid = self._grids.get(name)
        self._append(name, array if grid is None else integers(array, grid))

    def _append(self, name: str, array: Array) -> None:
        if name not in self._spills:
            self._spills[name] = Spill(self.account, array.dtype)
        self._spills[name].append(array)

    def _real(self, name: str, array: Array) -> Array:
        grid = self._grids.get(name)
        return array if grid is None else reals(array, grid)

    def _constants(self, segment: Segment) -> dict[str, Array]:
        """The quantized constants a segment reads, as floats (a derived 32-bit bias too)."""
        return {name_of(value): self._quantized_constant(value) for value in segment.constants}

    def _quantized_constant(self, value: onnx_ir.Value) -> Array:
        """A constant on its grid, or as it is where it has no quantizer."""
        array, quantizer = constant_array(value), self.quantizers.get(name_of(value))
        if quantizer is None:
            return array
        return self._on_grid(array, quantizer)

    @staticmethod
    def _on_grid(array: Array, quantizer: Quantizer) -> Array:
        return fixed_point.fake_quantize(array, quantizer.decided_exponent, quantizer.bits, quantizer.signed, quantizer.upper)

    def _missing(self, group: GroupStatistics) -> list[onnx_ir.Value]:
        """Members of a group that are computed and have not been measured yet."""
        values = [self._sites[member.value] for member in group.members]
        return [value for value in values if not value.is_initializer() and value.name not in self._measured]

    def _decide(self, group: GroupStatistics, missing: Sequence[onnx_ir.Value], batches: Batches | None = None) -> None:
        """Decides a group and turns the spilled floats of its members into integers."""
        spilled = [member.value for member in group.members if member.value in self._spills]
        if group.rule.second is not None:
            group.begin_second_pass()
            feed_constants(group, self._sites)
            for name in spilled:
                in_turns(self._threads, partial(group.update, name), self._spills[name])
            if missing and batches is not None:
                float_pass(self._model, self._engine, self._statistics, missing, batches)
        self._set_exponents(group.members[0].group, group.decide())
        for name in spilled:
            if self._readers[name]:
                self._to_integers(name)
            self._close_if_read(name)

    def _to_integers(self, name: str) -> None:
        quantizer = self.quantizers[name]
        floats, spill = self._spills[name], Spill(self.account, storage(quantizer))
        self._spills[name] = spill
        self._grids[name] = quantizer
        try:
            for batch in ahead(self._threads, lambda array: integers(array, quantizer), floats):
                spill.append(batch)
        finally:
            floats.close()

    def _break_cycle(self, segment: Segment, batches: Batches) -> None:
        """Decides a group that blocks `segment`, the first one left, with float statistics for what is missing."""
        for value in (*segment.inputs, *segment.constants):
            group = self._statistics.get(name_of(value))
            if group is not None and group.threshold is None:
                missing = self._missing(group)
                logger.debug("group %s is a cycle: %s measured in float", group.members[0].group, [v.name for v in missing])
                float_pass(self._model, self._engine, self._statistics, missing, batches)
                self._decide(group, missing, batches)
                return
        raise ModelError(
            f"the graph up to {segment.outputs[0].name!r} cannot be ordered; nodes in topological order are expected, "
            "and for a derived scale quantizers that come before it"
        )

    def _set_exponents(self, group: str, threshold: float) -> None:
        ceiling = int(np.ceil(threshold))
        for name in self._members[group]:
            quantizer = self.quantizers[name]
            exponent = fixed_point.exponent_for(ceiling, quantizer.bits, quantizer.signed)
            self.quantizers[name] = replace(quantizer, exponent=exponent)
            self._exponents[quantizer.id] = exponent
        for name in self._members[group]:
            for derived in self._derived[self.quantizers[name].id]:
                sources = [self._exponents.get(source) for source in self.quantizers[derived].derived_from or ()]
                if None not in sources:
                    self.quantizers[derived] = replace(self.quantizers[derived], exponent=sum(e for e in sources if e is not None))

    def _close_if_read(self, name: str) -> None:
        if not self._readers[name] and name in self._spills:
            self._spills.pop(name).close()


def feed_constants(group: GroupStatistics, values: Mapping[str, onnx_ir.Value]) -> None:
    """Adds the members of a mixed group that are constants (a bias beside its accumulator) to the current statistics."""
    for member in group.members:
        if values[member.value].is_initializer():
            group.update(member.value, np.asarray(constant_array(values[member.value]), np.float32))


def constant_array(value: onnx_ir.Value) -> Array:
    """The contents of an initializer."""
    if value.const_value is None:
        raise ModelError(f"initializer {value.name!r} has no contents")
    return value.const_value.numpy()
