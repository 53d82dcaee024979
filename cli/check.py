"""`tqt-onnx check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .options import FILE, data_options, names


@click.command()
@click.argument("model", type=FILE)
@click.option("--data", required=True, type=FILE, help="Inputs to run.")
@click.option("--engines", default="oracle,ort", show_default=True, help="Of oracle, ort, tf; tf loads TensorFlow.")
@click.option(
    "--copy", "copies", multiple=True, metavar="ENGINE=FILE", help="Run ENGINE (oracle, ort, ort-optimized, tf) on another file."
)
@data_options
def check(
    model: Path, data: Path, engines: str, copies: Sequence[str], preprocess: str, limit: int | None, seed: int | None
) -> int:
    """Do all engines compute the same integers for a quantized MODEL? Exit status 1 if not."""
    from ..ir import load
    from ..report import progress_bar
    from ..verbs.check import check as run
    from ..verbs.show import show_check

    own = {engine: load(path) for engine, path in _copies(copies).items()}
    with progress_bar() as progress:
        result = run(
            model, data, engines=names(engines) or (), copies=own, preprocess=preprocess, limit=limit, seed=seed, progress=progress
        )
    show_check(result)
    return 0 if result.ok else 1


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
