"""Help in sections: a command with many options shows them by what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

_SECTION: Final = "tqt_onnx_section"
"""Attribute of an option: the section of the help it is shown in."""


def option(section: str, *names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`click.option` that is shown in a section of its own in the help of a `SectionedCommand`."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        return click.option(*names, cls=_SectionOption, section=section, **attributes)(function)

    return apply


def section_of(parameter: click.Parameter) -> str | None:
    """The section an option is shown in; None for those that have no section of their own."""
    return getattr(parameter, _SECTION, None)


class _SectionOption(click.Option):
    """An option that knows its section."""

    def __init__(self, *arguments: Any, section: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        setattr(self, _SECTION, section)


class SectionedCommand(click.Command):
    """A command whose help lists options without a section first, then each section under its title, in order of appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(section_of(parameter) or "Options", []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
