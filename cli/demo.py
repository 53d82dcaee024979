"""`tqt-onnx demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, SEED, width_options, widths


@click.command()
@click.option("-o", "--output", type=FILE, default=Path("demo-output"), show_default=True, help="Folder.")
@click.option("--force", is_flag=True, help="Overwrite files of an earlier run.")
@click.option("--epochs", type=click.IntRange(min=1), default=12, show_default=True, help="Of training.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the data split and the training.")
@width_options
def demo(output: Path, force: bool, epochs: int, seed: int, **bits: Any) -> int:
    """Trains a small network on handwritten digits and takes it the whole road to proven fixed point."""
    chosen = widths(**bits)
    from ..report import progress_bar
    from ..verbs.demo import demo as run
    from ..verbs.show import show_demo

    with progress_bar() as progress:
        result = run(output, bits=chosen, epochs=epochs, seed=seed, force=force, progress=progress)
    show_demo(result)
    return 0 if result.check.ok and result.retrained.ok else 1
