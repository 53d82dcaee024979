"""`tqt-onnx export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from .options import FILE, JsonOutput, data_options, json_option, together

TARGETS: Final = ("qdq", "integer", "vectors", "qonnx", "hls4ml", "c", "dpu", "finn", "saved-model", "tflite")
"""Repeated here so that `--help` loads no NumPy; a test compares them with `export.EXPORTERS`."""

TARGET_OPTIONS: Final = {"integer_io": "integer", "fix": "dpu", "bias_bits": "dpu", "narrow_weights": "tflite"}
"""Option of a target -> the target that takes it; a test compares them with the fields of the exporters."""

target_options = together(
    click.option("--integer-io", is_flag=True, help="integer: inputs and outputs are integers; the float ends are left out."),
    click.option("--fix", is_flag=True, help="dpu: move exponents into the range of the target, and say what it costs."),
    click.option("--bias-bits", type=click.Choice(["8", "32"]), help="dpu: width of biases."),
    click.option("--narrow-weights", is_flag=True, help="tflite: weights of -128, which it excludes, become -127; says how many."),
)


def _list_targets(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Prints the table of targets and ends."""
    if not wanted or context.resilient_parsing:
        return
    from ..verbs.show_export import show_targets

    show_targets()
    context.exit()


@click.command()
@click.argument("model", type=FILE)
@click.option("--target", type=click.Choice(TARGETS), required=True, help="For whom; --list says what each is.")
@click.option("-o", "--output", type=FILE, required=True, help="Folder to write.")
@click.option("--force", is_flag=True, help="Replace the folder, if an export wrote it; overwrite the JSON file.")
@click.option(
    "--list", "listed", is_flag=True, is_eager=True, expose_value=False, callback=_list_targets, help="What each target is for."
)
@click.option("--data", type=FILE, help="Examples: for vectors, or to count what another rounding of the target changes.")
@data_options
@json_option
@target_options
def export(
    model: Path,
    target: str,
    output: Path,
    force: bool,
    data: Path | None,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    exclude: Path | None,
    as_json: str | None,
    **options: Any,
) -> int:
    """Writes a quantized MODEL in the form that a toolchain or a piece of hardware reads."""
    from ..ir import UsageError
    from ..verbs.export import export_model as run
    from ..verbs.show_export import show_export

    if as_json not in (None, "-") and Path(str(as_json)).resolve().is_relative_to(output.resolve()):
        raise UsageError(f"{as_json}: lies in the folder to write; a name elsewhere is expected for --json")
    report = JsonOutput(as_json, model, data, exclude, force=force)
    result = run(
        model,
        target,
        output,
        options={name: int(value) if name == "bias_bits" else value for name, value in options.items() if value},
        data=data,
        preprocess=preprocess,
        limit=limit,
        seed=seed,
        exclude=exclude,
        force=force,
    )
    report.write(result)
    if not report.instead:
        show_export(result)
    return 0
