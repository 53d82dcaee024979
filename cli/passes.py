"""`tqt-onnx passes`."""

from __future__ import annotations

import click

from .options import JsonOutput, json_option


@click.command()
@json_option
def passes(as_json: str | None) -> int:
    """Lists the passes that `--passes` takes, their options, and the recipes made of them."""
    report = JsonOutput(as_json)
    from ..verbs.passes import passes as run
    from ..verbs.show import show_passes

    result = run()
    report.write(result)
    if not report.instead:
        show_passes(result)
    return 0
