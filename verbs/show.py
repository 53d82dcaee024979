"""What each verb prints: its result as text and tables. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..ir import Quantizer
from ..report import accuracy_table, make_console, table

if TYPE_CHECKING:
    from ..datasets import AccuracyResult
    from ..passes import Island
    from ..verify import CheckResult
    from .convert import Conversion
    from .demo import DemoResult
    from .inspect import Inspection
    from .quantize import Quantization


def show_conversion(result: Conversion, output: Path) -> None:
    """The difference from TensorFlow, output by output."""
    console = make_console()
    rows = [
        (item.name, item.difference, item.output_range, item.relative, item.relative <= result.tolerance)
        for item in result.differences
    ]
    console.print(table("ONNX against TensorFlow", ("output", "difference", "range", "relative", "accepted"), rows))
    verdict = "agrees" if result.ok else f"DIFFERS by more than {result.tolerance:g} of the output's range"
    console.print(f"{output}: {verdict}")


def show_quantization(result: Quantization, output: Path | None) -> None:
    """Counts of quantizers by role, what stays float, and where the model is."""
    console = make_console()
    counts: dict[tuple[str, str], int] = {}
    for quantizer in result.graph.quantizers:
        key = quantizer.role, type_name(quantizer)
        counts[key] = counts.get(key, 0) + 1
    rows = [(role, kind, count) for (role, kind), count in counts.items()]
    console.print(
        table(f"Quantizers ({result.graph.contract}, {result.images} calibration examples)", ("role", "type", "count"), rows)
    )
    _show_islands(result.islands)
    console.print(f"{output}: written" if output is not None else "nothing written: layers stay float and --strict was given")


def show_check(result: CheckResult) -> None:
    """Each engine against the oracle, the certificate, what stays float, and every difference."""
    console = make_console()
    rows = [
        (
            engine,
            result.integers.get(engine, 0),
            sum(d.count for d in result.differences if d.engine == engine),
            _floats(result, engine),
            engine_verdict(result, engine),
        )
        for engine in result.engines
    ]
    columns = ("engine", "integers", "differing", "float outputs", "result")
    console.print(table(f"Against the int64 oracle, {result.images} inputs", columns, rows))
    for title, found in (("Differences", result.differences), ("Not certified, differing", result.not_certified)):
        if found:
            differences = [(d.engine, d.tensor, d.count, d.total, str(list(d.first_index)), d.expected, d.received) for d in found]
            console.print(
                table(title, ("engine", "tensor", "differing", "of", "first index", "oracle", "engine says"), differences)
            )
    if result.first_optimized is not None:
        console.print(f"with all optimizations the first tensor to differ is {result.first_optimized.tensor}")
    certified = sum(layer.certified for layer in result.certificates)
    widest = max((layer.accumulator_bits or 0 for layer in result.certificates), default=0)
    console.print(f"certified for float32: {certified} of {len(result.certificates)} layers; widest accumulator {widest} bits")
    missed = [(layer.node, layer.op_type, layer.reason) for layer in result.certificates if not layer.certified]
    if missed:
        console.print(table("Layers without certificate", ("layer", "op", "reason"), missed))
    if result.fused:
        console.print(f"optimized onnxruntime session: {fused_line(result.fused)}")
    total = sum(result.requantized.values())
    if total:
        ties = sum(result.ties.values())
        console.print(f"roundings exactly on a tie: {ties:,} of {total:,} ({ties / total:.1%})")
    if result.islands:
        console.print(
            table("Computed in floating point", ("node", "op", "reason"), [(i.node, i.op_type, i.reason) for i in result.islands])
        )
    for note in result.notes:
        console.print(f"note: {note}")
    console.print("exact on every certified layer" if result.ok else "NOT exact")


def show_accuracy(result: AccuracyResult) -> None:
    """Accuracies side by side and paired differences from the first model."""
    make_console().print(accuracy_table(result))


def show_inspection(result: Inspection) -> None:
    """Layer by layer: operator, shape, parameters, types, and what stays float."""
    console = make_console()
    rows = [
        (
            row.node,
            row.op_type,
            "x".join("N" if dim is None else str(dim) for dim in row.shape) if row.shape is not None else "?",
            row.parameters or None,
            type_name(row.weight) if row.weight is not None else None,
            type_name(row.output) if row.output is not None else None,
            row.output.group if row.output is not None and row.output.group != row.output.id else None,
        )
        for row in result.rows
    ]
    state = "quantized" if result.quantized else "would be quantized as"
    columns = ("node", "op", "output", "parameters", "weights", "type", "shares scale of")
    console.print(table(f"{state} {result.contract}", columns, rows))
    _show_islands(result.islands)


def show_demo(result: DemoResult) -> None:
    """The table at the end of the demo."""
    console = make_console()
    accuracy = {model.name: model.top1_share for model in result.accuracy.models}
    rows: list[tuple[str, str | float]] = [
        ("float accuracy", f"{accuracy['digits.onnx']:.2%}"),
        ("int8 accuracy", f"{accuracy['digits.q.onnx']:.2%}"),
        ("ONNX against TensorFlow", f"{result.difference:.1e} of the output's range"),
    ]
    rows += [(f"oracle = {engine}", engine_verdict(result.check, engine)) for engine in result.check.engines]
    rows += [(str(result.folder / name), f"{size:,} bytes") for name, size in result.files.items()]
    console.print(table("Handwritten digits, from TensorFlow to proven fixed point", ("what", "result"), rows))


def engine_verdict(result: CheckResult, engine: str) -> str:
    """Bit for bit or not, with the number of integers that say so."""
    differing = sum(d.count for d in result.differences if d.engine == engine)
    if differing:
        return f"DIFFERS in {differing:,} integers"
    compared = result.integers.get(engine, 0)
    if compared:
        return f"bit for bit ({compared:,} integers)"
    floats = [item for item in result.floats if item.engine == engine]
    return "float outputs within tolerance" if floats and all(item.ok for item in floats) else "NOT compared"


def fused_line(fused: dict[str, int]) -> str:
    """Operators of the optimized session, compute layers first."""
    integer = sum(
        count for op, count in fused.items() if op in ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger")
    )
    floating = sum(count for op, count in fused.items() if op in ("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul"))
    listed = ", ".join(f"{op} {count}" for op, count in sorted(fused.items(), key=lambda item: (-item[1], item[0])))
    return f"{integer} compute layers in integers, {floating} in float ({listed})"


def type_name(quantizer: Quantizer) -> str:
    """`int8 e=-5`, `uint8 e=-5 <= 192`."""
    text = f"{'int' if quantizer.signed else 'uint'}{quantizer.bits}"
    if quantizer.exponent is not None:
        text += f" e={quantizer.exponent}"
        if quantizer.limit is not None:
            text += f" <= {quantizer.upper}"
    return text


def _floats(result: CheckResult, engine: str) -> str | None:
    found = [item for item in result.floats if item.engine == engine]
    if not found:
        return None
    worst = max(item.largest_error for item in found)
    return f"{'within tolerance' if all(item.ok for item in found) else 'OUT OF TOLERANCE'} ({worst:.1e})"


def _show_islands(islands: tuple[Island, ...]) -> None:
    if islands:
        rows = [(island.node, island.op_type, island.reason) for island in islands]
        make_console().print(table("Stays float", ("node", "op", "reason"), rows))
