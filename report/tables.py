"""The tables of `evaluate` and `check`, and what stays float."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from .shapes import Accuracy, Certificate, Check, Difference, FloatComparison, Function, Island
from .table import Cell, PlainTable, table


def accuracy_table(accuracy: Accuracy) -> Group:
    """Accuracy of each model side by side, and each model against the first."""
    models: list[tuple[Cell, ...]] = [
        (m.name, f"{m.top1_share:.2%}", f"{m.top5_share:.2%}", f"{m.interval[0]:.2%} .. {m.interval[1]:.2%}", m.count)
        for m in accuracy.models
    ]
    pairs: list[tuple[Cell, ...]] = [
        (f"{p.name} - {p.reference}", _points(p.difference), _interval(p.interval), p.p_value, f"{p.agreement:.2%}")
        for p in accuracy.differences
    ]
    columns = ("model", "top-1", "top-5", "top-1, 95%", "images")
    parts = [table("Accuracy", columns, models, elide=("model",))] if models else []
    if pairs:
        title = f"Differences on the same {accuracy.count:,} images"
        parts.append(table(title, ("models", "top-1 points", "95%", "p", "same answer"), pairs, elide=("models",)))
    return Group(*parts)


def check_table(check: Check) -> Group:
    """Each engine against the oracle; then what differs, floats and layers without certificate, where there are any."""
    rows: list[tuple[Cell, ...]] = []
    for engine in check.engines:
        broken = sum(d.count for d in check.differences if d.engine == engine)
        open_ = sum(d.count for d in check.not_certified if d.engine == engine)
        rows.append((engine, check.integers.get(engine, 0), broken, open_, engine_verdict(check, engine)))
    columns = ("engine", "integers", "differing", "differing, not certified", "result")
    parts: list[RenderableType] = [table(f"Against the int64 oracle, {check.images:,} images", columns, rows)]
    if check.differences:
        parts.append(difference_table("Differences", check.differences))
    if check.not_certified:
        parts.append(difference_table("Differences that layers without certificate or float islands explain", check.not_certified))
    if check.first_optimized is not None:
        parts.append(difference_table("First difference with all optimizations", [check.first_optimized]))
    if check.floats:
        parts.append(float_table(check.floats))
    missing = [certificate for certificate in check.certificates if not certificate.certified]
    if missing:
        parts.append(certificate_table(missing, "Layers without certificate"))
    return Group(*parts)


def difference_table(title: str, differences: Sequence[Difference]) -> PlainTable:
    """The first difference of each tensor that differs."""
    rows = [(d.engine, d.tensor, d.count, d.total, str(list(d.first_index)), d.expected, d.received) for d in differences]
    return table(title, ("engine", "tensor", "differing", "of", "first at", "oracle", "engine has"), rows)


def float_table(comparisons: Sequence[FloatComparison]) -> PlainTable:
    """Float tensors, compared within a tolerance and apart from the integers (X6)."""
    rows = [(c.engine, c.tensor, c.total, c.largest_error, c.largest, c.ok) for c in comparisons]
    return table("Float tensors", ("engine", "tensor", "numbers", "largest error", "of tolerance", "within"), rows)


def certificate_table(certificates: Sequence[Certificate], title: str = "Certificate") -> PlainTable:
    """Static bound of each layer (X1)."""
    rows = [(c.node, c.op_type, c.bound, c.accumulator_bits, c.certified, c.reason) for c in certificates]
    return table(title, ("layer", "operator", "bound", "accumulator bits", "certified", "reason"), rows)


def island_table(islands: Sequence[Island]) -> PlainTable:
    """Nodes that stay float, each with its reason."""
    return table("Stays float", ("node", "operator", "reason"), [(i.node, i.op_type, i.reason) for i in islands])


def function_table(functions: Sequence[Function]) -> PlainTable:
    """Functions of one tensor that are tables of 256 entries (L12)."""
    rows = [(one.node, " ".join(one.operators), one.input) for one in functions]
    return table("Tables of 256 entries", ("node", "operators", "of"), rows)


def engine_verdict(check: Check, engine: str) -> str:
    """One engine's result; a difference that is merely not promised away is still no "bit for bit"."""
    if any(d.engine == engine for d in check.differences):
        return "DIFFERS"
    if any(d.engine == engine for d in check.not_certified):
        return "exact where certified"
    if check.integers.get(engine, 0):
        return "bit for bit"
    floats = [comparison for comparison in check.floats if comparison.engine == engine]
    return "floats within tolerance" if floats and all(comparison.ok for comparison in floats) else "NOT compared"


def _points(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:+.2f}"


def _interval(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{_points(interval[0])} .. {_points(interval[1])}"
