"""`tqt-onnx passes`."""

from __future__ import annotations

import click

from .options import JsonOutput, json_force_option, json_option


@click.command()
@click.option("--tensorflow", is_flag=True, help="Also list what happens to a TensorFlow graph before it is ONNX.")
@json_option
@json_force_option
def passes(tensorflow: bool, as_json: str | None, force: bool) -> int:
    """Lists the passes that `--passes` takes, their options, and the recipes made of them."""
    report = JsonOutput(as_json, force=force)
    from ..verbs.passes import passes as run
    from ..verbs.show import show_passes

    result = run(tensorflow=tensorflow)
    report.write(result)
    if not report.instead:
        show_passes(result)
    return 0
