"""What `export` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..report import make_console, table
from .export_folder import MANIFEST

if TYPE_CHECKING:
    from .export import Export

_MOST_FILES: Final = 20
"""Beyond these the manifest is the place to look."""


def show_targets() -> None:
    """One line for each target."""
    from dataclasses import fields

    from ..export import EXPORTERS

    def options(exporter: Any) -> str:
        names = ["data"] * exporter.needs_data + [item.name for item in fields(exporter)]
        return ", ".join("--" + name.replace("_", "-") for name in names)

    rows = [(name, exporter.summary, exporter.reader, exporter.rounding, options(exporter)) for name, exporter in EXPORTERS.items()]
    make_console().print(table("Targets", ("target", "what is written", "read by", "rounds", "options"), rows))


def show_export(result: Export) -> None:
    """The files, and what the user should know of them."""
    console = make_console()
    rows = [(item.path, f"{item.bytes:,}", item.sha256[:12]) for item in result.files[:_MOST_FILES]]
    console.print(table(f"{result.folder}: for {result.target}", ("file", "bytes", "sha256"), rows))
    if len(result.files) > _MOST_FILES:
        console.print(f"... and {len(result.files) - _MOST_FILES} more files; {MANIFEST} lists all of them")
    for note in result.notes:
        console.print(note)
