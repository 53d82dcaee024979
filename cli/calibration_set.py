"""`tqt-onnx calibration-set`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, PREPROCESS, SEED, JsonOutput, check_file, filled_in, json_option, numbers, preset_option


@click.command()
@click.argument("data", type=FILE)
@click.option("-o", "--output", type=FILE, default=Path("calibration_set.npy"), show_default=True, help="File to write.")
@click.option("--input-shape", help="H,W,C of the network's input.")
@click.option("--model", type=FILE, help="An .onnx file to take the input shape from.")
@click.option("--count", type=click.IntRange(min=1), default=50, show_default=True, help="How many images.")
@click.option("--preprocess", type=click.Choice(PREPROCESS), default="none", show_default=True, help="What images go through.")
@preset_option
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the draw.")
@click.option("--list", "list_file", type=FILE, help="Also write the names of what was drawn, one to a line.")
@click.option("--exclude", type=FILE, help="Draw nothing that this file names, one to a line (as --list writes it).")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@json_option
def calibration_set(
    data: Path,
    output: Path,
    input_shape: str | None,
    model: Path | None,
    count: int,
    preprocess: str,
    preset: str | None,
    seed: int,
    list_file: Path | None,
    exclude: Path | None,
    force: bool,
    as_json: str | None,
) -> int:
    """Random preprocessed images of DATA as one float32 array [N,H,W,C], which `quantize --calibration` reads."""
    for written in (output, list_file):
        if written is not None:
            check_file(written, data, model, exclude, force=force)
    report = JsonOutput(as_json, data, output, list_file, model, exclude, force=force)
    known = filled_in(preset, preprocess=preprocess, **({} if model else {"input_shape": input_shape}))
    shape = numbers(known.get("input_shape", input_shape), "--input-shape")
    from ..report import progress_bar
    from ..verbs.calibration_set import calibration_set as run
    from ..verbs.show import show_calibration_set

    with progress_bar() as progress:
        result = run(
            data,
            output,
            input_shape=shape,
            model=model,
            count=count,
            preprocess=known["preprocess"],
            seed=seed,
            list_file=list_file,
            exclude=exclude,
            force=force,
            progress=progress,
        )
    report.write(result)
    if not report.instead:
        show_calibration_set(result)
    return 0
