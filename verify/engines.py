"""Every engine against the oracle, batch by batch (X3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import onnx_ir

from ..ir import UsageError, name_of
from .batches import Feeds, slices
from .certificate import LayerCertificate, certify
from .compare import integer_constants
from .comparison import CUT, Comparison, Listener, Runner
from .oracle import Oracle
from .oracle_ops import OPS, Op
from .plan import Plan, influenced, make_plan
from .result import CheckResult
from .resynchronise import Resynchronisation
from .runtime import NO_VNNI, Session, lacks_vnni
from .sqnr import NoiseMeter
from .truncate import bisect_optimized, last_fixed_values, truncated

Exhaust = Callable[[Sequence[LayerCertificate]], Mapping[str, tuple[str, ...]]]
"""Certificates of undecided tables -> outputs of those all of whose entries were run -> the engines."""


def check_engines(
    model: onnx_ir.Model,
    batches: Iterable[Feeds],
    engines: Sequence[str] = ("oracle", "ort"),
    runners: Mapping[str, Runner] | None = None,
    *,
    models: Mapping[str, onnx_ir.Model] | None = None,
    ops: Mapping[str, Op] = OPS,
    float_model: onnx_ir.Model | None = None,
    exhaust: Exhaust | None = None,
    listen: Listener | None = None,
) -> CheckResult:
    """Runs engines on the same images and compares every integer tensor with the oracle's by `==`.

    `ort` stands for onnxruntime with optimizations off and taps on everything, for the untouched model with all
    optimizations (`ort-optimized`: its own outputs only), and, where there are islands or layers without certificate, for
    the rest of the model with all optimizations (`ort-optimized-cut`): it ends in front of them, and behind them it is fed
    with the oracle's integers. Integer constants of engines with a model of their own are compared before any data.

    Args:
        model: a Q/DQ model.
        batches: feeds; they are read once, one at a time.
        engines: `oracle` (always there), `ort`, and names of `runners`.
        runners: further engines (`tf`), or replacements of an engine above.
        models: `oracle`, `ort` or `ort-optimized` -> the model it runs instead, to see whether a difference is found.
        ops: operators of the oracle; another table simulates a target's rounding (H1).
        float_model: the lowered float model, to measure the noise of every tensor against; it is run once for each slice.
        exhaust: given the certificates of undecided tables, tells by their outputs of which all entries were run, in which
            engines, and gave the oracle's integers: those are promised here (L12).
        listen: told of each slice and what the oracle computed of it: all integer tensors and outputs.

    Returns:
        The result; `ok` tells whether the promise holds.

    Raises:
        UsageError: an engine nobody provides.
        ModelError: onnxruntime does not load the model.
        DataError: feeds do not fit the model, or an engine returns a tensor of another shape.
        UnsupportedError: as `Oracle.run`.
    """
    own = dict(models or {})
    reference = own.get("oracle", model)
    oracle = Oracle(reference, ops)
    certificates = _exhausted(certify(model, oracle.plan), exhaust)
    uncertified = [certificate.output for certificate in certificates if not certificate.promised]
    points = Resynchronisation(model, oracle.plan, uncertified)
    ends = cut_ends(model, oracle.plan, points, uncertified)
    chosen, operators = _runners(model, points, ends, engines, dict(runners or {}), own)
    keep = [*oracle.plan.integers, *(name_of(value) for value in model.graph.outputs), *ends]
    meter = None if float_model is None else NoiseMeter(reference, float_model)
    listeners = tuple(listener for listener in (meter, listen) if listener is not None)
    comparison = Comparison(model, oracle, points, keep, integer_constants(reference), listeners)
    for engine in chosen:
        copy = own.get(engine, model)
        if copy is not reference and engine not in (runners or {}) and engine != CUT:
            comparison.add_constants(engine, integer_constants(copy))
    for batch in batches:
        for part in slices(batch):
            comparison.add(part, chosen)
    asked = "ort" in engines
    differing = comparison.differing_part if "ort-optimized" in chosen else None
    return CheckResult(
        engines=tuple(chosen),
        images=comparison.images,
        integers={engine: comparison.integers[engine] for engine in chosen},
        not_compared=comparison.not_compared(),
        differences=comparison.found(promised=True),
        not_certified=comparison.found(promised=False),
        floats=tuple(comparison.floats.values()),
        certificates=tuple(certificates),
        islands=oracle.islands,
        ties=dict(comparison.ties.ties),
        requantized=dict(comparison.ties.requantized),
        fused=operators,
        first_optimized=bisect_optimized(model, differing, own.get("ort-optimized")) if differing is not None and asked else None,
        notes=(NO_VNNI,) if asked and lacks_vnni() else (),
        promised={engine: comparison.promised[engine] for engine in chosen},
        layers_not_compared=comparison.layers_not_compared(certificates),
        sqnr=() if meter is None else meter.result(),
        unmatched=() if meter is None else meter.unmatched(),
    )


def _exhausted(certificates: list[LayerCertificate], exhaust: Exhaust | None) -> list[LayerCertificate]:
    """Tables all of whose entries were run need no bound here: nothing else can occur."""
    undecided = [certificate for certificate in certificates if certificate.undecided]
    found = exhaust(undecided) if exhaust is not None and undecided else {}
    return [replace(certificate, exhausted=tuple(found.get(certificate.output, ()))) for certificate in certificates]


def check_certificates(model: onnx_ir.Model) -> CheckResult:
    """What is known of a model without data: the certificates and the islands. Nothing was compared, so it is not `ok`.

    Args:
        model: a Q/DQ model.

    Raises:
        UnsupportedError: as `certify`.
    """
    plan = make_plan(model)
    return CheckResult(
        engines=(),
        images=0,
        integers={},
        not_compared=plan.integers,
        differences=(),
        not_certified=(),
        floats=(),
        certificates=tuple(certify(model, plan)),
        islands=plan.islands,
        ties={},
        requantized={},
        fused={},
        first_optimized=None,
        notes=(),
        promised={},
        layers_not_compared=(),
    )


def tapped_runner(model: onnx_ir.Model) -> Runner:
    """Onnxruntime without optimizations on this model (or on a mutated copy): all its integer tensors and outputs."""
    return Session(model, Oracle(model).plan.integers).run


def cut_ends(model: onnx_ir.Model, plan: Plan, points: Resynchronisation, uncertified: Sequence[str]) -> tuple[str, ...]:
    """Where the optimized cut model ends: in front of islands and layers without certificate, and at outputs behind them."""
    ends = last_fixed_values(model, plan, uncertified)
    behind = influenced(model, points.points)
    computed = {value.name for node in model.graph for value in node.outputs}
    outputs = (name_of(value) for value in model.graph.outputs)
    exact = (name for name in outputs if plan.kinds[name] == "fixed" and name in computed & behind - points.unpromised_at_points)
    return tuple(dict.fromkeys([*ends, *exact]))


def _runners(
    model: onnx_ir.Model,
    points: Resynchronisation,
    ends: Sequence[str],
    engines: Sequence[str],
    given: dict[str, Runner],
    own: dict[str, onnx_ir.Model],
) -> tuple[dict[str, Runner], dict[str, int]]:
    """Engine -> how to run it; and the operators of the optimized model."""
    tapped, optimized = own.get("ort", model), own.get("ort-optimized", model)
    runners: dict[str, Runner] = {}
    operators: dict[str, int] = {}
    for engine in dict.fromkeys(engines):
        if engine == "ort":
            runners["ort"] = given.get("ort") or tapped_runner(tapped)
            session = Session(optimized, optimize=True, count_operators=True)
            operators = dict(session.operators)
            runners["ort-optimized"] = given.get("ort-optimized") or session.run
            if ends:
                cut = truncated(optimized, ends, points.points)
                runners[CUT] = given.get(CUT) or Session(cut, optimize=True).run
        elif engine in given:
            runners[engine] = given[engine]
        elif engine != "oracle":
            known = ", ".join(dict.fromkeys(["oracle", "ort", *given]))
            raise UsageError(f"engines must be among {known}. Received: {engine!r}")
    return runners, operators
