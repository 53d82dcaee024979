"""Calibration: data in, one threshold per share group out."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping

import onnx_ir

from ..ir import Quantizer, QuantizerGraph, UsageError
from ..kernels.percentile import PERCENTILE
from .decisions import METHODS, WEIGHT_METHODS, GroupStatistics, check_constant, decide_constants
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
    percentile: float = PERCENTILE,
    parallel: bool = False,
    given: Mapping[str, float] | None = None,
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
            and once or twice more for each share group that contains its own ancestor (see `sequential`); not at all where
            nothing is left to measure. Large batches are cut where the batch dimension is dynamic.
        method: `mse` (smallest squared error), `max`, `percentile`, or `klj` (the paper's search).
        weight_method: `mse`, or `max` as in the paper's static mode (C1).
        percentile: for that method, how many percent of a tensor's magnitudes must not saturate; 100 is `max`.
        parallel: one pass of float statistics instead of the sequential walk, which measures each tensor with everything
            upstream of it quantized (C4).
        given: `{share group: log2_t}`: thresholds known beforehand, of activations, weights or biases. These groups are not
            measured and come back as given, except for `floors`; what lies downstream is measured on their scales.
        floors: `{share group: log2_t}`: thresholds of constants, and given ones, that must not be smaller, whatever the
            method or `given` says: they keep a bias within its integers (L11), without which the numbers are wrong.
        progress: called as `progress(done, total, what)`; a total of 0 means that it is not known.

    Returns:
        `{group: log2_t}`, in the order of `graph.groups()`.

    Raises:
        UsageError: an unknown method or group, a percentage or threshold that is none, or no room for temporary files.
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
        percentile=percentile,
        parallel=parallel,
        given=given,
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
    percentile: float = PERCENTILE,
    parallel: bool,
    given: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
    progress: Progress | None,
    walk_type: Callable[..., Walk] = Walk,
    by_max: Container[str] = (),
) -> tuple[dict[str, float], Walk | None]:
    """`calibrate` with an engine and a kind of walk of the caller's, and share groups that take `max` whatever the method.

    Also returns the finished walk, None where there was none.
    """
    given, floors = given or {}, floors or {}
    _check_options(graph, method, weight_method, percentile, given)
    values = sites(model, graph)
    for name, value in values.items():
        if value.is_initializer():
            check_constant(name, constant_array(value))
    fixed: dict[str, float] = {}
    measured: dict[str, GroupStatistics] = {}
    by_value: dict[str, GroupStatistics] = {}
    for name, members in graph.groups().items():
        if name in given:
            fixed[name] = max(float(given[name]), floors.get(name, -math.inf))
        elif all(values[member.value].is_initializer() for member in members):
            decided = decide_constants(members, [constant_array(values[member.value]) for member in members], weight_method)
            fixed[name] = max(decided, floors.get(name, decided))
        else:
            measured[name] = GroupStatistics(members, "max" if name in by_max else method, cores(), percentile)
            by_value.update(dict.fromkeys((member.value for member in members), measured[name]))
            feed_constants(measured[name], values)
    walk = None
    if not measured:
        pass  # the data are not even opened
    elif parallel:
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
        walk = walk_type(model, graph, by_value, fixed, engine)
        walk.run(batches, progress)
    thresholds = fixed | {name: group.threshold for name, group in measured.items() if group.threshold is not None}
    return {name: thresholds[name] for name in graph.groups()}, walk


def _check_options(graph: QuantizerGraph, method: str, weight_method: str, percentile: float, given: Mapping[str, float]) -> None:
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}. Received: {method!r}")
    if weight_method not in WEIGHT_METHODS:
        raise UsageError(f"weight method must be one of {', '.join(WEIGHT_METHODS)}. Received: {weight_method!r}")
    if not 0 < percentile <= 100:
        raise UsageError(f"percentile must be above 0 and at most 100. Received: {percentile!r}")
    groups = graph.groups()
    for name, log2_t in given.items():
        if name not in groups:
            raise UsageError(f"a threshold is given for {name!r}; a share group with a threshold of its own is expected (S)")
        if not math.isfinite(log2_t):
            raise UsageError(f"share group {name!r}: a finite log2 threshold is expected. Received: {log2_t!r}")


def _is_measured(quantizer: Quantizer, values: dict[str, onnx_ir.Value], by_value: dict[str, GroupStatistics]) -> bool:
    return quantizer.value in by_value and not values[quantizer.value].is_initializer()
