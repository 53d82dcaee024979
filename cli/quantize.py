"""`tqt-onnx quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    FILE,
    METHODS,
    WEIGHT_METHODS,
    JsonOutput,
    check_output,
    data_options_of,
    json_option,
    output_options,
    preset_option,
    width_options,
)
from .sections import SectionedCommand
from .training import Ending, files_read, refuse_contradictions, retrain, shared, write_back
from .training_options import from_trained_option, retrain_options, tune_options

if TYPE_CHECKING:
    from ..verbs.quantize import Quantization


@click.command(cls=SectionedCommand)
@click.argument("model", type=FILE, required=False)
@output_options
@preset_option
@click.option("--calibration", type=FILE, help="Images or arrays to calibrate with; for --retrain 50 of --train if not given.")
@click.option(
    "--method", type=click.Choice(METHODS), default="mse", show_default=True, help="How activation thresholds are decided."
)
@click.option(
    "--percentile",
    type=click.FloatRange(0, 100, min_open=True),
    default=99.99,
    show_default=True,
    help="Of the method percentile, in percent.",
)
@click.option(
    "--weight-method",
    type=click.Choice(WEIGHT_METHODS),
    help="The same for weights.  [default: mse; 3sd where training starts]",
)
@click.option("--parallel-calibration", is_flag=True, help="One float pass for all tensors: faster, a little less accurate.")
@click.option("--ignore-ranges", is_flag=True, help="Measure tensors too whose range came with the source (FakeQuant nodes).")
@click.option("--passes", help='Run these instead of the recipes "optimize" and "quantize".')
@width_options
@data_options_of("; with --retrain, of --train")
@click.option("--strict", is_flag=True, help="Exit with 1 and write nothing if a layer stays float.")
@json_option
@tune_options
@retrain_options
@from_trained_option
def quantize(output: Path, force: bool, strict: bool, as_json: str | None, **options: Any) -> int:
    """A float MODEL (.onnx from `convert`) to a quantized one with power-of-two scales.

    Static by default; --tune repairs it from the calibration images alone, --retrain trains it on data of its own.
    """
    refuse_contradictions(options)
    inputs = files_read(options)
    check_output(output, *inputs, force=force)
    ending = Ending(output, JsonOutput(as_json, output, *inputs, force=force), force, strict)
    if options["retrain"]:
        return retrain(options, ending)
    result = write_back(options) if options["from_trained"] is not None else _calibrate(options)
    ending.save(result)
    return ending.report(result)


def _calibrate(options: dict[str, Any]) -> Quantization:
    """Static mode, repaired with --tune."""
    given = shared(options)
    from ..report import progress_bar
    from ..verbs.quantize import quantize as run

    with progress_bar() as progress:
        return run(
            options["model"],
            options["calibration"],
            weight_method=options["weight_method"] or "mse",
            seed=options["seed"],
            tune=options["tune"],
            tune_minutes=options["tune_minutes"],
            progress=progress,
            **given,
        )
