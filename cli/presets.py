"""`tqt-onnx presets`."""

from __future__ import annotations

import click

from .options import JsonOutput, json_force_option, json_option


@click.command()
@json_option
@json_force_option
def presets(as_json: str | None, force: bool) -> int:
    """Lists the networks that `--preset` knows; the path of a .toml file of the same form is understood there too."""
    report = JsonOutput(as_json, force=force)
    from ..verbs.presets import presets as run
    from ..verbs.show import show_presets

    result = run()
    report.write(result)
    if not report.instead:
        show_presets(result)
    return 0
