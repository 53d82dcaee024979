"""Calibration: data in, one threshold per share group out."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from ..ir import Quantizer, QuantizerGraph, UsageError
from .decisions import METHODS, WEIGHT_METHODS, GroupStatistics, decide_constants
from .engine import Engine, cores
from .feeds import Batches
from .parallel import Progress, float_pass
from .segments import sites
from .sequential import Walk, constant_array, feed_constants


def calibrate(
    model: onnx_ir.Model,
    graph: QuantizerGraph,
    batches: Batches,
    *,
    method: str = "mse",
    weight_method: str = "mse",
    parallel: bool = False,
    floors: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Decides the threshold of every share group (numerics C).

    Weights take their own method (C1, Q7), 16-bit tensors, biases and accumulators their maximum (C2), everything else the
    method. Quantizers with a derived scale have no threshold. A group of nothing but zeros gets `log2 t = 0` and a log line
    at level warning (Q6).

    Args:
        model: the lowered float graph; it is not changed.
        graph: the quantizers annotated on it; exponents it may already have are not looked at.
        batches: gives a fresh iterator of `{input name: array}` each time; called once, for `klj` in parallel mode twice,
            and once or twice more for each share group that contains its own ancestor (see `sequential`).
            Large batches are cut where the batch dimension is dynamic.
        method: `mse` (smallest squared error), `max`, or `klj` (the paper's search).
        weight_method: `mse`, or `max` as in the paper's static mode (C1).
        parallel: one pass of float statistics instead of the sequential walk, which measures each tensor with everything
            upstream of it quantized (C4).
        floors: `{share group: log2_t}`: thresholds of constants that must not be smaller, whatever the method says.
        progress: called as `progress(done, total, what)`; a total of 0 means that it is not known.

    Returns:
        `{group: log2_t}`, in the order of `graph.groups()`.

    Raises:
        UsageError: an unknown method, or no room for temporary files.
        DataError: data that are empty, misnamed or of the wrong shape or dtype; NaN or infinity in data, a constant or an
            activation.
        ModelError: a quantizer on a value that the model does not have.
        UnsupportedError: operators that onnxruntime does not run, or a scale outside the exact range (Q5).
    """
    return run(
        model,
        graph,
        batches,
        Engine(model),
        method=method,
        weight_method=weight_method,
        parallel=parallel,
        floors=floors,
        progress=progress,
    )[0]


def run(
    model: onnx_ir.Model,
    graph: QuantizerGraph,
    batches: Batches,
    engine: Engine,
    *,
    method: str,
    weight_method: str = "mse",
    parallel: bool,
    floors: Mapping[str, float] | None = None,
    progress: Progress | None,
) -> tuple[dict[str, float], Walk | None]:
    """`calibrate` with an engine of the caller's; also returns the finished walk, None in parallel mode."""
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}. Received: {method!r}")
    if weight_method not in WEIGHT_METHODS:
        raise UsageError(f"weight method must be one of {', '.join(WEIGHT_METHODS)}. Received: {weight_method!r}")
    values = sites(model, graph)
    fixed: dict[str, float] = {}
    measured: dict[str, GroupStatistics] = {}
    by_value: dict[str, GroupStatistics] = {}
    for name, members in graph.groups().items():
        if all(values[member.value].is_initializer() for member in members):
            decided = decide_constants(members, [constant_array(values[member.value]) for member in members], weight_method)
            fixed[name] = max(decided, (floors or {}).get(name, decided))
        else:
            measured[name] = GroupStatistics(members, method, cores())
            by_value.update(dict.fromkeys((member.value for member in members), measured[name]))
            feed_constants(measured[name], values)
    walk = None
    if parallel:
        computed = [values[quantizer.value] for quantizer in graph.quantizers if _is_measured(quantizer, values, by_value)]
        float_pass(model, engine, by_value, computed, batches, progress)
        again = [group for group in measured.values() if group.rule.second is not None]
        for group in again:
            group.begin_second_pass()
            feed_constants(group, values)
        rest = [value for value in computed if by_value[value.name or ""] in again]
        float_pass(model, engine, by_value, rest, batches, progress)
        for group in measured.values():
            group.decide()
    else:
        walk = Walk(model, graph, by_value, fixed, engine)
        walk.run(batches, progress)
    thresholds = fixed | {name: group.threshold for name, group in measured.items() if group.threshold is not None}
    return {name: thresholds[name] for name in graph.groups()}, walk


def _is_measured(quantizer: Quantizer, values: dict[str, onnx_ir.Value], by_value: dict[str, GroupStatistics]) -> bool:
    return quantizer.value in by_value and not values[quantizer.value].is_initializer()
