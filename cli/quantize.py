"""`tqt-onnx quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import (
    FILE,
    METHODS,
    WEIGHT_METHODS,
    JsonOutput,
    check_output,
    data_options,
    filled_in,
    json_option,
    output_options,
    preset_option,
    width_options,
    widths,
)


@click.command()
@click.argument("model", type=FILE)
@output_options
@preset_option
@click.option("--calibration", required=True, type=FILE, help="Images or arrays to calibrate with.")
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
@click.option("--weight-method", type=click.Choice(WEIGHT_METHODS), default="mse", show_default=True, help="The same for weights.")
@click.option("--parallel-calibration", is_flag=True, help="One float pass for all tensors: faster, a little less accurate.")
@click.option("--ignore-ranges", is_flag=True, help="Measure tensors too whose range came with the source (FakeQuant nodes).")
@click.option("--passes", help='Run these instead of the recipes "optimize" and "quantize".')
@width_options
@data_options
@click.option("--strict", is_flag=True, help="Exit with 1 and write nothing if a layer stays float.")
@json_option
def quantize(
    model: Path,
    output: Path,
    force: bool,
    preset: str | None,
    calibration: Path,
    method: str,
    percentile: float,
    weight_method: str,
    parallel_calibration: bool,
    ignore_ranges: bool,
    passes: str | None,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    exclude: Path | None,
    strict: bool,
    as_json: str | None,
    **bits: Any,
) -> int:
    """A float MODEL (.onnx from `convert`) to a quantized one with power-of-two scales."""
    from ..ir import save

    check_output(output, model, force=force)
    report = JsonOutput(as_json, model, output, calibration, force=force)
    known = filled_in(preset, preprocess=preprocess, **bits)
    prepare = known.pop("preprocess")
    chosen = widths(**known)
    from ..report import progress_bar
    from ..verbs.quantize import quantize as run
    from ..verbs.show import show_quantization

    with progress_bar() as progress:
        result = run(
            model,
            calibration,
            bits=chosen,
            method=method,
            percentile=percentile,
            weight_method=weight_method,
            parallel=parallel_calibration,
            ignore_ranges=ignore_ranges,
            passes=passes,
            preprocess=prepare,
            limit=limit,
            seed=seed,
            exclude=exclude,
            progress=progress,
        )
    refused = strict and bool(result.float_layers)
    if not refused:
        save(result.model, output, force=force)
    report.write(result)
    if not report.instead:
        show_quantization(result, None if refused else output)
    return 1 if refused else 0
