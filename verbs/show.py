"""What each verb prints: its result as text and tables. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir import Quantizer
from ..report import (
    accuracy_table,
    certificate_table,
    check_table,
    engine_verdict,
    function_table,
    group_table,
    inspect_table,
    island_table,
    layer_table,
    make_console,
    nearness_line,
    noise_table,
    own_noise_table,
    printable,
    summary_lines,
    table,
    training_lines,
    training_table,
    tuned_table,
    unmatched_table,
)
from .show_rounding import rounding_parts

if TYPE_CHECKING:
    from ..datasets import AccuracyResult
    from ..report import RenderableType
    from ..verify import CheckResult
    from .calibration_set import CalibrationSet
    from .convert import Conversion
    from .demo import DemoResult
    from .inspection import Inspection
    from .passes import PassTable
    from .presets import PresetTable
    from .quantize import Quantization
    from .retraining import Retraining


def show_conversion(result: Conversion, output: Path) -> None:
    """The difference from TensorFlow, output by output."""
    console = make_console()
    rows = [
        (item.name, item.difference, item.output_range, item.relative, item.within(result.tolerance)) for item in result.differences
    ]
    console.print(table(f"ONNX against {result.source}", ("output", "difference", "range", "relative", "accepted"), rows))
    for item in result.differences:
        if item.within(result.tolerance) and item.relative > result.tolerance:
            console.print(
                f"{item.name}: float32 leaves more open than that: nudging the inputs' last bits moves it by {item.noise:.1e}"
            )
    silent = [item for item in result.differences if not (item.output_range or item.difference)]
    for item in silent:
        console.print(f"{item.name}: constant on every probe (untrained weights?): nothing could be compared there")
    verdict = f"DIFFERS by more than {result.tolerance:g} of the output's range; not written"
    if result.ok:
        verdict = "agrees; written"
    elif all(item in silent or item.within(result.tolerance) for item in result.differences):
        verdict = "cannot be compared with its source; not written"
    console.print(f"{output}: {verdict}")


def show_passes(result: PassTable) -> None:
    """Every pass, then the recipes and Graffitist's names."""
    console = make_console()
    rows = [(row.name, " ".join(row.options), row.summary) for row in result.passes]
    console.print(table("Passes", ("pass", "options", "what it does"), rows))
    if result.rewrites:
        console.print(table("Before a TensorFlow graph is ONNX", ("step", "what it does"), list(result.rewrites)))
    for name, items in result.recipes.items():
        console.print(f"{name}: {', '.join(items)}")
    for name, meaning in result.aliases.items():
        console.print(f"{name} (Graffitist): {meaning}")


def show_presets(result: PresetTable) -> None:
    """One line for each network, and what Graffitist reports of its accuracy."""
    console = make_console()
    rows = [
        (
            one.name,
            one.summary,
            "x".join(map(str, one.input_shape)),
            one.preprocess,
            *(_percent(one.published_top1.get(kind)) for kind in ("float", "int8_static", "int8_retrained", "int4_retrained")),
        )
        for one in result.presets
    ]
    columns = ("preset", "network", "input", "preprocess", "float", "int8 static", "int8 retrained", "int4 retrained")
    console.print(table("Presets, with the top-1 in percent that Graffitist reports", columns, rows))


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1f}"


def show_calibration_set(result: CalibrationSet) -> None:
    """What was drawn from where, and the range of the numbers: a wrong preset shows there first."""
    console = make_console()
    shape = "x".join(map(str, result.shape))
    console.print(f"{result.path}: {shape} float32 in [{result.minimum:g}, {result.maximum:g}], drawn from {result.source}")


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
    if result.recorded:
        console.print(f"thresholds from the source's FakeQuant ranges: {len(result.recorded)} ({', '.join(result.recorded)})")
    if result.tables:
        console.print(function_table(result.tables))
    if result.islands:
        console.print(island_table(result.islands))
    for part in _fidelity(result):
        console.print(part)
    console.print(f"{output}: written" if output is not None else "nothing written: layers stay float and --strict was given")


def _fidelity(result: Quantization) -> Iterator[RenderableType]:
    """How near the float network it is, what tuning brought, and what to try where that is not near."""
    if result.tuning is not None:
        yield tuned_table(result.tuning.layers)
        yield f"tuned in {result.tuning.seconds:.0f} s; on images kept back, which only chose how far each layer moved:"
        yield f"  static: {nearness_line(result.tuning.before)}"
        yield f"  tuned:  {nearness_line(result.tuning.after)}"
        if result.tuning.kept == "static":
            yield "tuning did not help: the static model is kept"
    if result.agreement is None:
        return
    if result.tuning is None:
        yield nearness_line(result.agreement)
    if result.agreement.poor and result.tuning is None:
        yield "that is poor: --tune repairs layers from the calibration data alone, --retrain trains the network (docs/training.md)"
    elif result.agreement.poor:
        yield "that is poor: more calibration images, more bits, or --retrain with training data may help (docs/training.md)"


def show_training_graph(path: Path) -> None:
    """Where a training graph is and what becomes of it."""
    make_console().print(
        f"{path}: a Keras model with trainable thresholds; `quantize --from-trained` writes it back once it is trained"
    )


def show_retraining(result: Retraining, output: Path | None) -> None:
    """What was trained on what, which step was kept and why, where thresholds went, and accuracies on the test data."""
    console = make_console()
    for line in training_lines(result.training, result.trained_on):
        console.print(printable(line))
    console.print(printable(f"calibrated on {result.calibrated_on}; tested on {result.tested_on}"))
    if result.training.steps and not result.training.kept:
        console.print("nothing was gained: no step was better than the beginning; other learning rates are what helps most often")
    console.print(training_table(result.training))
    if result.folded_layers:
        rows = list(result.folded_layers.items())
        console.print(table("Batch norms that could not be trained as such; their layers were, folded", ("layer", "reason"), rows))
    if result.accuracy is not None:
        console.print(accuracy_table(result.accuracy))
    if result.quantization is not None:
        show_quantization(result.quantization, output)
    else:
        console.print(f"{output}: written; it is the float network")


def show_check(result: CheckResult) -> None:
    """Each engine against the oracle, every difference, noise and ties, the certificate, what stays float, and the answer."""
    console = make_console()
    for part in _rankings(result):
        console.print(part)
    certified = sum(layer.certified for layer in result.certificates)
    exhausted = f"; {len(result.exhausted)} more run entry by entry" if result.exhausted else ""
    widest = max((layer.accumulator_bits or 0 for layer in result.certificates), default=0)
    console.print(
        f"certified for float32: {certified} of {len(result.certificates)} layers{exhausted}; widest accumulator {widest} bits"
    )
    if result.fused:
        console.print(f"optimized onnxruntime session: {fused_line(result.fused)}")
    if result.islands:
        console.print(island_table(result.islands))
    for note in result.notes:
        console.print(f"note: {note}")
    if result.layers_not_compared:
        console.print(f"promised, but compared in no engine: {', '.join(result.layers_not_compared)}")
    if result.nothing_certified:
        console.print("no layer is certified or exhausted: nothing is promised")
    if not result.engines:
        console.print("nothing was run: there was no data")
    else:
        exact = "exact on every certified layer" + (" and every exhausted table" if result.exhausted else "")
        console.print(exact if result.ok else "NOT exact")


def _rankings(result: CheckResult) -> Iterator[RenderableType]:
    """The tables: engines or, where nothing was run, certificates; noise; ties."""
    if result.engines:
        yield check_table(result)
    else:
        yield certificate_table(sorted(result.certificates, key=lambda layer: layer.certified))
    if result.sqnr:
        yield noise_table(result.sqnr)
        yield own_noise_table(result.sqnr)
    if result.unmatched:
        yield unmatched_table(result.unmatched)
    yield from rounding_parts(result)


def show_missing_certificates(result: CheckResult) -> None:
    """What `--require-certificate` objects to."""
    layers = result.without_certificate
    console = make_console()
    if layers:
        console.print(table("A certificate is required; these layers have none", ("layer", "reason"), list(layers.items())))
    else:
        console.print(f"every layer is certified ({len(result.certificates)})")


def show_accuracy(result: AccuracyResult) -> None:
    """Accuracies side by side and paired differences from the first model."""
    make_console().print(accuracy_table(result))


def show_inspection(result: Inspection) -> None:
    """A summary, then layer by layer: topology, shape, cost, types, share groups, and what stays float."""
    console = make_console()
    for line in summary_lines(result):
        console.print(printable(line))
    if result.remark:
        console.print(f"note: {printable(result.remark)}")
    console.print(layer_table(result))
    if result.kind == "foreign":
        return
    console.print(inspect_table(result))
    groups = group_table(result)
    if groups is not None:
        console.print(groups)
    if result.tables:
        console.print(function_table(result.tables))
    if result.islands:
        console.print(island_table(result.islands))
    elif result.graph is not None:
        console.print("no layer stays float" if result.quantized else "no layer would stay float")


def show_demo(result: DemoResult) -> None:
    """The table at the end of the demo."""
    console = make_console()
    accuracy = {model.name: model.top1_share for model in result.accuracy.models}
    rows: list[tuple[str, str | float]] = [
        ("float accuracy", f"{accuracy['digits.onnx']:.2%}"),
        (f"int{result.weight_bits} accuracy", f"{accuracy['digits.q.onnx']:.2%}"),
        ("int4 accuracy, static", f"{accuracy['digits.int4.q.onnx']:.2%}"),
        ("int4 accuracy, retrained", f"{accuracy['digits.int4.retrained.q.onnx']:.2%}"),
        ("ONNX against TensorFlow", f"{result.difference:.1e} of the output's range"),
    ]
    rows += [
        (f"oracle = {engine}", f"{engine_verdict(result.check, engine)} ({result.check.integers.get(engine, 0):,} integers)")
        for engine in result.check.engines
    ]
    exact = "bit for bit" if result.retrained.ok else "NOT exact"
    rows.append(("retrained: every engine", f"{exact} ({sum(result.retrained.integers.values()):,} integers)"))
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
