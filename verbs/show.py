"""What each verb prints: its result as text and tables. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..ir import Quantizer
from ..report import accuracy_table, check_table, engine_verdict, inspect_table, island_table, make_console, table

if TYPE_CHECKING:
    from ..datasets import AccuracyResult
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
    if any(not (item.output_range or item.difference) for item in result.differences):
        console.print("an output is constant on every probe: nothing was compared there")
    verdict = "agrees; written" if result.ok else f"DIFFERS by more than {result.tolerance:g} of the output's range; not written"
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
    if result.islands:
        console.print(island_table(result.islands))
    console.print(f"{output}: written" if output is not None else "nothing written: layers stay float and --strict was given")


def show_check(result: CheckResult) -> None:
    """Each engine against the oracle, every difference, the certificate, what stays float, and the answer."""
    console = make_console()
    console.print(check_table(result))
    certified = sum(layer.certified for layer in result.certificates)
    widest = max((layer.accumulator_bits or 0 for layer in result.certificates), default=0)
    console.print(f"certified for float32: {certified} of {len(result.certificates)} layers; widest accumulator {widest} bits")
    if result.fused:
        console.print(f"optimized onnxruntime session: {fused_line(result.fused)}")
    total = sum(result.requantized.values())
    if total:
        ties = sum(result.ties.values())
        console.print(f"roundings exactly on a tie: {ties:,} of {total:,} ({ties / total:.1%})")
    if result.islands:
        console.print(island_table(result.islands))
    for note in result.notes:
        console.print(f"note: {note}")
    if result.layers_not_compared:
        console.print(f"certified, but compared in no engine: {', '.join(result.layers_not_compared)}")
    if result.nothing_certified:
        console.print("no layer is certified: nothing is promised")
    console.print("exact on every certified layer" if result.ok else "NOT exact")


def show_accuracy(result: AccuracyResult) -> None:
    """Accuracies side by side and paired differences from the first model."""
    make_console().print(accuracy_table(result))


def show_inspection(result: Inspection) -> None:
    """Layer by layer: operator, shape, parameters, types, and what stays float."""
    console = make_console()
    console.print(inspect_table(result))
    if result.islands:
        console.print(island_table(result.islands))


def show_demo(result: DemoResult) -> None:
    """The table at the end of the demo."""
    console = make_console()
    accuracy = {model.name: model.top1_share for model in result.accuracy.models}
    rows: list[tuple[str, str | float]] = [
        ("float accuracy", f"{accuracy['digits.onnx']:.2%}"),
        (f"int{result.weight_bits} accuracy", f"{accuracy['digits.q.onnx']:.2%}"),
        ("ONNX against TensorFlow", f"{result.difference:.1e} of the output's range"),
    ]
    rows += [
        (f"oracle = {engine}", f"{engine_verdict(result.check, engine)} ({result.check.integers.get(engine, 0):,} integers)")
        for engine in result.check.engines
    ]
    rows += [(str(result.folder / name), f"{size:,} bytes") for name, size in result.files.items()]
    console.print(table("Handwritten digits, from TensorFlow to proven fixed point", ("what", "result"), rows))


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
