"""`tqt-onnx inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, JsonOutput, json_force_option, json_option, width_options, widths


@click.command()
@click.argument("model", type=FILE)
@width_options
@json_option
@json_force_option
def inspect(model: Path, as_json: str | None, force: bool, **bits: Any) -> int:
    """What is in a MODEL (.onnx), what is or would be quantized, and what stays float and why."""
    chosen = widths(**bits)
    report = JsonOutput(as_json, model, force=force)
    from ..verbs.inspect import inspect as run
    from ..verbs.show import show_inspection

    result = run(model, bits=chosen)
    report.write(result)
    if not report.instead:
        show_inspection(result)
    return 0
