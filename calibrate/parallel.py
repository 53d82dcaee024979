"""One pass of float statistics for all tensors at once (two for `klj`): the fast alternative to the sequential walk (C4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import onnx_ir

from ..ir import name_of
from .decisions import GroupStatistics
from .engine import Engine, cores, rows_for
from .feeds import Batches, checked_feeds
from .segments import needed_nodes

Progress = Callable[[int, int, str], None]


def float_pass(
    model: onnx_ir.Model,
    engine: Engine,
    statistics: Mapping[str, GroupStatistics],
    values: Sequence[onnx_ir.Value],
    batches: Batches,
    progress: Progress | None = None,
) -> None:
    """Runs the float graph once over the data; every one of `values` feeds its group's current statistics.

    Args:
        model: lowered float graph.
        engine: runs it.
        statistics: by value name.
        values: outputs of nodes.
        batches: fresh iterator of feeds.
        progress: told the batches done so far; the total is not known and given as 0.
    """
    if not values:
        return
    nodes = needed_nodes(model, values)
    read = {value for node in nodes for value in node.inputs}
    names = [name_of(value) for value in model.graph.inputs if value in read]
    session = engine.session(nodes, [value for value in model.graph.inputs if value in read], values, {}, relayout=True)
    with ThreadPoolExecutor(cores()) as threads:
        for count, feed in enumerate(checked_feeds(list(model.graph.inputs), batches, rows_for(values)), 1):
            results = session.run({name: feed[name] for name in names})
            tensors = sorted(results.items(), key=lambda item: -item[1].size)  # largest first: the threads end together
            for future in [threads.submit(statistics[name].update, name, array) for name, array in tensors]:
                future.result()
            if progress is not None:
                progress(count, 0, "batches measured")
