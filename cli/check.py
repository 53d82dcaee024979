"""`tqt-onnx check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from .options import FILE, JsonOutput, data_options, json_force_option, json_option, names

ROUNDINGS: Final = ("half_even", "half_up", "half_away", "floor_pool")
"""Repeated here so that `--help` loads no NumPy; a test compares them with `verify.ROUNDINGS`."""


@click.command()
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, help="Inputs to run. With --require-certificate none are needed.")
@click.option("--engines", default="oracle,ort", show_default=True, help="Of oracle, ort, tf; tf loads TensorFlow.")
@click.option(
    "--copy", "copies", multiple=True, metavar="ENGINE=FILE", help="Run ENGINE (oracle, ort, ort-optimized, tf) on another file."
)
@click.option("--float", "float_model", type=FILE, help="The float model that was quantized: measure the noise of every tensor.")
@click.option(
    "--rounding",
    type=click.Choice(ROUNDINGS),
    help="Simulate how a target rounds: what it changes in every tensor, in the outputs and in the top-1 answers.",
)
@click.option(
    "--require-certificate",
    is_flag=True,
    help="Exit with 1 if any layer has no proof, and list those; running all entries is none.",
)
@data_options
@json_option
@json_force_option
def check(
    model: Path,
    data: Path | None,
    engines: str,
    copies: Sequence[str],
    float_model: Path | None,
    rounding: str | None,
    require_certificate: bool,
    preprocess: str,
    limit: int | None,
    seed: int | None,
    exclude: Path | None,
    as_json: str | None,
    force: bool,
) -> int:
    """Do all engines compute the same integers for a quantized MODEL? Exit status 1 if not."""
    from ..ir import UsageError, load
    from ..report import progress_bar
    from ..verbs.check import check as run
    from ..verbs.show import show_check, show_missing_certificates

    if data is None and not require_certificate:
        raise UsageError("--data is expected; only certificates (--require-certificate) need none")
    found = _copies(copies)
    report = JsonOutput(as_json, model, data, float_model, exclude, *map(Path, found.values()), force=force)
    own = {engine: load(path) for engine, path in found.items()}
    with progress_bar() as progress:
        result = run(
            model,
            data,
            engines=names(engines) or (),
            copies=own,
            float_model=float_model,
            rounding=rounding,
            preprocess=preprocess,
            limit=limit,
            seed=seed,
            exclude=exclude,
            progress=progress,
        )
    report.write(result)
    if not report.instead:
        show_check(result)
        if require_certificate:
            show_missing_certificates(result)
    refused = require_certificate and bool(result.without_certificate)
    return 1 if refused or (data is not None and not result.ok) else 0


def _copies(texts: Sequence[str]) -> dict[str, str]:
    """Engine -> file of `--copy ENGINE=FILE`."""
    found: dict[str, str] = {}
    for text in texts:
        engine, _, path = text.partition("=")
        if not (engine and path):
            raise click.BadParameter(f"ENGINE=FILE is expected. Received: {text!r}", param_hint="--copy")
        if engine in found:
            raise click.BadParameter(f"engine {engine!r} is given twice", param_hint="--copy")
        found[engine] = path
    return found
