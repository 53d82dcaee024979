"""`tqt-onnx evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .options import FILE, JsonOutput, data_options, filled_in, json_force_option, json_option, numbers, preset_option


@click.command()
@click.argument("models", nargs=-1, required=True, type=FILE)
@click.option("--data", required=True, type=FILE, help="Labelled images or arrays.")
@preset_option
@click.option(
    "--label-offset",
    default="0",
    show_default=True,
    metavar="N[,N...]",
    help="Output index of class 0 (1 with a background class): one number for all models, or one for each.",
)
@click.option(
    "--min-accuracy", type=click.FloatRange(0, 1), help="Exit with 1 if the last model's top-1 is below this share (0 to 1)."
)
@data_options
@json_option
@json_force_option
def evaluate(
    models: Sequence[Path],
    data: Path,
    preset: str | None,
    label_offset: str,
    min_accuracy: float | None,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    exclude: Path | None,
    as_json: str | None,
    force: bool,
) -> int:
    """Top-1 and top-5 of one or more MODELS (.onnx) on the same images, compared with the first."""
    from ..ir import UsageError
    from ..report import progress_bar
    from ..verbs.evaluate import evaluate as run
    from ..verbs.show import show_accuracy

    if len(set(models)) != len(models):
        raise UsageError("each model can be given once")
    report = JsonOutput(as_json, *models, data, exclude, force=force)
    known = filled_in(preset, preprocess=preprocess, label_offset=label_offset)
    with progress_bar() as progress:
        result = run(
            {str(path): path for path in models},
            data,
            preprocess=known["preprocess"],
            label_offset=numbers(known["label_offset"], "--label-offset") or 0,
            limit=limit,
            seed=seed,
            exclude=exclude,
            labelled=min_accuracy is not None,
            progress=progress,
        )
    report.write(result)
    if not report.instead:
        show_accuracy(result)
    return 0 if min_accuracy is None or result.models[-1].top1_share >= min_accuracy else 1
